// Normalisations and their gradients; the formulas are those of dlcore/ops/norm.py.
#pragma once
#include "tail.h"

namespace dlcore {

// x[N, C, S], of which batch norm reduces N and S, group norm S and the channels of a group. Pointers are to arrays of
// the kernel's type; scale and bias may be null.
struct ChannelNorm {
  std::ptrdiff_t n, c, s, groups;  // groups: of group norm
  double eps;
  const void *x, *scale, *bias;
  void *y, *mean, *var;  // mean[C], var[C]: results of batch norm, operands of inference
  Tail tail;             // of y; not of group norm
};
struct ChannelNormGrad {
  std::ptrdiff_t n, c, s, groups;
  double eps;
  const void *dy, *x, *scale;
  const void *mean, *var, *dmean, *dvar;  // of batch norm
  void *dx, *dscale, *dbias;
};

// x[rows, D]; `centre`: layer norm, else RMS norm, which has no bias.
struct RowNorm {
  std::ptrdiff_t rows, d;
  double eps;
  bool centre;
  const void *x, *scale, *bias;
  void* y;
};
struct RowNormGrad {
  std::ptrdiff_t rows, d;
  double eps;
  bool centre;
  const void *dy, *x, *scale;
  void *dx, *dscale, *dbias;
  Tail tail;  // of dx
};

struct NormKernels {
  struct Of {
    void (*batch)(const ChannelNorm&);
    void (*inference)(const ChannelNorm&);
    void (*group)(const ChannelNorm&);
    void (*batch_grad)(const ChannelNormGrad&);
    void (*group_grad)(const ChannelNormGrad&);
    void (*rows)(const RowNorm&);
    void (*rows_grad)(const RowNormGrad&);
  } f32, f64;
};

}  // namespace dlcore
