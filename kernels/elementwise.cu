// Element-wise operations: one line each in the tables, one template for all.
//
// elementwise_<op>_<dtype>(x0[, x1[, x2]], y, walk): y[i] = f(x0[i], ...), y contiguous.
// Operands broadcast with any strides (`Walk` of strided.cuh); a null operand is the number in walk.scalar.
// Grid: any, threads stride over 16-byte chunks of the output; block: 256; no shared memory.
// Every access of a contiguous operand moves 16 bytes where walk.vectors says that rows allow it.
#include "elementwise.cuh"

// X(name, value): of a, b, c in the wide type R of T
#define DL_UNARY(X)                                                        \
  X(negative, -a)                                                          \
  X(abs, fabs(a))                                                          \
  X(sign, a != a ? a : R((a > R(0)) - (a < R(0))))                         \
  X(square, a* a)                                                          \
  X(sqrt, sqrt(a))                                                         \
  X(rsqrt, R(1) / sqrt(a))                                                 \
  X(reciprocal, R(1) / a)                                                  \
  X(floor, floor(a))                                                       \
  X(ceil, ceil(a))                                                         \
  X(trunc, trunc(a))                                                       \
  X(round, rint(a))                                                        \
  X(exp, exp(a))                                                           \
  X(expm1, expm1(a))                                                       \
  X(log, log(a))                                                           \
  X(log1p, log1p(a))                                                       \
  X(log2, log2(a))                                                         \
  X(sin, sin(a))                                                           \
  X(cos, cos(a))                                                           \
  X(tanh, tanh(a))                                                         \
  X(erf, erf(a))                                                           \
  X(sigmoid, sigmoid(a))                                                   \
  X(relu, a < R(0) ? R(0) : a)                                             \
  X(gelu, gelu(a))                                                         \
  X(gelu_tanh, R(0.5) * a * (R(1) + tanh(gelu_inner(a))))                  \
  X(silu, a* sigmoid(a))                                                   \
  X(mish, a* tanh(softplus(a)))                                            \
  X(logsigmoid, (a < R(0) ? a : a != a ? a : R(0)) - log1p(exp(-fabs(a)))) \
  X(softsign, a / (R(1) + fabs(a)))

#define DL_BINARY(X)                                                \
  X(add, a + b)                                                     \
  X(subtract, a - b)                                                \
  X(multiply, a* b)                                                 \
  X(divide, a / b)                                                  \
  X(maximum, a != a ? a : b != b ? b : a < b ? b : a)               \
  X(minimum, a != a ? a : b != b ? b : b < a ? b : a)               \
  X(pow, pow(a, b))                                                 \
  X(copysign, copysign(a, b))                                       \
  X(leaky_relu, a > R(0) ? a : a * b)                               \
  X(elu, a > R(0) ? a : b * expm1(a))                               \
  X(softplus, (a < R(0) ? R(0) : a) + log1p(exp(-fabs(b * a))) / b) \
  X(relu_grad, b > R(0) ? a : R(0))                                 \
  X(sigmoid_grad, a * b * (R(1) - b))                               \
  X(tanh_grad, a*(R(1) - b * b))                                    \
  X(gelu_grad, a* gelu_slope(b))                                    \
  X(gelu_tanh_grad, a* gelu_tanh_slope(b))                          \
  X(silu_grad, a* silu_slope(b))

#define DL_TERNARY(X)      \
  X(lerp, a + c * (b - a)) \
  X(clip, bounded(a, b, c))

#define DL_COMPARISON(X)   \
  X(less, a < b)           \
  X(less_equal, a <= b)    \
  X(greater, a > b)        \
  X(greater_equal, a >= b) \
  X(equal, a == b)         \
  X(not_equal, a != b)

template <class R>
DL_DEVICE R sigmoid(R a) {
  const R decay = exp(-fabs(a));
  return (a < R(0) ? decay : R(1)) / (R(1) + decay);
}

template <class R>
DL_DEVICE R softplus(R a) {
  return (a < R(0) ? R(0) : a) + log1p(exp(-fabs(a)));
}

template <class R>
DL_DEVICE R silu_slope(R a) {
  const R s = sigmoid(a);
  return s * (R(1) + a * (R(1) - s));
}

template <class R>
DL_DEVICE R gelu(R a) {
  return R(0.5) * a * (R(1) + erf(a * R(0.70710678118654752440)));
}

template <class R>
DL_DEVICE R gelu_slope(R a) {
  const R density = exp(R(-0.5) * a * a) * R(0.39894228040143267794);
  return R(0.5) * (R(1) + erf(a * R(0.70710678118654752440))) + a * density;
}

// Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2
template <class R>
DL_DEVICE R gelu_inner(R a) {
  return R(0.79788456080286535588) * (a + R(0.044715) * a * a * a);
}

template <class R>
DL_DEVICE R gelu_tanh_slope(R a) {
  const R t = tanh(gelu_inner(a));
  const R rate = R(0.79788456080286535588) * (R(1) + R(3 * 0.044715) * a * a);
  return R(0.5) * (R(1) + t) + R(0.5) * a * (R(1) - t * t) * rate;
}

#define DL_F32_UNARY(name, value) DL_UNARY_KERNEL(float, elementwise_##name##_f32, value)
#define DL_F64_UNARY(name, value) DL_UNARY_KERNEL(double, elementwise_##name##_f64, value)
#define DL_F16_UNARY(name, value) DL_UNARY_KERNEL(__half, elementwise_##name##_f16, value)
#define DL_BF16_UNARY(name, value) DL_UNARY_KERNEL(__nv_bfloat16, elementwise_##name##_bf16, value)
DL_UNARY(DL_F32_UNARY)
DL_UNARY(DL_F64_UNARY)
DL_UNARY(DL_F16_UNARY)
DL_UNARY(DL_BF16_UNARY)

#define DL_F32_BINARY(name, value) DL_BINARY_KERNEL(float, elementwise_##name##_f32, value)
#define DL_F64_BINARY(name, value) DL_BINARY_KERNEL(double, elementwise_##name##_f64, value)
#define DL_F16_BINARY(name, value) DL_BINARY_KERNEL(__half, elementwise_##name##_f16, value)
#define DL_BF16_BINARY(name, value) DL_BINARY_KERNEL(__nv_bfloat16, elementwise_##name##_bf16, value)
DL_BINARY(DL_F32_BINARY)
DL_BINARY(DL_F64_BINARY)
DL_BINARY(DL_F16_BINARY)
DL_BINARY(DL_BF16_BINARY)

#define DL_F32_TERNARY(name, value) DL_TERNARY_KERNEL(float, elementwise_##name##_f32, value)
#define DL_F64_TERNARY(name, value) DL_TERNARY_KERNEL(double, elementwise_##name##_f64, value)
#define DL_F16_TERNARY(name, value) DL_TERNARY_KERNEL(__half, elementwise_##name##_f16, value)
#define DL_BF16_TERNARY(name, value) DL_TERNARY_KERNEL(__nv_bfloat16, elementwise_##name##_bf16, value)
DL_TERNARY(DL_F32_TERNARY)
DL_TERNARY(DL_F64_TERNARY)
DL_TERNARY(DL_F16_TERNARY)
DL_TERNARY(DL_BF16_TERNARY)

#define DL_F32_COMPARISON(name, value) DL_COMPARISON_KERNEL(float, elementwise_##name##_f32, value)
#define DL_F64_COMPARISON(name, value) DL_COMPARISON_KERNEL(double, elementwise_##name##_f64, value)
#define DL_F16_COMPARISON(name, value) DL_COMPARISON_KERNEL(__half, elementwise_##name##_f16, value)
#define DL_BF16_COMPARISON(name, value) DL_COMPARISON_KERNEL(__nv_bfloat16, elementwise_##name##_bf16, value)
DL_COMPARISON(DL_F32_COMPARISON)
DL_COMPARISON(DL_F64_COMPARISON)
DL_COMPARISON(DL_F16_COMPARISON)
DL_COMPARISON(DL_BF16_COMPARISON)
