// Vectors of the instruction set this file is compiled for, on GCC/Clang vector extensions: + - * / < & | are the
// compiler's, `mask ? a : b` selects, and here is the rest. Everything lives in namespace dlcore::DL_ISA, so that the
// linker can never give code of one instruction set to another.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DL_INLINE inline __attribute__((always_inline))
#define DL_INLINE_LAMBDA __attribute__((always_inline))

namespace dlcore {
namespace DL_ISA {

using Index = std::ptrdiff_t;

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16, kVectorRegisters = 32;
#else
inline constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using vec = typename VectorOf<T>::type;  // of lanes<T> elements
template <class T>
inline constexpr int lanes = kVectorBytes / int(sizeof(T));

// ---- compile-time loops: f(I<0>()), f(I<1>()), ...; arrays indexed so stay in registers

template <int N>
struct I {
  DL_INLINE constexpr operator int() const { return N; }
};
template <int... N>
struct Indices {};
template <int N, int... Rest>
struct MakeIndices : MakeIndices<N - 1, N - 1, Rest...> {};
template <int... N>
struct MakeIndices<0, N...> {
  using type = Indices<N...>;
};
template <class F, int... N>
DL_INLINE constexpr void static_for(const F& f, Indices<N...>) {
  (f(I<N>()), ...);
}
template <int N, class F>
DL_INLINE constexpr void static_for(const F& f) {
  static_for(f, typename MakeIndices<N>::type());
}

template <class T>
DL_INLINE constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
DL_INLINE constexpr T larger(T a, T b) {
  return a < b ? b : a;
}

DL_INLINE constexpr Index round_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// ---- loads and stores, of any alignment

template <class T>
DL_INLINE vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
DL_INLINE void store(T* p, vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T, int... N>
DL_INLINE vec<T> broadcast(T x, Indices<N...>) {
  return vec<T>{((void)N, x)...};
}
template <class T>
DL_INLINE vec<T> broadcast(T x) {
  return broadcast(x, typename MakeIndices<lanes<T>>::type());
}

// The first n elements (0 <= n <= lanes); the others are zero, and no byte beyond is touched.
#if defined(__AVX512F__)
DL_INLINE vec<float> load(const float* p, Index n) { return (vec<float>)_mm512_maskz_loadu_ps((1u << n) - 1, p); }
DL_INLINE vec<double> load(const double* p, Index n) { return (vec<double>)_mm512_maskz_loadu_pd((1u << n) - 1, p); }
DL_INLINE void store(float* p, vec<float> v, Index n) { _mm512_mask_storeu_ps(p, (1u << n) - 1, (__m512)v); }
DL_INLINE void store(double* p, vec<double> v, Index n) { _mm512_mask_storeu_pd(p, (1u << n) - 1, (__m512d)v); }
#elif defined(__AVX2__)
DL_INLINE __m256i first_lanes(float, Index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
DL_INLINE __m256i first_lanes(double, Index n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
DL_INLINE vec<float> load(const float* p, Index n) { return (vec<float>)_mm256_maskload_ps(p, first_lanes(0.f, n)); }
DL_INLINE vec<double> load(const double* p, Index n) { return (vec<double>)_mm256_maskload_pd(p, first_lanes(0., n)); }
#else
template <class T>
DL_INLINE vec<T> load(const T* p, Index n) {
  vec<T> v = {};
  for (int i = 0; i < lanes<T>; ++i) v[i] = i < n ? p[i] : T(0);
  return v;
}
#endif
#if !defined(__AVX512F__)  // not by AVX2's masked store, which is microcoded on some processors
template <class T>
DL_INLINE void store(T* p, vec<T> v, Index n) {
  for (int i = 0; i < lanes<T>; ++i)
    if (i < n) p[i] = v[i];
}
#endif

// merge(x, p, lane_mask<T>(begin, end)): x, but for its lanes begin <= i < end, which are p[i]. All of p may be read.
#if defined(__AVX512F__)
template <class T>
using LaneMask = unsigned;
template <class T>
DL_INLINE LaneMask<T> lane_mask(int begin, int end) {
  return (1u << end) - (1u << begin);
}
DL_INLINE vec<float> merge(vec<float> x, const float* p, unsigned mask) {
  return (vec<float>)_mm512_mask_loadu_ps((__m512)x, __mmask16(mask), p);
}
DL_INLINE vec<double> merge(vec<double> x, const double* p, unsigned mask) {
  return (vec<double>)_mm512_mask_loadu_pd((__m512d)x, __mmask8(mask), p);
}
#else
template <class T>
using LaneMask = decltype(vec<T>{} < vec<T>{});
template <class T>
DL_INLINE LaneMask<T> lane_mask(int begin, int end) {
  LaneMask<T> mask = {};
  for (int i = 0; i < lanes<T>; ++i) mask[i] = i >= begin && i < end ? -1 : 0;
  return mask;
}
template <class T>
DL_INLINE vec<T> merge(vec<T> x, const T* p, LaneMask<T> mask) {
  return mask ? load(p) : x;
}
#endif

// The elements p[i] for begin <= i < end, zero in the other lanes; no byte of those is touched.
template <class T>
DL_INLINE vec<T> load(const T* p, int begin, int end) {
#if defined(__AVX512F__)
  return merge(vec<T>{}, p, lane_mask<T>(begin, end));
#elif defined(__AVX2__)
  const __m256i mask = _mm256_andnot_si256(first_lanes(T(), begin), first_lanes(T(), end));
  if constexpr (sizeof(T) == 4) return (vec<T>)_mm256_maskload_ps(p, mask);
  else return (vec<T>)_mm256_maskload_pd(p, mask);
#else
  vec<T> v = {};
  for (int i = begin; i < end; ++i) v[i] = p[i];
  return v;
#endif
}

// ---- arithmetic. fma rounds once where the instruction set can. max and min return b if either is NaN.

#if defined(__AVX512F__)
DL_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return (vec<float>)_mm512_fmadd_ps(a, b, c); }
DL_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return (vec<double>)_mm512_fmadd_pd(a, b, c); }
DL_INLINE vec<float> max(vec<float> a, vec<float> b) { return (vec<float>)_mm512_max_ps(a, b); }
DL_INLINE vec<double> max(vec<double> a, vec<double> b) { return (vec<double>)_mm512_max_pd(a, b); }
DL_INLINE vec<float> min(vec<float> a, vec<float> b) { return (vec<float>)_mm512_min_ps(a, b); }
DL_INLINE vec<double> min(vec<double> a, vec<double> b) { return (vec<double>)_mm512_min_pd(a, b); }
DL_INLINE vec<float> sqrt(vec<float> a) { return (vec<float>)_mm512_sqrt_ps(a); }
DL_INLINE vec<double> sqrt(vec<double> a) { return (vec<double>)_mm512_sqrt_pd(a); }
#elif defined(__AVX2__)
DL_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return (vec<float>)_mm256_fmadd_ps(a, b, c); }
DL_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return (vec<double>)_mm256_fmadd_pd(a, b, c); }
DL_INLINE vec<float> max(vec<float> a, vec<float> b) { return (vec<float>)_mm256_max_ps(a, b); }
DL_INLINE vec<double> max(vec<double> a, vec<double> b) { return (vec<double>)_mm256_max_pd(a, b); }
DL_INLINE vec<float> min(vec<float> a, vec<float> b) { return (vec<float>)_mm256_min_ps(a, b); }
DL_INLINE vec<double> min(vec<double> a, vec<double> b) { return (vec<double>)_mm256_min_pd(a, b); }
DL_INLINE vec<float> sqrt(vec<float> a) { return (vec<float>)_mm256_sqrt_ps(a); }
DL_INLINE vec<double> sqrt(vec<double> a) { return (vec<double>)_mm256_sqrt_pd(a); }
#else
#if defined(__aarch64__)
DL_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return (vec<float>)vfmaq_f32(c, a, b); }
DL_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return (vec<double>)vfmaq_f64(c, a, b); }
#else
DL_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return a * b + c; }
DL_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return a * b + c; }
#endif
DL_INLINE vec<float> max(vec<float> a, vec<float> b) { return a > b ? a : b; }
DL_INLINE vec<double> max(vec<double> a, vec<double> b) { return a > b ? a : b; }
DL_INLINE vec<float> min(vec<float> a, vec<float> b) { return a < b ? a : b; }
DL_INLINE vec<double> min(vec<double> a, vec<double> b) { return a < b ? a : b; }
DL_INLINE vec<float> sqrt(vec<float> a) {
  for (int i = 0; i < lanes<float>; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
DL_INLINE vec<double> sqrt(vec<double> a) {
  for (int i = 0; i < lanes<double>; ++i) a[i] = __builtin_sqrt(a[i]);
  return a;
}
#endif

// ---- permutations

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define DL_SHUFFLEVECTOR 1
#endif
#endif

template <class T, int... N>
DL_INLINE vec<T> shuffle(vec<T> a, vec<T> b, Indices<N...>) {
#ifdef DL_SHUFFLEVECTOR
  return __builtin_shufflevector(a, b, N...);
#else
  using Int = decltype(a < b);
  return __builtin_shuffle(a, b, Int{N...});
#endif
}

// Lane i is lane i + By, in a circle.
template <class T, int By, int... N>
DL_INLINE vec<T> rotated(vec<T> v, Indices<N...>) {
  return shuffle<T>(v, v, Indices<(N + By) % lanes<T>...>());
}
template <class T, int By>
DL_INLINE vec<T> rotated(vec<T> v) {
  return rotated<T, By>(v, typename MakeIndices<lanes<T>>::type());
}

// Lane i of the result: of a where i & Block is 0, else of b, Block lanes lower (Low) or the mirror image (!Low).
template <class T, int Block, bool Low, class Lanes>
struct Exchange;
template <class T, int Block, bool Low, int... N>
struct Exchange<T, Block, Low, Indices<N...>> {
  using type = Indices<(Low ? (N & Block ? lanes<T> + N - Block : N) : (N & Block ? lanes<T> + N : N + Block))...>;
};
template <class T>
using Lanes = typename MakeIndices<lanes<T>>::type;

// Transposes a square of lanes<T> vectors, by exchanging ever smaller blocks across the diagonal.
template <class T, int Block = lanes<T> / 2>
DL_INLINE void transpose(vec<T>* rows) {
  static_for<lanes<T>>([&](auto i) DL_INLINE_LAMBDA {
    constexpr int row = decltype(i)();
    if constexpr ((row & Block) == 0) {
      const vec<T> a = rows[row], b = rows[row + Block];
      rows[row] = shuffle<T>(a, b, typename Exchange<T, Block, true, Lanes<T>>::type());
      rows[row + Block] = shuffle<T>(a, b, typename Exchange<T, Block, false, Lanes<T>>::type());
    }
  });
  if constexpr (Block > 1) transpose<T, Block / 2>(rows);
}

// Sum of all lanes, halves first: ((0+8)+(4+12)) + ...; the order never changes.
template <class T, int Half = lanes<T> / 2>
DL_INLINE T sum(vec<T> v) {
  if constexpr (Half == 0) return v[0];
  else return sum<T, Half / 2>(v + rotated<T, Half>(v));
}

// Lane i of the result is sum(rows[i]), to the bit; lanes<T> rows, which are overwritten.
template <class T, int Block = lanes<T> / 2>
DL_INLINE vec<T> sums(vec<T>* rows) {
  static_for<Block>([&](auto i) DL_INLINE_LAMBDA {
    const vec<T> a = rows[i], b = rows[i + Block];
    rows[i] = shuffle<T>(a, b, typename Exchange<T, Block, true, Lanes<T>>::type()) +
              shuffle<T>(a, b, typename Exchange<T, Block, false, Lanes<T>>::type());
  });
  if constexpr (Block > 1) return sums<T, Block / 2>(rows);
  else return rows[0];
}

}  // namespace DL_ISA
}  // namespace dlcore
