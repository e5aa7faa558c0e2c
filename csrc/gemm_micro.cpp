// The micro-kernels: the only loops that multiply, not inlined anywhere.
#include "gemm_loops.h"

namespace dlcore {
namespace DL_ISA {
namespace {

template <class T, int MR, int Vectors>
void micro(const MicroTile<T>& tile) {
  constexpr int W = lanes<T>;
  const Index kc = tile.kc, a_row = tile.a.row, a_col = tile.a.col, ldb = tile.b.ld, pace = tile.b.pace;
  const T *a = tile.a.data, *b = tile.b.data, *ahead = tile.b.ahead;
  T* const c = tile.c;
  const Index ldc = tile.ldc;
  const bool add = tile.add;
  vec<T> acc[MR][Vectors];
  static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA {
    const vec<T> start = tile.start == nullptr ? vec<T>{} : load(tile.start + v * W);
    static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
      acc[i][v] = start;
      if (add || kc < 16) __builtin_prefetch(c + i * ldc + v * W, 1);
      else if (kc > kShortK) __builtin_prefetch(c + i * ldc + v * W, 0, 2);
    });
  });
#pragma GCC unroll 4
  for (Index k = 0; k < kc; ++k) {
    vec<T> x[Vectors];
    static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { x[v] = load(b + v * W); });
    static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
      const vec<T> y = broadcast(a[i * a_row]);
      static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { acc[i][v] = fma(y, x[v], acc[i][v]); });
    });
    __builtin_prefetch(ahead, 0, 2);
    a += a_col;
    b += ldb;
    ahead += pace;
  }
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA {
      T* at = c + i * ldc + v * W;
      store(at, add ? load(at) + acc[i][v] : acc[i][v]);
    });
  });
}

template <class T>
constexpr MicroKernels<T> make() {
  MicroKernels<T> table = {};
  static_for<Tiling<T>::MR>([&](auto i) {
    static_for<Tiling<T>::kVectors>(
        [&](auto v) { table.run[v + 1][i + 1] = micro<T, decltype(i)() + 1, decltype(v)() + 1>; });
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
