// Scaled dot-product attention and its gradients, without the T x S matrix of probabilities; the formulas are those of
// dlcore/ops/attention.py.
#pragma once
#include <cstddef>

namespace dlcore {

// Matrices [rows, columns] over the leading axes of a problem. Strides count elements; 0 where an axis is repeated.
struct Matrices {
  static constexpr int kMostAxes = 8;
  void* data;  // of the kernel's type; null: there are none
  std::ptrdiff_t lead[kMostAxes], row, col;
};

struct Attention {
  std::ptrdiff_t T, S, D, E;
  int axes;  // leading ones
  std::ptrdiff_t dim[Matrices::kMostAxes];
  double scale;
  bool causal;  // query t sees keys 0 to t
  Matrices q, k, v, bias, y, lse;
};

struct AttentionGrad {
  Attention of;
  Matrices dy, dlse;           // dlse may be null
  Matrices dq, dk, dv, dbias;  // results: the first three, or dbias
};

struct AttentionKernels {
  struct Of {
    void (*forward)(const Attention&);
    void (*backward)(const AttentionGrad&);
  } f32, f64;
};

}  // namespace dlcore
