// Softmax, its logarithm, the cross-entropy of logits with labels, and their gradients, of rows.
#pragma once
#include <cstddef>

namespace dlcore {

enum class Mean { none, mean, sum };

// The formulas are those of dlcore/ops/cross_entropy.py, without class weights. lse[rows]; loss[rows] or loss[1].
struct CrossEntropy {
  std::ptrdiff_t rows, n;
  const void* logits;
  const long long* labels;
  long long ignored;
  double smoothing;
  Mean reduction;
  void *lse, *loss;
};
struct CrossEntropyGrad {
  CrossEntropy of;  // with its lse; loss is not read
  const void *g_lse, *g_loss;
  void* dlogits;
};

struct SoftmaxKernels {
  using Map = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, void* y);
  using Gradient = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* dy, const void* y, void* dx);
  struct Of {
    Map softmax, log_softmax;
    Gradient softmax_grad, log_softmax_grad;
    void (*cross_entropy)(const CrossEntropy&);
    void (*cross_entropy_grad)(const CrossEntropyGrad&);
  } f32, f64;
};

}  // namespace dlcore
