#include "elementwise.h"

#include "isa.h"
#include "simd_math.h"

namespace dlcore {
namespace DL_ISA {
namespace {

// ---- what the table's expressions use

template <class V>
DL_INLINE V nan_max(V a, V b) {
  return a != a ? a : max(a, b);
}
template <class V>
DL_INLINE V nan_min(V a, V b) {
  return a != a ? a : min(a, b);
}

template <class V>
DL_INLINE V bounded(V x, V low, V high) {
  const V raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// Kahan's corrections: log(u) / (u - 1) and its inverse vary slowly, so that the rounding of u cancels.
template <class V>
DL_INLINE V log1p(V x) {
  const V u = x + 1, d = u - 1;
  return (d == 0) | (u == u + u) ? (d == 0 ? x : log(u)) : log(u) * (x / d);
}
template <class V>
DL_INLINE V expm1(V x) {
  const V u = exp(x), d = u - 1;
  return (u == 1) | (x != x) ? x : (d == -1) | (u == u + u) ? d : d * (x / log(u));
}

// log(e^a + e^b) without overflow; infinities of one sign have no difference.
template <class T>
DL_INLINE vec<T> logaddexp(vec<T> a, vec<T> b) {
  return a == b ? a + T(0.69314718055994530942) : nan_max(a, b) + log1p(exp(-abs(a - b)));
}

// ---- rounding to whole numbers

enum Rounding { kToEven, kDown, kUp, kToZero };  // as the instructions number them
constexpr int kQuiet = 8;

#if !defined(__AVX2__)
template <Rounding How>
DL_INLINE double rounded(double x) {
  return How == kDown     ? __builtin_floor(x)
         : How == kUp     ? __builtin_ceil(x)
         : How == kToZero ? __builtin_trunc(x)
                          : __builtin_rint(x);
}
#endif
template <Rounding How>
DL_INLINE vec_f32 rounded(vec_f32 x) {
#if defined(__AVX512F__)
  return (vec_f32)_mm512_roundscale_ps((__m512)x, How | kQuiet);
#elif defined(__AVX2__)
  return (vec_f32)_mm256_round_ps((__m256)x, How | kQuiet);
#else
  for (int i = 0; i < lanes<float>; ++i) x[i] = float(rounded<How>(double(x[i])));
  return x;
#endif
}
template <Rounding How>
DL_INLINE vec<double> rounded(vec<double> x) {
#if defined(__AVX512F__)
  return (vec<double>)_mm512_roundscale_pd((__m512d)x, How | kQuiet);
#elif defined(__AVX2__)
  return (vec<double>)_mm256_round_pd((__m256d)x, How | kQuiet);
#else
  for (int i = 0; i < lanes<double>; ++i) x[i] = rounded<How>(double(x[i]));
  return x;
#endif
}

// x^y by the C library; cubes are products, in which an element does not depend on what is beside it.
DL_INLINE float power_of(float x, float y) { return y == 3 ? x * x * x : ::powf(x, y); }
DL_INLINE double power_of(double x, double y) { return y == 3 ? x * x * x : ::pow(x, y); }
template <class T>
DL_INLINE vec<T> power(vec<T> x, vec<T> y) {
  const vec<T> three = broadcast(T(3));
  if (__builtin_memcmp(&y, &three, sizeof y) == 0) return x * x * x;
  for (int i = 0; i < lanes<T>; ++i) x[i] = power_of(x[i], y[i]);
  return x;
}

// The approximation of Hendrycks and Gimpel (arXiv:1606.08415): Phi(x) ~ (1 + tanh(inner(x))) / 2
template <class T>
DL_INLINE vec<T> gelu_inner(vec<T> x) {
  return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
}
template <class T>
DL_INLINE vec<T> gelu_tanh_slope(vec<T> x) {
  const vec<T> t = tanh(gelu_inner<T>(x));
  const vec<T> inner_slope = T(0.79788456080286535588) + T(3 * 0.044715 * 0.79788456080286535588) * x * x;
  return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * inner_slope;
}
// Phi(x) + x phi(x)
template <class T>
DL_INLINE vec<T> gelu_slope(vec<T> x) {
  const Normal<T> at = normal(x);
  return at.below + x * at.bell * T(0.39894228040143267794);
}
template <class T>
DL_INLINE vec<T> hardsigmoid(vec<T> x) {
  return bounded(x / T(6) + T(0.5), vec<T>{}, broadcast(T(1)));
}
// The fixed-point constants of Klambauer et al. (arXiv:1706.02515, equation 14)
template <class T>
DL_INLINE vec<T> selu(vec<T> x) {
  return T(1.0507009873554805) * (x > T(0) ? x : T(1.6732632423543772) * expm1(x));
}
template <class T>
DL_INLINE vec<T> silu_slope(vec<T> x) {
  const vec<T> s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

// ---- the table as functors, and functors as blocks

#define DL_FUNCTOR(name, count, value)                                                                                 \
  template <class T>                                                                                                   \
  struct name##_of {                                                                                                   \
    using Operands = MakeIndices<count>::type;                                                                         \
    DL_INLINE static vec<T> at(vec<T> a, [[maybe_unused]] vec<T> b = vec<T>{}, [[maybe_unused]] vec<T> c = vec<T>{}) { \
      return value;                                                                                                    \
    }                                                                                                                  \
  };
DL_MAPS(DL_FUNCTOR)

template <class T, class F, int... K>
DL_INLINE void map(Index n, const void* const* operands, void* out, Indices<K...>) {
  T* y = static_cast<T*>(out);
  const T* x[] = {static_cast<const T*>(operands[K])...};
  Index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store(y + i, F::at(load(x[K] + i)...));
  if (i < n) store(y + i, F::at(load(x[K] + i, n - i)...), n - i);
}
template <class T, class F>
void map(Index n, const void* const* operands, void* out) {
  map<T, F>(n, operands, out, typename F::Operands());
}

#define DL_COMPARISON(name, sign)                              \
  template <class T>                                           \
  void name(Index n, const void* const* operands, void* out) { \
    const T* a = static_cast<const T*>(operands[0]);           \
    const T* b = static_cast<const T*>(operands[1]);           \
    bool* __restrict y = static_cast<bool*>(out);              \
    for (Index i = 0; i < n; ++i) y[i] = a[i] sign b[i];       \
  }
DL_COMPARISONS(DL_COMPARISON)

template <class T>
void where(Index n, const void* const* operands, void* out) {
  const unsigned char* condition = static_cast<const unsigned char*>(operands[0]);
  const T* a = static_cast<const T*>(operands[1]);
  const T* b = static_cast<const T*>(operands[2]);
  T* __restrict y = static_cast<T*>(out);
  for (Index i = 0; i < n; ++i) y[i] = condition[i] ? a[i] : b[i];
}

template <class T>
void fill(Block* blocks) {
#define DL_FILL_MAP(name, ...) blocks[k_##name] = map<T, name##_of<T>>;
#define DL_FILL_COMPARISON(name, ...) blocks[k_##name] = name<T>;
  DL_MAPS(DL_FILL_MAP)
  DL_COMPARISONS(DL_FILL_COMPARISON)
  blocks[k_where] = where<T>;
}

}  // namespace

void fill_elementwise(Kernels& kernels) {
  fill<float>(kernels.elementwise.f32);
  fill<double>(kernels.elementwise.f64);
}

}  // namespace DL_ISA
}  // namespace dlcore
