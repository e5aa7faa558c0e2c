// Element-wise functions of floats that are less common than those of elementwise.cu, and predicates.
//
// functions_<op>_<dtype>(x0[, x1[, x2]], y, walk): as elementwise.cuh says; predicates give bools.
#include "elementwise.cuh"

// The remainder that has the sign of b; of b = 0 it is NaN.
template <class R>
DL_DEVICE R floor_remainder(R a, R b) {
  const R rest = fmod(a, b);
  if (b == R(0)) return rest;
  if (rest == R(0)) return copysign(R(0), b);
  return (b < R(0)) != (rest < R(0)) ? rest + b : rest;
}

// Largest whole number not above a / b, exact although the quotient is rounded.
template <class R>
DL_DEVICE R floor_quotient(R a, R b) {
  if (b == R(0)) return a / b;
  const R rest = fmod(a, b);
  R whole = (a - rest) / b;
  if (rest != R(0) && (b < R(0)) != (rest < R(0))) whole -= R(1);
  if (whole == R(0)) return copysign(R(0), a / b);
  const R below = floor(whole);
  return whole - below > R(0.5) ? below + R(1) : below;
}

template <class R>
DL_DEVICE R logaddexp(R a, R b) {
  if (a == b) return a + R(0.69314718055994530942);
  const R off = a - b;
  if (off != off) return off;
  return (off > R(0) ? a : b) + log1p(exp(-fabs(off)));
}

#define DL_UNARY(X)                                                                  \
  X(log10, log10(a))                                                                 \
  X(tan, tan(a))                                                                     \
  X(asin, asin(a))                                                                   \
  X(acos, acos(a))                                                                   \
  X(atan, atan(a))                                                                   \
  X(sinh, sinh(a))                                                                   \
  X(cosh, cosh(a))                                                                   \
  X(asinh, asinh(a))                                                                 \
  X(acosh, acosh(a))                                                                 \
  X(atanh, atanh(a))                                                                 \
  X(tanhshrink, a - tanh(a))                                                         \
  X(selu, R(1.0507009873554805) * (a > R(0) ? a : R(1.6732632423543772) * expm1(a))) \
  X(hardsigmoid, bounded(a / R(6) + R(0.5), R(0), R(1)))                             \
  X(hardswish, a* bounded(a / R(6) + R(0.5), R(0), R(1)))

#define DL_BINARY(X)                       \
  X(floor_divide, floor_quotient(a, b))    \
  X(remainder, floor_remainder(a, b))      \
  X(logaddexp, logaddexp(a, b))            \
  X(hypot, hypot(a, b))                    \
  X(atan2, atan2(a, b))                    \
  X(celu, a > R(0) ? a : b * expm1(a / b)) \
  X(hardshrink, fabs(a) <= b ? R(0) : a)   \
  X(softshrink, a - bounded(a, -b, b))

#define DL_TERNARY(X) X(threshold, a <= b ? c : a)

#define DL_PREDICATE(X)              \
  X(isnan, a != a)                   \
  X(isinf, fabs(a) == R(INFINITY))   \
  X(isfinite, fabs(a) < R(INFINITY)) \
  X(signbit, copysign(R(1), a) < R(0))

#define DL_F32_UNARY(name, value) DL_UNARY_KERNEL(float, functions_##name##_f32, value)
#define DL_F64_UNARY(name, value) DL_UNARY_KERNEL(double, functions_##name##_f64, value)
#define DL_F16_UNARY(name, value) DL_UNARY_KERNEL(__half, functions_##name##_f16, value)
#define DL_BF16_UNARY(name, value) DL_UNARY_KERNEL(__nv_bfloat16, functions_##name##_bf16, value)
DL_UNARY(DL_F32_UNARY)
DL_UNARY(DL_F64_UNARY)
DL_UNARY(DL_F16_UNARY)
DL_UNARY(DL_BF16_UNARY)

#define DL_F32_BINARY(name, value) DL_BINARY_KERNEL(float, functions_##name##_f32, value)
#define DL_F64_BINARY(name, value) DL_BINARY_KERNEL(double, functions_##name##_f64, value)
#define DL_F16_BINARY(name, value) DL_BINARY_KERNEL(__half, functions_##name##_f16, value)
#define DL_BF16_BINARY(name, value) DL_BINARY_KERNEL(__nv_bfloat16, functions_##name##_bf16, value)
DL_BINARY(DL_F32_BINARY)
DL_BINARY(DL_F64_BINARY)
DL_BINARY(DL_F16_BINARY)
DL_BINARY(DL_BF16_BINARY)

#define DL_F32_TERNARY(name, value) DL_TERNARY_KERNEL(float, functions_##name##_f32, value)
#define DL_F64_TERNARY(name, value) DL_TERNARY_KERNEL(double, functions_##name##_f64, value)
#define DL_F16_TERNARY(name, value) DL_TERNARY_KERNEL(__half, functions_##name##_f16, value)
#define DL_BF16_TERNARY(name, value) DL_TERNARY_KERNEL(__nv_bfloat16, functions_##name##_bf16, value)
DL_TERNARY(DL_F32_TERNARY)
DL_TERNARY(DL_F64_TERNARY)
DL_TERNARY(DL_F16_TERNARY)
DL_TERNARY(DL_BF16_TERNARY)

#define DL_F32_PREDICATE(name, value) DL_PREDICATE_KERNEL(float, functions_##name##_f32, value)
#define DL_F64_PREDICATE(name, value) DL_PREDICATE_KERNEL(double, functions_##name##_f64, value)
#define DL_F16_PREDICATE(name, value) DL_PREDICATE_KERNEL(__half, functions_##name##_f16, value)
#define DL_BF16_PREDICATE(name, value) DL_PREDICATE_KERNEL(__nv_bfloat16, functions_##name##_bf16, value)
DL_PREDICATE(DL_F32_PREDICATE)
DL_PREDICATE(DL_F64_PREDICATE)
DL_PREDICATE(DL_F16_PREDICATE)
DL_PREDICATE(DL_BF16_PREDICATE)
