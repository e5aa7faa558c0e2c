// CUDA's device functions that are plain arithmetic. The approximate ones (__expf, ...) are as exact as the C
// library's.
#pragma once
#include <math.h>

#include <cmath>

#include "types.h"

#define SIMT_FUNCTION __attribute__((always_inline)) inline

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

// ---- bits

template <class To, class From>
SIMT_FUNCTION To simt_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To result;
  __builtin_memcpy(&result, &value, sizeof(To));
  return result;
}
SIMT_FUNCTION unsigned __float_as_uint(float x) { return simt_bits<unsigned>(x); }
SIMT_FUNCTION int __float_as_int(float x) { return simt_bits<int>(x); }
SIMT_FUNCTION float __uint_as_float(unsigned x) { return simt_bits<float>(x); }
SIMT_FUNCTION float __int_as_float(int x) { return simt_bits<float>(x); }
SIMT_FUNCTION long long __double_as_longlong(double x) { return simt_bits<long long>(x); }
SIMT_FUNCTION double __longlong_as_double(long long x) { return simt_bits<double>(x); }

SIMT_FUNCTION int __popc(unsigned x) { return __builtin_popcount(x); }
SIMT_FUNCTION int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
SIMT_FUNCTION int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
SIMT_FUNCTION int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
SIMT_FUNCTION int __ffs(int x) { return __builtin_ffs(x); }
SIMT_FUNCTION int __ffsll(long long x) { return __builtin_ffsll(x); }
SIMT_FUNCTION unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
SIMT_FUNCTION unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  unsigned long long bytes = static_cast<unsigned long long>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned pick = selector >> (4 * i) & 15u, byte = static_cast<unsigned>(bytes >> (8 * (pick & 7u))) & 255u;
    if (pick & 8u) byte = byte & 128u ? 255u : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
SIMT_FUNCTION unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31u) >> 32);
}
SIMT_FUNCTION unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31u));
}
SIMT_FUNCTION unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
SIMT_FUNCTION int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
SIMT_FUNCTION unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

// ---- conversions

SIMT_FUNCTION float __int2float_rn(int x) { return static_cast<float>(x); }
SIMT_FUNCTION float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
SIMT_FUNCTION float __double2float_rn(double x) { return static_cast<float>(x); }
SIMT_FUNCTION int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
SIMT_FUNCTION int __float2int_rz(float x) { return static_cast<int>(x); }
SIMT_FUNCTION int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }

// ---- float and double

SIMT_FUNCTION float rsqrtf(float x) { return 1.0f / sqrtf(x); }
SIMT_FUNCTION double rsqrt(double x) { return 1.0 / sqrt(x); }
SIMT_FUNCTION float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
SIMT_FUNCTION float exp10f(float x) { return powf(10.0f, x); }
SIMT_FUNCTION float __expf(float x) { return expf(x); }
SIMT_FUNCTION float __exp10f(float x) { return powf(10.0f, x); }
SIMT_FUNCTION float __logf(float x) { return logf(x); }
SIMT_FUNCTION float __log2f(float x) { return log2f(x); }
SIMT_FUNCTION float __log10f(float x) { return log10f(x); }
SIMT_FUNCTION float __powf(float x, float y) { return powf(x, y); }
SIMT_FUNCTION float __sinf(float x) { return sinf(x); }
SIMT_FUNCTION float __cosf(float x) { return cosf(x); }
SIMT_FUNCTION float __fdividef(float x, float y) { return x / y; }
SIMT_FUNCTION float __frcp_rn(float x) { return 1.0f / x; }
SIMT_FUNCTION float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
SIMT_FUNCTION float __fsqrt_rn(float x) { return sqrtf(x); }
SIMT_FUNCTION float __fadd_rn(float x, float y) { return x + y; }
SIMT_FUNCTION float __fsub_rn(float x, float y) { return x - y; }
SIMT_FUNCTION float __fmul_rn(float x, float y) { return x * y; }
SIMT_FUNCTION float __fdiv_rn(float x, float y) { return x / y; }
SIMT_FUNCTION float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
SIMT_FUNCTION float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
SIMT_FUNCTION double __dadd_rn(double x, double y) { return x + y; }
SIMT_FUNCTION double __dmul_rn(double x, double y) { return x * y; }
SIMT_FUNCTION double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

#define SIMT_MIN_MAX(type)                                         \
  SIMT_FUNCTION type min(type a, type b) { return b < a ? b : a; } \
  SIMT_FUNCTION type max(type a, type b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
SIMT_FUNCTION float min(float a, float b) { return fminf(a, b); }
SIMT_FUNCTION float max(float a, float b) { return fmaxf(a, b); }
SIMT_FUNCTION double min(double a, double b) { return fmin(a, b); }
SIMT_FUNCTION double max(double a, double b) { return fmax(a, b); }

// ---- loads and stores with cache hints

template <class T>
SIMT_FUNCTION T __ldg(const T* address) {
  return *address;
}
template <class T>
SIMT_FUNCTION T __ldcg(const T* address) {
  return *address;
}
template <class T>
SIMT_FUNCTION T __ldcs(const T* address) {
  return *address;
}
template <class T>
SIMT_FUNCTION void __stcg(T* address, T value) {
  *address = value;
}
template <class T>
SIMT_FUNCTION void __stcs(T* address, T value) {
  *address = value;
}

#undef SIMT_FUNCTION
