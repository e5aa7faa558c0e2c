// Update rules of optimizers, in place, over a list of parameters at once.
#pragma once
#include <cstddef>

namespace dlcore {

// Parameter i has the elements [offset[i], offset[i + 1]) of all; its arrays are array[k][i], each contiguous.
struct ParameterList {
  std::ptrdiff_t count;
  const std::ptrdiff_t* offset;
  void* const* array[5];
};

struct SgdRule {                            // arrays: p, g, momentum_buffer
  double lr, weight_decay, momentum, gain;  // buffer = momentum * buffer + gain * g
  bool nesterov;
};

struct AdamRule {                             // arrays: p, g, exp_avg, exp_avg_sq, max_exp_avg_sq (amsgrad)
  double shrink, weight_decay, beta1, beta2;  // p *= shrink; g += weight_decay * p
  double root, eps, rate;                     // p -= rate * exp_avg / (sqrt(exp_avg_sq) / root + eps)
  bool amsgrad;
};

struct OptimKernels {
  struct Of {
    void (*sgd)(const ParameterList&, const SgdRule&);
    void (*adam)(const ParameterList&, const AdamRule&);
  } f32, f64;
};

}  // namespace dlcore
