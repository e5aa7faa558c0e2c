// Sums, extremes and their like over axes of a contiguous array.
//
// The array is seen as x[A, K, B, L] of which A and B are reduced, K and L kept; each may be 1. Every sum is formed in
// double, in an order that depends on the shape alone: a unit of work is one chunk of A (of B, where A is 1) for one k
// and up to kReduceColumns of L; its results are added to those of the other chunks afterwards.
#pragma once
#include <cstddef>

namespace dlcore {

struct Reduction {
  const void* x;
  std::ptrdiff_t a, k, b, l;
  const double* shift = nullptr;  // [K, L], what `deviations` and `products` subtract
  const void* y = nullptr;        // of x's shape, for `products`
  std::ptrdiff_t outputs() const { return k * l; }
  std::ptrdiff_t length() const { return a * b; }
};

struct ReduceKernels {
  using Run = void (*)(const Reduction&, double* result);  // result[K, L]
  using Locate = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, long long* index);
  struct Of {
    Run sum, max, min;
    Run deviations, products;  // sums of (x - shift)^2 and x * (y - shift)
    Locate argmax, argmin;     // per row of n > 0: index of the first extreme, or of the first NaN
  } f32, f64;
};

}  // namespace dlcore
