// Every second element of a row, two rows interleaved, and channels last.
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

template <int First, class Lanes>
struct EverySecond;
template <int First, int... N>
struct EverySecond<First, Indices<N...>> {
  using type = Indices<2 * N + First...>;
};
template <int Half, class Lanes>
struct Zipped;
template <int Half, int... N>
struct Zipped<Half, Indices<N...>> {
  using type = Indices<Half* int(sizeof...(N)) / 2 + N / 2 + (N % 2 ? int(sizeof...(N)) : 0)...>;
};

// Of the elements of a, then b: those of even, of odd number.
template <class T>
DL_INLINE vec<T> even_of(vec<T> a, vec<T> b) {
  return shuffle<T>(a, b, typename EverySecond<0, Lanes<T>>::type());
}
template <class T>
DL_INLINE vec<T> odd_of(vec<T> a, vec<T> b) {
  return shuffle<T>(a, b, typename EverySecond<1, Lanes<T>>::type());
}
// a[0], b[0], a[1], b[1], ...: the first vector of it, and the second.
template <class T>
DL_INLINE vec<T> zip_low(vec<T> a, vec<T> b) {
  return shuffle<T>(a, b, typename Zipped<0, Lanes<T>>::type());
}
template <class T>
DL_INLINE vec<T> zip_high(vec<T> a, vec<T> b) {
  return shuffle<T>(a, b, typename Zipped<1, Lanes<T>>::type());
}

// out[x*pixel + c] = row[c*channel_step + x]: `channels` lines of n elements, channels last.
template <class T>
void transpose_row(const T* row, Index channel_step, Index channels, Index n, Index pixel, T* out) {
  constexpr int W = lanes<T>;
  if (channels < W / 4) {
    for (Index c = 0; c < channels; ++c)
      for (Index x = 0; x < n; ++x) out[x * pixel + c] = row[c * channel_step + x];
    return;
  }
  for (Index c = 0; c < channels; c += W)
    for (Index x = 0; x < n; x += W) {
      const int height = int(smaller<Index>(W, channels - c)), some = int(smaller<Index>(W, n - x));
      vec<T> square[W];
      static_for<W>([&](auto i) DL_INLINE_LAMBDA {
        const T* p = row + (c + i) * channel_step + x;
        square[i] = i >= height ? vec<T>{} : some == W ? load(p) : load(p, some);
      });
      transpose<T>(square);
      T* to = out + x * pixel + c;
      static_for<W>([&](auto i) DL_INLINE_LAMBDA {
        if (i < some) height == W ? store(to + i * pixel, square[i]) : store(to + i * pixel, square[i], height);
      });
    }
}

}  // namespace DL_ISA
}  // namespace dlcore
