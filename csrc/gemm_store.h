// The epilogue of a plain matrix product: add to C, bias, activation.
#pragma once
#include <type_traits>

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

// f(activation), known when f is compiled.
template <class F>
DL_INLINE void with_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::relu:
      return f(std::integral_constant<Activation, Activation::relu>());
    case Activation::gelu:
      return f(std::integral_constant<Activation, Activation::gelu>());
    case Activation::tanh:
      return f(std::integral_constant<Activation, Activation::tanh>());
    case Activation::sigmoid:
      return f(std::integral_constant<Activation, Activation::sigmoid>());
    default:
      return f(std::integral_constant<Activation, Activation::none>());
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
  bool starts = false;  // with the bias of columns, instead of adding it at the end

  DL_INLINE const T* start(Index n0) const { return starts ? bias + n0 : nullptr; }
  DL_INLINE T* place(Index m0, Index n0, bool last, Index* row, bool* add) const {
    *row = ld;
    *add = *add || accumulate;
    return last && (adds_bias() || activation != Activation::none) ? nullptr : c + m0 * ld + n0;
  }

  void tile(Index m0, Index n0, int rows, int cols, const T* acc, bool first, bool last) const {
    const bool add = !first || accumulate;
    if (cols < Tiling<T>::NR) return narrow_tile(m0, n0, rows, cols, acc, add, last);
    with_activation(last ? activation : Activation::none, [&](auto f) DL_INLINE_LAMBDA {
      for (int i = 0; i < rows; ++i) {
        T* const at = c + (m0 + i) * ld + n0;
        static_for<Tiling<T>::kVectors>([&](auto v) DL_INLINE_LAMBDA {
          constexpr int j = decltype(v)() * lanes<T>;
          vec<T> x = load(acc + i * Tiling<T>::NR + j);
          if (add) x += load(at + j);
          if (last && adds_bias()) x += bias_per_row ? broadcast(bias[m0 + i]) : load(bias + n0 + j);
          store(at + j, activate<T>(f(), x));
        });
      }
    });
  }

 private:
  DL_INLINE bool adds_bias() const { return bias != nullptr && !starts; }
  // Fewer columns than a whole tile.
  void narrow_tile(Index m0, Index n0, int rows, int cols, const T* acc, bool add, bool last) const {
    constexpr int W = lanes<T>;
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; j += W) {
        T* at = c + (m0 + i) * ld + n0 + j;
        const int n = smaller(W, cols - j);
        vec<T> x = load(acc + i * Tiling<T>::NR + j);
        if (add) x += load(at, n);
        if (last && adds_bias()) x += bias_per_row ? broadcast(bias[m0 + i]) : load(bias + n0 + j, n);
        store(at, last ? activate<T>(activation, x) : x, n);
      }
  }
};

}  // namespace DL_ISA
}  // namespace dlcore
