// The micro-kernels: the only loops that multiply, not inlined anywhere.
#include "gemm_loops.h"

namespace dlcore {
namespace DL_ISA {
namespace {

template <class T, int MR, bool ByRows>
void micro(Index kc, const T* a, Index lda, const T* b, Index ldb, T* c, Index ldc, bool add) {
  constexpr int W = lanes<T>;
  vec<T> acc[MR][2];
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    acc[i][0] = acc[i][1] = vec<T>{};
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + 2 * W - 1, 1);
  });
#pragma GCC unroll 4
  for (Index k = 0; k < kc; ++k) {
    const vec<T> b0 = load(b), b1 = load(b + W);
    static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
      const vec<T> x = broadcast(ByRows ? a[i * lda] : a[i]);
      acc[i][0] = fma(x, b0, acc[i][0]);
      acc[i][1] = fma(x, b1, acc[i][1]);
    });
    a += ByRows ? 1 : lda;
    b += ldb;
  }
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    T* row = c + i * ldc;
    store(row, add ? load(row) + acc[i][0] : acc[i][0]);
    store(row + W, add ? load(row + W) + acc[i][1] : acc[i][1]);
  });
}

template <class T>
constexpr MicroKernels<T> make() {
  MicroKernels<T> table = {};
  static_for<Tiling<T>::MR>([&](auto i) {
    constexpr int height = decltype(i)() + 1;
    table.columns[height] = micro<T, height, false>;
    table.rows[height] = micro<T, height, true>;
  });
  return table;
}

// Constants: code of an unsupported instruction set must not run, not even to initialise.
constexpr MicroKernels<float> f32 = make<float>();
constexpr MicroKernels<double> f64 = make<double>();

}  // namespace

template <>
const MicroKernels<float>& micro_kernels<float>() {
  return f32;
}
template <>
const MicroKernels<double>& micro_kernels<double>() {
  return f64;
}

}  // namespace DL_ISA
}  // namespace dlcore
