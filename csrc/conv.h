// Two-dimensional convolution (cross-correlation), NCHW: y[n,o,p,q] = b[o] + the sum over c, r, s of
// x[n, c, p*stride + r*dilation - padding, ...] w[o,c,r,s]. All arrays are contiguous; pairs are (rows, columns).
#pragma once
#include "tail.h"

namespace dlcore {

constexpr double kConvWorthATeam = 3e5;  // multiply-adds, some microseconds: waking a thread may take as long

struct Conv2d {
  std::ptrdiff_t N, C, H, W;  // x[N,C,H,W]
  std::ptrdiff_t O, KH, KW;   // w[O,C/groups,KH,KW], b[O]
  std::ptrdiff_t P, Q;        // y[N,O,P,Q]
  std::ptrdiff_t stride[2], padding[2], dilation[2], groups;
  Tail tail = {};  // of the result, but for dw
};

template <class T>
struct ConvFunctions {
  void (*forward)(const Conv2d&, const T* x, const T* w, const T* b, T* y);  // b may be null
  void (*dx)(const Conv2d&, const T* dy, const T* w, T* dx);
  void (*dw)(const Conv2d&, const T* x, const T* dy, T* dw);
};

struct ConvKernels {
  ConvFunctions<float> f32;
  ConvFunctions<double> f64;
  ConvFunctions<float> winograd;  // kernels of 3 x 3, stride and dilation 1, one group
};

}  // namespace dlcore
