// Every second element of a row, and two rows interleaved.
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

}  // namespace DL_ISA
}  // namespace dlcore
