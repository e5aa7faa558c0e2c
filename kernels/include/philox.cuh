// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and normal
// numbers by inversion, with the bits of the references: every operation is rounded once, in their order.
#pragma once
#include "types.cuh"

using Word64 = unsigned long long;

struct Words {
  unsigned at[4];
  DL_DEVICE Word64 pair(int i) const { return at[2 * i] | Word64(at[2 * i + 1]) << 32; }
};

// Words 4 * block to 4 * block + 3 of the sequence of key[2] = (seed, stream).
DL_DEVICE Words philox(const long long* key, Word64 block) {
  const Word64 seed = Word64(key[0]), stream = Word64(key[1]);
  unsigned c0 = unsigned(block), c1 = unsigned(block >> 32), c2 = unsigned(stream), c3 = unsigned(stream >> 32);
  unsigned k0 = unsigned(seed), k1 = unsigned(seed >> 32);
  DL_UNROLL
  for (int round = 0; round < 10; ++round) {
    const Word64 p0 = Word64(c0) * 0xD2511F53u, p1 = Word64(c2) * 0xCD9E8D57u;
    c0 = unsigned(p1 >> 32) ^ c1 ^ k0, c1 = unsigned(p1);
    c2 = unsigned(p0 >> 32) ^ c3 ^ k1, c3 = unsigned(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

DL_DEVICE float unit(unsigned word) { return float(word >> 8) * 0x1p-24f; }

// What a number of type R is made from.
template <class R>
struct WordOf {
  using type = unsigned;
  static constexpr int width = 32;
  DL_DEVICE static unsigned scaled(unsigned word, Word64 size) { return unsigned(word * size >> 32); }
};
template <>
struct WordOf<double> {
  using type = Word64;
  static constexpr int width = 64;
  DL_DEVICE static Word64 scaled(Word64 word, Word64 size) {
    const Word64 high = word >> 32, low = unsigned(word), size_high = size >> 32, size_low = unsigned(size);
    return high * size_high + (high * size_low >> 32) + (low * size_high >> 32);
  }
};

// ---- the normal quantile: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988), PPND7 and PPND16

template <class R>
DL_DEVICE R horner(R, R last) {
  return last;
}
template <class R, class... Rest>
DL_DEVICE R horner(R x, R first, Rest... rest) {
  return horner(x, rest...) * x + first;
}

DL_DEVICE float central(float x) {
  return horner(x, 3.3871327179f, 50.434271938f, 159.29113202f, 59.109374720f) /
         horner(x, 1.0f, 17.895169469f, 78.757757664f, 67.187563600f);
}
DL_DEVICE float middle(float x) {
  return horner(x, 1.4234372777f, 2.7568153900f, 1.3067284816f, 0.17023821103f) /
         horner(x, 1.0f, 0.73700164250f, 0.12021132975f);
}
DL_DEVICE float far(float x) {
  return horner(x, 6.6579051150f, 3.0812263860f, 0.42868294337f, 0.017337203997f) /
         horner(x, 1.0f, 0.24197894225f, 0.012258202635f);
}

DL_DEVICE double central(double x) {
  return horner(x, 3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3) /
         horner(x, 1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3);
}
DL_DEVICE double middle(double x) {
  return horner(x, 1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                2.27238449892691845833e-2, 7.74545014278341407640e-4) /
         horner(x, 1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
                1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
                1.05075007164441684324e-9);
}
DL_DEVICE double far(double x) {
  return horner(x, 6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
                2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                2.71155556874348757815e-5, 2.01033439929228813265e-7) /
         horner(x, 1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                2.04426310338993978564e-15);
}

// The series of 2 atanh(s) / s in s * s, to the term below half a unit in the last place.
DL_DEVICE float atanh_series(float x) {
  return horner(x, 2.0f, float(2.0 / 3), float(2.0 / 5), float(2.0 / 7), float(2.0 / 9), float(2.0 / 11));
}
DL_DEVICE double atanh_series(double x) {
  return horner(x, 2.0, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21,
                2.0 / 23);
}

DL_DEVICE int leading_zeros(unsigned n) { return __clz(int(n)); }
DL_DEVICE int leading_zeros(Word64 n) { return __clzll((long long)(n)); }

// -log(n / 2**(width + 1)) of n > 0.
template <class R>
DL_DEVICE R minus_log(typename WordOf<R>::type n) {
  constexpr int width = WordOf<R>::width;
  const int zeros = leading_zeros(n);
  const R f = R(n << zeros) * (width == 32 ? R(0x1p-31) : R(0x1p-63));
  const bool high = f > R(1.41421356237309504880);
  const R g = high ? f * R(0.5) : f, s = (g - R(1)) / (g + R(1));
  return R(high ? zeros + 1 : zeros + 2) * R(0.69314718055994530942) - s * atanh_series(s * s);
}

// The normal quantile of (word + 1/2) / 2**width.
template <class R>
DL_DEVICE R normal_quantile(typename WordOf<R>::type word) {
  using W = typename WordOf<R>::type;
  const bool lower = word >> (WordOf<R>::width - 1) == 0;
  const W n = W(2) * (lower ? word : W(~word)) + W(1);
  const R q = R(0.5) - R(n) * (WordOf<R>::width == 32 ? R(0x1p-33) : R(0x1p-65));
  const R r = sqrt(minus_log<R>(n));
  const R size = q <= R(0.425) ? q * central(R(0.180625) - q * q) : r <= R(5) ? middle(r - R(1.6)) : far(r - R(5));
  return lower ? -size : size;
}
