// Division by numbers that the host knows, by multiplication (conv_geometry.py).
#pragma once
#include "dl.cuh"

// Division of n < 2^31 by `size`: multiplier = ceil(2^(31 + shift) / size), shift = ceil(log2(size)).
struct Divisor {
  unsigned size, multiplier, shift;
};

DL_DEVICE unsigned quotient(unsigned n, const Divisor& by) { return __umulhi(n + n, by.multiplier) >> by.shift; }
