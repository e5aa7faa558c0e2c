// The loop that multiplies: a register tile of features x pixels, reading patches either where they lie in the planes
// of the source or from a packed panel, which it cannot tell apart.
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

// The accumulators fill the registers. Three vectors need fewer loads than two, of which those of pixels mostly cross
// cache lines, and 8 rows divide the usual numbers of features.
inline constexpr int kTileRows = kVectorRegisters == 32 ? 9 : 4, kTileVectors = 3;

// c[v][m*c_step + i] = start + the sum over channels c and taps t of
//                      a[(c*taps + t)*rows + m] b[v][c*b_step + offset[t] + i]
// for m < rows and each vector v of pixels; start is bias[m], or 0 (no bias). add: to what is there. ahead: the results
// of the next tile, which follow these, are fetched meanwhile.
template <class T>
struct ConvTile {
  Index channels, taps;
  const T* a;
  const T* b[kTileVectors];
  Index b_step;
  const Index* offset;
  T* c[kTileVectors];
  Index c_step;
  const T* bias;
  bool add, ahead;
  Index panels;  // of `rows` features each, one after the other in a, c and bias
};

// f(m, v, address) for every vector of a tile's results: one pointer goes from row to row.
template <int Rows, int Vectors, class T, class F>
DL_INLINE void each_result(const ConvTile<T>& tile, Index row, const F& f) {
  T* to = tile.c[0] + row * tile.c_step;
  Index off[Vectors];
  static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { off[v] = tile.c[v] - tile.c[0]; });
  static_for<Rows>([&](auto m) DL_INLINE_LAMBDA {
    static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { f(m, v, to + off[v]); });
    to += tile.c_step;
    asm("" : "+r"(to));
  });
}

template <class T, int Rows, int Vectors>
DL_INLINE const T* multiply_panel(const ConvTile<T>& tile, const T* a, const T* bias, Index row) {
  vec<T> sum[Rows][Vectors];
  const T* b[Vectors];
  static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { b[v] = tile.b[v]; });
  static_for<Rows>([&](auto m) DL_INLINE_LAMBDA {
    const vec<T> start = bias == nullptr ? vec<T>{} : broadcast(bias[row + m]);
    static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { sum[m][v] = start; });
  });
  const auto fetch = [&](auto vectors) DL_INLINE_LAMBDA {
    each_result<Rows, Vectors>(
        tile, row, [=](auto, auto, T* to) DL_INLINE_LAMBDA { __builtin_prefetch(to + vectors * lanes<T>, 1); });
  };
  if (tile.add) fetch(I<0>());
  else if (tile.ahead) fetch(I<Vectors>());
  const Index *offset = tile.offset, *const end = offset + tile.taps;
  for (Index channel = 0; channel < tile.channels; ++channel) {
    for (const Index* tap = offset; tap < end; ++tap, a += Rows) {
      vec<T> x[Vectors];
      static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { x[v] = load(b[v] + *tap); });
      static_for<Rows>([&](auto m) DL_INLINE_LAMBDA {
        const vec<T> w = broadcast(a[m]);
        static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { sum[m][v] = fma(w, x[v], sum[m][v]); });
      });
    }
    static_for<Vectors>([&](auto v) DL_INLINE_LAMBDA { b[v] += tile.b_step; });
  }
  if (tile.add)
    each_result<Rows, Vectors>(tile, row,
                               [&](auto m, auto v, T* to) DL_INLINE_LAMBDA { store(to, load(to) + sum[m][v]); });
  else each_result<Rows, Vectors>(tile, row, [&](auto m, auto v, T* to) DL_INLINE_LAMBDA { store(to, sum[m][v]); });
  return a;
}

template <class T, int Rows, int Vectors>
void multiply(const ConvTile<T>& given) {
  const ConvTile<T> tile = given;  // a copy, which no store can change
  const T* a = tile.a;
  for (Index i = 0; i < tile.panels; ++i) a = multiply_panel<T, Rows, Vectors>(tile, a, tile.bias, i * Rows);
}

template <class T>
struct ConvMicro {
  void (*run[kTileVectors + 1][kTileRows + 1])(const ConvTile<T>&);  // by vectors and rows
};
template <class T>
constexpr ConvMicro<T> make_conv_micro() {
  ConvMicro<T> table = {};
  static_for<kTileRows>([&](auto m) {
    static_for<kTileVectors>(
        [&](auto v) { table.run[v + 1][m + 1] = multiply<T, decltype(m)() + 1, decltype(v)() + 1>; });
  });
  return table;
}

}  // namespace DL_ISA
}  // namespace dlcore
