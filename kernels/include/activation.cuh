// Activations that a product applies to its tile before it is stored, in the order of ACTIVATIONS of
// dlcore/ops/matmul.py.
#pragma once
#include "types.cuh"

enum Activation { kNone, kRelu, kGelu, kTanh, kSigmoid };

DL_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
DL_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }

template <class R>
DL_DEVICE R relu(R x) {
  return x < R(0) ? R(0) : x;
}

template <class R>
DL_DEVICE R activated(R x, int activation) {
  if (activation == kRelu) return relu(x);
  if (activation == kGelu) return R(0.5) * x * (R(1) + erf(x * R(0.70710678118654752440)));
  if (activation == kTanh) return tanh(x);
  if (activation == kSigmoid) {
    const R decay = exp(-fabs(x));
    return (x < R(0) ? decay : R(1)) / (R(1) + decay);
  }
  return x;
}
