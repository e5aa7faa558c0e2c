// Element types: what they compute in, and 16-byte vectors of them.
#pragma once
#include "dl.cuh"

#ifdef DL_SIM
#define DL_ROLLED
#define DL_TWICE
#else
#define DL_ROLLED _Pragma("unroll 1")
#define DL_TWICE _Pragma("unroll 2")
#endif

// X(type, suffix of the kernels' names)
#define DL_FOR_FLOATS(X) X(float, f32) X(double, f64) X(__half, f16) X(__nv_bfloat16, bf16)

// The type that arithmetic on T is done in: 16-bit floats compute in float.
template <class T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};
template <>
struct Wide<int> {
  using type = int;
};
template <>
struct Wide<long long> {
  using type = long long;
};
template <>
struct Wide<unsigned long long> {
  using type = unsigned long long;
};
template <>
struct Wide<unsigned char> {  // a bool as 0 or 1
  using type = int;
};
template <class T>
using wide = typename Wide<T>::type;

DL_DEVICE float widen(float x) { return x; }
DL_DEVICE double widen(double x) { return x; }
DL_DEVICE float widen(bool x) { return x ? 1.0f : 0.0f; }
DL_DEVICE int widen(int x) { return x; }
DL_DEVICE int widen(unsigned char x) { return x; }
DL_DEVICE long long widen(long long x) { return x; }
DL_DEVICE unsigned long long widen(unsigned long long x) { return x; }
DL_DEVICE float widen(__half x) { return __half2float(x); }
DL_DEVICE float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
DL_DEVICE T narrow(wide<T> x) {
  return T(x);
}
template <>
DL_DEVICE __half narrow<__half>(float x) {
  return __float2half(x);
}
template <>
DL_DEVICE __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}

// Whether a type holds whole numbers, or bits whatever they mean.
template <class T>
constexpr bool kWhole = true;
template <>
constexpr bool kWhole<float> = false;
template <>
constexpr bool kWhole<double> = false;
template <>
constexpr bool kWhole<__half> = false;
template <>
constexpr bool kWhole<__nv_bfloat16> = false;

// An operand that the host passes by value: a number, or for whole types 64 bits in the place of one.
template <class T>
DL_DEVICE T by_value(double number) {
  if constexpr (kWhole<T>) return T(__double_as_longlong(number));
  else return narrow<T>(wide<T>(number));
}

// N elements that move as one access, or as several of 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vec {
  T at[N];
};

template <class T>
constexpr int kPerVector = 16 / int(sizeof(T));
