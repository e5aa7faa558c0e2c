// Elements widened to double, in which every sum is formed.
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

using Wide = vec<double>;
inline constexpr int kWide = lanes<double>;

DL_INLINE Wide widen(const double* x) { return load(x); }
#if defined(__AVX512F__)
DL_INLINE Wide widen(const float* x) { return (Wide)_mm512_cvtps_pd(_mm256_loadu_ps(x)); }
#elif defined(__AVX2__)  // GCC 12 makes four instructions and a detour through the stack of the builtin
DL_INLINE Wide widen(const float* x) { return (Wide)_mm256_cvtps_pd(_mm_loadu_ps(x)); }
#else
DL_INLINE Wide widen(const float* x) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half v;
  __builtin_memcpy(&v, x, sizeof v);
  return __builtin_convertvector(v, Wide);
}
#endif

// The first n elements; the others are 0.
template <class T>
DL_INLINE Wide widen(const T* x, Index n) {
  Wide v = {};
  for (int i = 0; i < kWide; ++i)
    if (i < n) v[i] = double(x[i]);
  return v;
}

// Sum of term(i, n) over vectors of positions i .. i + n - 1 in [0, length), n = kWide but for the last: four sums in
// turn.
template <class F>
DL_INLINE double sum_over(Index length, const F& term) {
  Wide s[4] = {};
  Index i = 0;
  for (; i + 4 * kWide <= length; i += 4 * kWide)
    static_for<4>([&](auto u) DL_INLINE_LAMBDA { s[u] += term(i + u * kWide, I<kWide>()); });
  for (; i + kWide <= length; i += kWide) s[0] += term(i, I<kWide>());
  if (i < length) s[1] += term(i, length - i);
  return sum<double>((s[0] + s[1]) + (s[2] + s[3]));
}

// As above, of elements: all of a full vector, where n is a constant.
template <class T>
DL_INLINE Wide widen(const T* x, I<kWide>) {
  return widen(x);
}

}  // namespace DL_ISA
}  // namespace dlcore
