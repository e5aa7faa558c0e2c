#include "cast.h"

#include "isa.h"
#include "parallel.h"
#include "simd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 32768;  // elements worth a thread

DL_INLINE float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
DL_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// ---- one number, rounded to nearest even

template <class To, class From>
DL_INLINE To converted(From x) {
  return To(x);
}
// The exponent's bias differs by 112; of infinities and NaN it is 224 away.
template <>
DL_INLINE float converted(Half x) {
  const uint32_t magnitude = (uint32_t(x) & 0x7fff) << 13, sign = (uint32_t(x) & 0x8000) << 16;
  const uint32_t moved = bits_of(float_of(magnitude) * 0x1p112f);
  return float_of(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : moved));
}
template <>
DL_INLINE Half converted(float x) {
  const uint32_t sign = bits_of(x) >> 16 & 0x8000, magnitude = bits_of(x) & 0x7fffffff;
  // below the smallest normal number an addition rounds: its sum has the result's bits at the end
  const uint32_t small = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const uint32_t large = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;  // NaN, infinity
  return Half(sign | (magnitude >= 0x47800000 ? large : magnitude < 0x38800000 ? small : normal - (112 << 10)));
}
template <>
DL_INLINE float converted(Brain x) {
  return float_of(uint32_t(x) << 16);
}
template <>
DL_INLINE Brain converted(float x) {
  const uint32_t bits = bits_of(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return Brain(x != x ? bits >> 16 | 0x40 : rounded);
}

// ---- as many as a vector of float32 holds; not where the compiler makes vectors of the above

#if defined(__AVX512F__)
DL_INLINE void convert(const Half* from, float* to) {
  _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
DL_INLINE void convert(const float* from, Half* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__AVX2__)
DL_INLINE void convert(const Half* from, float* to) {
  _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
DL_INLINE void convert(const float* from, Half* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
}
#endif
template <class From, class To>
DL_INLINE void convert(const From* from, To* to) {
  for (int i = 0; i < lanes<float>; ++i) to[i] = converted<To>(from[i]);
}

template <class From, class To>
void cast(Index n, const void* source, void* target) {
  const From* from = static_cast<const From*>(source);
  To* to = static_cast<To*>(target);
  parallel_for(0, n, kGrain, [=](Index i, Index end) {
    for (; i + lanes<float> <= end; i += lanes<float>) convert(from + i, to + i);
    for (; i < end; ++i) to[i] = converted<To>(from[i]);
  });
}

}  // namespace

void fill_cast(Kernels& kernels) {
#define DL_FILL(name, From, To) kernels.cast.name = cast<From, To>;
  DL_CASTS(DL_FILL)
#undef DL_FILL
}

}  // namespace DL_ISA
}  // namespace dlcore
