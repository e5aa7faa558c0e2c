// Sums of exponentials that cannot overflow: each is taken of the distance from the largest element.
#pragma once
#include "row.cuh"

// What is subtracted of elements before the exponential is taken: their largest, or 0 where all are -inf.
template <class R>
DL_DEVICE R shift_of(R top) {
  return top == R(-INFINITY) ? R(0) : top;
}

// The largest element so far, and the sum of e**(x - it): Milakov and Gimelshein 2018, arXiv:1805.02867.
template <class R>
struct Exponentials {
  R top = R(-INFINITY), total = R(0);

  template <int N>
  DL_DEVICE void add(const R (&x)[N]) {
    R larger = top;
    DL_UNROLL
    for (int j = 0; j < N; ++j) larger = Larger()(x[j], larger);
    const R shift = shift_of(larger);
    R sum = R(0);
    DL_UNROLL
    for (int j = 0; j < N; ++j) sum += exp(x[j] - shift);
    total = total * exp(top - shift) + sum;
    top = larger;
  }

  // Of a whole row, from what each of its lanes has added.
  template <int LANES>
  DL_DEVICE void join_lanes() {
    const R own = top;
    top = join<LANES>(own, Larger());
    total = join<LANES>(total * exp(own - shift_of(top)), Add());
  }
};

// Of a row held in registers, in two passes over it.
template <class T, int LANES>
DL_DEVICE Exponentials<wide<T>> exponentials_of_held(const wide<T> (&x)[kTiles<T>][kPerVector<T>], unsigned n) {
  using R = wide<T>;
  R top = R(-INFINITY), total = R(0);
  each_held<T, LANES>(n, [&](int tile, unsigned) {
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) top = Larger()(x[tile][j], top);
  });
  top = join<LANES>(top, Larger());
  const R shift = shift_of(top);
  each_held<T, LANES>(n, [&](int tile, unsigned) {
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) total += exp(x[tile][j] - shift);
  });
  Exponentials<R> found;
  found.top = top;
  found.total = join<LANES>(total, Add());
  return found;
}

constexpr int kColumnStep = 4;  // elements of a column that a thread reads at once

// Of the column x[0], x[stride], ... by one thread.
template <class T>
DL_DEVICE Exponentials<wide<T>> exponentials_of_column(const T* x, unsigned n, unsigned stride) {
  using R = wide<T>;
  Exponentials<R> found;
  DL_ROLLED
  for (unsigned i = 0; i < n; i += kColumnStep) {
    R step[kColumnStep];
    DL_UNROLL
    for (int j = 0; j < kColumnStep; ++j)
      step[j] = i + j < n ? widen(x[(unsigned long long)(i + j) * stride]) : R(-INFINITY);
    found.add(step);
  }
  return found;
}
