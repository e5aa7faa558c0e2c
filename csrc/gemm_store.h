// The epilogue of a plain matrix product: add to C, bias, activation.
#pragma once
#include "gemm.h"
#include "gemm_loops.h"
#include "simd_math.h"

namespace dlcore {
namespace DL_ISA {

template <class T>
DL_INLINE vec<T> activate(Activation f, vec<T> x) {
  switch (f) {
    case Activation::relu:
      return max(vec<T>{}, x);
    case Activation::gelu:
      return gelu<T>(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
    default:
      return x;
  }
}

template <class T>
struct Store {
  T* c;
  Index ld;
  const T* bias;
  bool bias_per_row;
  Activation activation;
  bool accumulate;

  DL_INLINE T* place(Index m0, Index n0, bool last, Index* row, bool* add) const {
    *row = ld;
    *add = *add || accumulate;
    return last && (bias != nullptr || activation != Activation::none) ? nullptr : c + m0 * ld + n0;
  }

  void tile(Index m0, Index n0, int rows, int cols, const T* acc, bool first, bool last) const {
    constexpr int W = lanes<T>;
    const bool add = !first || accumulate;
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; j += W) {
        T* at = c + (m0 + i) * ld + n0 + j;
        const int n = smaller(W, cols - j);
        vec<T> x = load(acc + i * Tiling<T>::NR + j);
        if (add) x += load(at, n);
        if (last) x = finish(x, m0 + i, n0 + j, n);
        store(at, x, n);
      }
  }

  DL_INLINE vec<T> finish(vec<T> x, Index m, Index n0, int n) const {
    if (bias != nullptr) x += bias_per_row ? broadcast(bias[m]) : load(bias + n0, n);
    return activate<T>(activation, x);
  }
};

}  // namespace DL_ISA
}  // namespace dlcore
