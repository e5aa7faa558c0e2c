// The vector functions of simd_math.h over whole arrays.
#pragma once
#include <cstddef>

namespace dlcore {

struct VmathKernels {
  using Map = void (*)(std::ptrdiff_t n, const float* x, float* y);  // may work in place
  Map exp, log, tanh, sigmoid, erf, gelu;
};

}  // namespace dlcore
