// Philox4x32-10 and what is made of its words. Every floating-point operation is rounded once and in the order of the
// references (the build forbids contraction), so that the results have their bits.
#include "random.h"

#include "isa.h"
#include "parallel.h"
#include "simd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

using Key = RandomKernels::Key;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

constexpr Index kBlocks = 64;          // of four words, generated together
constexpr Index kWords = 4 * kBlocks;  // of one such part
constexpr Index kGrain = 16;           // parts worth a thread
constexpr double kLog2 = 0.69314718055994530942, kSqrt2 = 1.41421356237309504880;

DL_INLINE void generate(Key key, u64 first, u32* words) {
  for (Index j = 0; j < kBlocks; ++j) {
    const u64 block = first + u64(j);
    u32 c0 = u32(block), c1 = u32(block >> 32), c2 = u32(key.stream), c3 = u32(key.stream >> 32);
    u32 k0 = u32(key.seed), k1 = u32(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const u64 p0 = u64(c0) * 0xD2511F53u, p1 = u64(c2) * 0xCD9E8D57u;
      c0 = u32(p1 >> 32) ^ c1 ^ k0, c1 = u32(p1);
      c2 = u32(p0 >> 32) ^ c3 ^ k1, c3 = u32(p0);
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    words[4 * j] = c0, words[4 * j + 1] = c1, words[4 * j + 2] = c2, words[4 * j + 3] = c3;
  }
}

// f(start, count, words) over parts of n elements, each of which takes `per` words.
template <int per, class F>
void for_words(Index n, Key key, const F& f) {
  constexpr Index size = kWords / per;
  parallel_for(0, (n + size - 1) / size, kGrain, [&](Index begin, Index end) {
    u32 words[kWords];
    for (Index part = begin; part < end; ++part) {
      generate(key, u64(part) * kBlocks, words);
      f(part * size, smaller(size, n - part * size), words);
    }
  });
}

// The words of an element: 32 bits for float, 64 for double.
template <class T>
struct Word;
template <>
struct Word<float> {
  using type = u32;
  static constexpr int per = 1, width = 32;
  static DL_INLINE u32 at(const u32* words, Index i) { return words[i]; }
  static DL_INLINE u32 scaled(u32 word, u64 size) { return u32((word * size) >> 32); }
};
template <>
struct Word<double> {
  using type = u64;
  static constexpr int per = 2, width = 64;
  static DL_INLINE u64 at(const u32* words, Index i) { return words[2 * i] | (u64(words[2 * i + 1]) << 32); }
  static DL_INLINE u64 scaled(u64 word, u64 size) {
    const u64 high = word >> 32, low = u32(word), size_high = size >> 32, size_low = u32(size);
    return high * size_high + ((high * size_low) >> 32) + ((low * size_high) >> 32);
  }
};

template <class T>
constexpr T power_of_two(int n) {
  T y = 1;
  for (; n > 0; --n) y *= 2;
  for (; n < 0; ++n) y /= 2;
  return y;
}

DL_INLINE float unit(u32 word) { return float(int(word >> 8)) * power_of_two<float>(-24); }

void uniform_f32(Index n, Key key, void* to) {
  float* y = static_cast<float*>(to);
  for_words<1>(n, key, [=](Index start, Index count, const u32* words) {
    for (Index i = 0; i < count; ++i) y[start + i] = unit(words[i]);
  });
}

void uniform_f64(Index n, Key key, void* to) {
  double* y = static_cast<double*>(to);
  for_words<2>(n, key, [=](Index start, Index count, const u32* words) {
    for (Index i = 0; i < count; ++i)
      y[start + i] = double(std::int64_t(Word<double>::at(words, i) >> 11)) * power_of_two<double>(-53);
  });
}

template <class T>
void dropout(Index n, Key key, const void* from, float p, double scale, void* to) {
  const T *x = static_cast<const T*>(from), factor = T(scale);
  T* y = static_cast<T*>(to);
  for_words<1>(n, key, [=](Index start, Index count, const u32* words) {
    for (Index i = 0; i < count; ++i) {
      const T kept = x[start + i] * factor;
      y[start + i] = unit(words[i]) >= p ? kept : T(0);
    }
  });
}

// ---- normal numbers: Wichura's AS 241, coefficients as in dlcore/ops/philox.py

template <class T, int N>
struct Ratio {
  T p[N], q[N];
};
template <class T>
struct Quantile;
template <>
struct Quantile<float> {
  static constexpr int terms = 6;
  static constexpr Ratio<float, 4> centre = {{3.3871327179f, 50.434271938f, 159.29113202f, 59.109374720f},
                                             {1.0f, 17.895169469f, 78.757757664f, 67.187563600f}};
  static constexpr Ratio<float, 4> middle = {{1.4234372777f, 2.7568153900f, 1.3067284816f, 0.17023821103f},
                                             {1.0f, 0.73700164250f, 0.12021132975f, 0.0f}};
  static constexpr Ratio<float, 4> far = {{6.6579051150f, 3.0812263860f, 0.42868294337f, 0.017337203997f},
                                          {1.0f, 0.24197894225f, 0.012258202635f, 0.0f}};
};
template <>
struct Quantile<double> {
  static constexpr int terms = 12;
  static constexpr Ratio<double, 8> centre = {
      {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
       4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
      {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
       3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3}};
  static constexpr Ratio<double, 8> middle = {
      {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
       1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
      {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
       1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
  static constexpr Ratio<double, 8> far = {
      {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
       2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
      {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
       1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
};

// A leading coefficient of 0 leaves the bits of a shorter polynomial.
template <class T, int N>
DL_INLINE T polynomial(T x, const T (&c)[N]) {
  T y = c[N - 1];
  for (int i = N - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}
template <class T, int N>
DL_INLINE T ratio(T x, const Ratio<T, N>& r) {
  return polynomial(x, r.p) / polynomial(x, r.q);
}

// -log(n / 2**(width + 1)): exponent split and the series of atanh
template <class T>
DL_INLINE T minus_log(typename Word<T>::type n) {
  constexpr int width = Word<T>::width;
  int zeros = 0;
  for (int s = width / 2; s > 0; s /= 2) {
    const bool small = (n >> (width - s)) == 0;
    n = small ? n << s : n;
    zeros += small ? s : 0;
  }
  T f = T(n) * power_of_two<T>(1 - width);
  const bool high = f > T(kSqrt2);
  f = high ? f * T(0.5) : f;
  const T exponent = T(high ? zeros + 1 : zeros + 2);
  const T s = (f - T(1)) / (f + T(1)), square = s * s;
  T series = T(2.0 / (2 * Quantile<T>::terms - 1));
  for (int k = Quantile<T>::terms - 2; k >= 0; --k) series = series * square + T(2.0 / (2 * k + 1));
  return exponent * T(kLog2) - s * series;
}

DL_INLINE float root(float x) { return __builtin_sqrtf(x); }
DL_INLINE double root(double x) { return __builtin_sqrt(x); }

template <class T>
DL_INLINE T quantile(typename Word<T>::type word) {
  using W = typename Word<T>::type;
  constexpr int width = Word<T>::width;
  const bool lower = (word >> (width - 1)) == 0;
  const W n = W(2) * (lower ? word : W(~word)) + W(1);
  const T q = T(0.5) - T(n) * power_of_two<T>(-(width + 1));
  const T r = root(minus_log<T>(n));
  const T centre = q * ratio(T(0.180625) - q * q, Quantile<T>::centre);
  const T middle = ratio(r - T(1.6), Quantile<T>::middle), far = ratio(r - T(5), Quantile<T>::far);
  const T size = q <= T(0.425) ? centre : r <= T(5) ? middle : far;
  return lower ? -size : size;
}

template <class T>
void normal(Index n, Key key, u64 first, u64 size, void* to) {
  using W = typename Word<T>::type;
  T* y = static_cast<T*>(to);
  for_words<Word<T>::per>(n, key, [=](Index start, Index count, const u32* words) {
    for (Index i = 0; i < count; ++i) {
      const W word = Word<T>::at(words, i);
      y[start + i] = quantile<T>(size == 0 ? word : W(Word<T>::scaled(word, size) + first));
    }
  });
}

void integers(Index n, Key key, std::int64_t low, u64 size, std::int64_t* y) {
  for_words<2>(n, key, [=](Index start, Index count, const u32* words) {
    for (Index i = 0; i < count; ++i) {
      const u64 word = Word<double>::at(words, i);
      y[start + i] = std::int64_t(size == 0 ? word : u64(low) + word % size);
    }
  });
}

}  // namespace

void fill_random(Kernels& kernels) {
  kernels.random = {
      {uniform_f32, normal<float>, dropout<float>}, {uniform_f64, normal<double>, dropout<double>}, integers};
}

}  // namespace DL_ISA
}  // namespace dlcore
