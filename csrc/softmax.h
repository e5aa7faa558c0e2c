// Softmax, its logarithm, and their gradients, of rows.
#pragma once
#include <cstddef>

namespace dlcore {

struct SoftmaxKernels {
  using Map = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, void* y);
  using Gradient = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* dy, const void* y, void* dx);
  struct Of {
    Map softmax, log_softmax;
    Gradient softmax_grad, log_softmax_grad;
  } f32, f64;
};

}  // namespace dlcore
