// exp, exp2, log, sin, cos, tanh, sigmoid, erf and gelu of vectors. float: within 4 ulp everywhere, and right at
// infinities, NaN and denormals; polynomials are least-maximum fits. double: the C library's, lane by lane.
#pragma once
#include "simd.h"

extern "C" {  // <cmath> would bring shared templates along
double exp(double);
double exp2(double);
double log(double);
double sin(double);
double cos(double);
float sinf(float);
float cosf(float);
double tanh(double);
double erf(double);
double pow(double, double);
float powf(float, float);
}

namespace dlcore {
namespace DL_ISA {

typedef int32_t vec_i32 __attribute__((vector_size(kVectorBytes)));
typedef int64_t vec_i64 __attribute__((vector_size(kVectorBytes)));
using vec_f32 = vec<float>;

// c[0] + x c[1] + x^2 c[2] + ...
template <int N>
DL_INLINE vec_f32 polynomial(vec_f32 x, const float (&c)[N]) {
  vec_f32 y = broadcast(c[N - 1]);
  static_for<N - 1>([&](auto i) DL_INLINE_LAMBDA { y = fma(y, x, broadcast(c[N - 2 - i])); });
  return y;
}

DL_INLINE vec_f32 abs(vec_f32 x) { return (vec_f32)((vec_i32)x & 0x7fffffff); }
DL_INLINE vec<double> abs(vec<double> x) { return (vec<double>)((vec_i64)x & 0x7fffffffffffffff); }
DL_INLINE vec_f32 copysign(vec_f32 x, vec_f32 sign) {
  return (vec_f32)(((vec_i32)x & 0x7fffffff) | ((vec_i32)sign & ~0x7fffffff));
}
DL_INLINE vec_f32 power_of_two(vec_i32 n) { return (vec_f32)((n + 127) << 23); }  // -126 <= n <= 127
#if defined(__AVX512F__)
// x 2^n, for whole n of any size.
DL_INLINE vec_f32 scaled(vec_f32 x, vec_f32 n) { return (vec_f32)_mm512_scalef_ps((__m512)x, (__m512)n); }
#endif

// ln 2 as a short float (its product with an exponent is exact) and the rest
inline constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.4286068203094173e-06f;

// exp(x) = value 2^exponent, from x = n ln 2 + r, |r| <= ln 2 / 2. n: the exponent as a float.
struct Exponential {
  vec_f32 value, n;
  vec_i32 exponent;
};
DL_INLINE Exponential exp_in_parts(vec_f32 x) {
  const vec_f32 magic = broadcast(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec_f32 shifted = fma(x, broadcast(1.44269504f), magic);
  const vec_f32 n = shifted - magic;
  const vec_f32 r = fma(n, broadcast(-kLn2Low), fma(n, broadcast(-kLn2High), x));
  const vec_f32 p = polynomial(r, {0.49999994f, 0.1666652f, 0.041668393f, 0.008368781f, 0.0013814467f});
  return {fma(r * r, p, r) + 1.f, n, (vec_i32)shifted - (vec_i32)magic};
}

// Without an instruction for it, the power of two is applied in halves, so that results may be denormal.
DL_INLINE vec_f32 exp(vec_f32 x) {
  const Exponential e = exp_in_parts(max(broadcast(-110.f), min(broadcast(100.f), x)));
#if defined(__AVX512F__)
  return scaled(e.value, e.n);
#else
  const vec_i32 half = e.exponent >> 1;
  return e.value * power_of_two(half) * power_of_two(e.exponent - half);
#endif
}

// For -87 <= x <= 88, where results are normal numbers.
DL_INLINE vec_f32 exp_normal(vec_f32 x) {
  const Exponential e = exp_in_parts(x);
#if defined(__AVX512F__)
  return scaled(e.value, e.n);
#else
  return e.value * power_of_two(e.exponent);
#endif
}

// 2^x, but 0 where that is below the normal numbers; a third less work than exp.
DL_INLINE vec_f32 exp2(vec_f32 x) {
  const vec_f32 magic = broadcast(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec_f32 top = min(broadcast(128.f), x), shifted = top + magic, n = shifted - magic, r = top - n;
  const vec_f32 p = polynomial(r, {0.693147004f, 0.240222424f, 0.0555073358f, 0.00967151299f, 0.00132647273f});
#if defined(__AVX512F__)
  const vec_f32 y = scaled(fma(p, r, broadcast(1.f)), n);
#else
  const vec_f32 y = fma(p, r, broadcast(1.f)) * (vec_f32)(((vec_i32)shifted << 23) + 0x3f800000);
#endif
  return x < -126.f ? vec_f32{} : y;
}

// x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
DL_INLINE vec_f32 log(vec_f32 x) {
  const auto denormal = x < 1.17549435e-38f;
  const vec_i32 bits = (vec_i32)(denormal ? x * 8388608.f : x);
  const vec_i32 shifted = bits - 0x3f3504f3;  // the bits of sqrt(1/2)
  const vec_i32 exponent = shifted >> 23;
  const vec_f32 n = __builtin_convertvector(exponent, vec_f32) - (denormal ? broadcast(23.f) : vec_f32{});
  const vec_f32 f = (vec_f32)(bits - (exponent << 23)) - 1.f;
  const vec_f32 p = polynomial(f, {0.33333313f, -0.2500001f, 0.20002119f, -0.16667996f, 0.14219552f, -0.12405589f,
                                   0.11888163f, -0.11675651f, 0.067466386f});
  const vec_f32 tail = fma(f * f, fma(p, f, broadcast(-0.5f)), n * kLn2Low);
  const vec_f32 y = fma(n, broadcast(kLn2High), f + tail);
  const vec_f32 infinity = broadcast(__builtin_inff());
  const vec_f32 special = x == 0.f ? -infinity : x == infinity ? x : broadcast(__builtin_nanf(""));
  return (x > 0.f) & (x < infinity) ? y : special;
}

// Not inlined: the calls take the time, and there are many places.
template <class T>
__attribute__((noinline)) vec<T> lane_by_lane(vec<T> x, T (*f)(T)) {
  T lane[lanes<T>];
  store(lane, x);
  for (T& v : lane) v = f(v);
  return load(lane);
}

// Whether all lanes are at most `bound`; NaN is not.
DL_INLINE bool all_up_to(vec_f32 x, float bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(bound), _CMP_NLE_UQ) == 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(bound), _CMP_NLE_UQ)) == 0;
#else
  bool all = true;
  for (int i = 0; i < lanes<float>; ++i) all &= x[i] <= bound;
  return all;
#endif
}

// sin(x + ahead pi/2), from x = n pi/2 + r, |r| <= pi/4, where pi/2 is a sum of numbers so short that their products
// with n are exact (Cody and Waite, 1980); `far` is for lanes with larger n.
DL_INLINE vec_f32 sine(vec_f32 x, int ahead, float (*far)(float)) {
  constexpr float kNear = 8192;
  const vec_f32 magic = broadcast(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec_f32 shifted = fma(x, broadcast(0.63661977f), magic), n = shifted - magic;
  vec_f32 r = fma(n, broadcast(-1.5703125f), x);
  r = fma(n, broadcast(-0.0004837512969970703f), r);
  r = fma(n, broadcast(-7.549533620476723e-08f), r);
  r = fma(n, broadcast(-2.563344e-12f), r);
  const vec_f32 z = r * r;
  const vec_f32 sine = fma(r * z, polynomial(z, {-0.16666655f, 0.008332155f, -0.00019514085f}), r);
  const vec_f32 cosine = fma(z * z, polynomial(z, {0.041666646f, -0.0013887337f, 2.4434847e-05f}), 1.f - 0.5f * z);
  const vec_i32 quarter = (vec_i32)shifted + ahead;  // in its last two bits
  const vec_f32 turned = (quarter & 1) != 0 ? cosine : sine;
  const vec_f32 y = (vec_f32)((vec_i32)turned ^ ((quarter & 2) << 30)), size = abs(x);
  if (__builtin_expect(all_up_to(size, kNear), 1)) return y;
  return size <= kNear ? y : lane_by_lane(x, far);
}
DL_INLINE vec_f32 sin(vec_f32 x) { return sine(x, 0, ::sinf); }
DL_INLINE vec_f32 cos(vec_f32 x) { return sine(x, 1, ::cosf); }

DL_INLINE vec_f32 tanh(vec_f32 x) {
  const vec_f32 a = abs(x), z = x * x;
  const vec_f32 p = polynomial(z, {-0.3333328f, 0.13331442f, -0.053739715f, 0.020639086f, -0.0057049864f});
  const vec_f32 large = copysign(1.f - 2.f / (exp_normal(min(broadcast(88.f), a + a)) + 1.f), x);
  return a < 0.625f ? fma(p * z, x, x) : large;
}

DL_INLINE vec_f32 sigmoid(vec_f32 x) {
  const vec_f32 e = exp(-abs(x));
  return (x < 0.f ? e : broadcast(1.f)) / (1.f + e);
}

// The same for less, but never below sigmoid(-87), 1.6e-38.
DL_INLINE vec_f32 sigmoid_normal(vec_f32 x) {
  const vec_f32 e = exp_normal(max(broadcast(-87.f), -abs(x)));
  return (x < 0.f ? e : broadcast(1.f)) / (1.f + e);
}

// Odd polynomial near 0; beyond, 1 - exp(-q(|x|)) with q fitted to -ln erfc.
DL_INLINE vec_f32 erf(vec_f32 x) {
  const vec_f32 a = min(broadcast(4.f), abs(x)), z = x * x;
  const vec_f32 p =
      polynomial(z, {0.12837915f, -0.37612534f, 0.1128223f, -0.026781958f, 0.0050162286f, -0.0006111294f});
  const vec_f32 q = polynomial(a, {-0.00017055093f, 1.1294951f, 0.6333867f, 0.1082366f, -0.025091486f, 0.004160523f,
                                   -0.00043230213f, 2.0909474e-05f});
  return a < 0.9f ? fma(p, x, x) : copysign(1.f - exp_normal(-q), x);
}

DL_INLINE vec<double> exp(vec<double> x) { return lane_by_lane(x, ::exp); }
DL_INLINE vec<double> exp2(vec<double> x) { return lane_by_lane(x, ::exp2); }
DL_INLINE vec<double> log(vec<double> x) { return lane_by_lane(x, ::log); }
DL_INLINE vec<double> sin(vec<double> x) { return lane_by_lane(x, ::sin); }
DL_INLINE vec<double> cos(vec<double> x) { return lane_by_lane(x, ::cos); }
DL_INLINE vec<double> tanh(vec<double> x) { return lane_by_lane(x, ::tanh); }
DL_INLINE vec<double> erf(vec<double> x) { return lane_by_lane(x, ::erf); }
DL_INLINE vec<double> sigmoid(vec<double> x) {
  const vec<double> e = exp(-abs(x));
  return (x < 0.0 ? e : broadcast(1.0)) / (1.0 + e);
}
DL_INLINE vec<double> sigmoid_normal(vec<double> x) { return sigmoid(x); }

// The normal distribution's density but for its factor 1 / sqrt(2 pi), and its integral Phi up to x.
template <class T>
struct Normal {
  vec<T> bell, below;
};
// Phi(-a) = exp(-a^2 / 2) times a ratio (Mills, Biometrika 18, 1926) that is nearly a polynomial. Beyond 5 it is kept,
// which is too large by little of next to nothing.
DL_INLINE Normal<float> normal(vec_f32 x) {
  const vec_f32 bell = exp2(x * x * -0.72134752f);
  const vec_f32 ratio =
      polynomial(min(broadcast(5.f), abs(x)),
                 {0.5f, -0.39894107f, 0.24998099f, -0.13286161f, 0.062107123f, -0.025814207f, 0.009397416f,
                  -0.0028799227f, 0.00070253026f, -0.00012771365f, 1.5946734e-05f, -1.2046702e-06f, 4.115812e-08f});
  const vec_f32 tail = bell * ratio;
  return {bell, x < 0.f ? tail : 1.f - tail};
}
DL_INLINE Normal<double> normal(vec<double> x) {
  return {exp(-0.5 * x * x), 0.5 * (1.0 + erf(x * 0.70710678118654752440))};
}

// x Phi(x), with the exact Phi (Hendrycks and Gimpel, arXiv:1606.08415)
template <class T>
DL_INLINE vec<T> gelu(vec<T> x) {
  return x * normal(x).below;
}

}  // namespace DL_ISA
}  // namespace dlcore
