// Element-wise arithmetic, comparisons and bits of whole numbers, and of bools as bytes 0 and 1.
//
// whole_<op>_<i32|i64|b8>(x0[, x1[, x2]], y, walk): as elementwise.cuh says; comparisons give bools. Numbers in
// walk.scalar are 64 bits. Sums, differences and products wrap around; a quotient by 0 is 0, and so is its remainder.
#include "elementwise.cuh"

template <class T>
struct Unsigned;
template <>
struct Unsigned<int> {
  using type = unsigned;
};
template <>
struct Unsigned<long long> {
  using type = unsigned long long;
};
template <class T>
using bits = typename Unsigned<T>::type;

template <class T>
DL_DEVICE T sum(T a, T b) {
  return T(bits<T>(a) + bits<T>(b));
}
template <class T>
DL_DEVICE T difference(T a, T b) {
  return T(bits<T>(a) - bits<T>(b));
}
template <class T>
DL_DEVICE T product(T a, T b) {
  return T(bits<T>(a) * bits<T>(b));
}

template <class T>
DL_DEVICE T floor_remainder(T a, T b) {
  if (b == 0 || b == -1) return 0;  // the quotient of the least number by -1 overflows
  const T rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

template <class T>
DL_DEVICE T floor_quotient(T a, T b) {
  if (b == 0) return 0;
  if (b == -1) return difference(T(0), a);
  const T quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

template <class T>
DL_DEVICE T power(T base, T exponent) {
  T result = 1;
  DL_ROLLED
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 != 0) result = product(result, base);
    base = product(base, base);
  }
  return result;
}

template <class T>
DL_DEVICE bool is_shift(T count) {
  return count >= 0 && count < T(8 * sizeof(T));
}

#define DL_UNARY(X)                       \
  X(negative, difference(R(0), a))        \
  X(abs, a < 0 ? difference(R(0), a) : a) \
  X(sign, (a > 0) - (a < 0))              \
  X(square, product(a, a))                \
  X(bitwise_invert, ~a)                   \
  X(relu, a < 0 ? R(0) : a)

#define DL_BITWISE(X)  \
  X(bitwise_and, a& b) \
  X(bitwise_or, a | b) \
  X(bitwise_xor, a ^ b)

#define DL_BINARY(X)                                             \
  DL_BITWISE(X)                                                  \
  X(add, sum(a, b))                                              \
  X(subtract, difference(a, b))                                  \
  X(multiply, product(a, b))                                     \
  X(floor_divide, floor_quotient(a, b))                          \
  X(remainder, floor_remainder(a, b))                            \
  X(pow, power(a, b))                                            \
  X(maximum, a < b ? b : a)                                      \
  X(minimum, b < a ? b : a)                                      \
  X(bitwise_left_shift, is_shift(b) ? R(bits<R>(a) << b) : R(0)) \
  X(bitwise_right_shift, a >> (is_shift(b) ? b : R(8 * sizeof(R) - 1)))

#define DL_TERNARY(X) X(clip, bounded(a, b, c))

#define DL_COMPARISON(X)   \
  X(less, a < b)           \
  X(less_equal, a <= b)    \
  X(greater, a > b)        \
  X(greater_equal, a >= b) \
  X(equal, a == b)         \
  X(not_equal, a != b)

#define DL_I32_UNARY(name, value) DL_UNARY_KERNEL(int, whole_##name##_i32, value)
#define DL_I64_UNARY(name, value) DL_UNARY_KERNEL(long long, whole_##name##_i64, value)
#define DL_I32_BINARY(name, value) DL_BINARY_KERNEL(int, whole_##name##_i32, value)
#define DL_I64_BINARY(name, value) DL_BINARY_KERNEL(long long, whole_##name##_i64, value)
#define DL_B8_BINARY(name, value) DL_BINARY_KERNEL(unsigned char, whole_##name##_b8, value)
#define DL_I32_TERNARY(name, value) DL_TERNARY_KERNEL(int, whole_##name##_i32, value)
#define DL_I64_TERNARY(name, value) DL_TERNARY_KERNEL(long long, whole_##name##_i64, value)
#define DL_I32_COMPARISON(name, value) DL_COMPARISON_KERNEL(int, whole_##name##_i32, value)
#define DL_I64_COMPARISON(name, value) DL_COMPARISON_KERNEL(long long, whole_##name##_i64, value)
#define DL_B8_COMPARISON(name, value) DL_COMPARISON_KERNEL(unsigned char, whole_##name##_b8, value)

DL_UNARY(DL_I32_UNARY)
DL_UNARY(DL_I64_UNARY)
DL_BINARY(DL_I32_BINARY)
DL_BINARY(DL_I64_BINARY)
DL_TERNARY(DL_I32_TERNARY)
DL_TERNARY(DL_I64_TERNARY)
DL_COMPARISON(DL_I32_COMPARISON)
DL_COMPARISON(DL_I64_COMPARISON)
DL_COMPARISON(DL_B8_COMPARISON)
DL_BITWISE(DL_B8_BINARY)
DL_UNARY_KERNEL(unsigned char, whole_bitwise_invert_b8, a ^ 1)
