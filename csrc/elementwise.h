// Element-wise functions of contiguous blocks. The tables here are all there is to say about one: kernels, bindings and
// names come from them. strided.h feeds the blocks.
#pragma once
#include <cstddef>

// clang-format off
// X(name, operands, value): of vectors a, b, c of T
#define DL_MAPS(X)                                                         \
  X(copy, 1, a)                                                            \
  X(add, 2, a + b)                                                         \
  X(subtract, 2, a - b)                                                    \
  X(multiply, 2, a * b)                                                    \
  X(divide, 2, a / b)                                                      \
  X(lerp, 3, a + c * (b - a))                                              \
  X(maximum, 2, nan_max(a, b))                                             \
  X(minimum, 2, nan_min(a, b))                                             \
  X(clip, 3, bounded(a, b, c))                                             \
  X(negative, 1, -a)                                                       \
  X(abs, 1, abs(a))                                                        \
  X(square, 1, a * a)                                                      \
  X(sqrt, 1, sqrt(a))                                                      \
  X(pow, 2, power<T>(a, b))                                                \
  X(rsqrt, 1, T(1) / sqrt(a))                                              \
  X(reciprocal, 1, T(1) / a)                                               \
  X(exp, 1, exp(a))                                                        \
  X(log, 1, log(a))                                                        \
  X(logaddexp, 2, logaddexp<T>(a, b))                                      \
  X(sign, 1, a > T(0) ? broadcast(T(1)) : a < T(0) ? broadcast(T(-1)) : a) \
  X(floor, 1, rounded<kDown>(a))                                           \
  X(ceil, 1, rounded<kUp>(a))                                              \
  X(trunc, 1, rounded<kToZero>(a))                                         \
  X(round, 1, rounded<kToEven>(a))                                         \
  X(expm1, 1, expm1(a))                                                    \
  X(log1p, 1, log1p(a))                                                    \
  X(sin, 1, sin(a))                                                        \
  X(cos, 1, cos(a))                                                        \
  X(tanh, 1, tanh(a))                                                      \
  X(sigmoid, 1, sigmoid(a))                                                \
  X(erf, 1, erf(a))                                                        \
  X(relu, 1, a < T(0) ? vec<T>{} : a)                                      \
  X(leaky_relu, 2, a > T(0) ? a : a * b)                                   \
  X(elu, 2, a > T(0) ? a : b * expm1(a))                                   \
  X(gelu, 1, gelu<T>(a))                                                   \
  X(gelu_tanh, 1, T(0.5) * a * (T(1) + tanh(gelu_inner<T>(a))))            \
  X(silu, 1, a * sigmoid(a))                                               \
  X(mish, 1, a * tanh((a < T(0) ? vec<T>{} : a) + log1p(exp(-abs(a)))))    \
  X(softplus, 2, (a < T(0) ? vec<T>{} : a) + log1p(exp(-abs(b * a))) / b)  \
  X(logsigmoid, 1, (a > T(0) ? vec<T>{} : a) - log1p(exp(-abs(a))))        \
  X(softsign, 1, a / (T(1) + abs(a)))                                      \
  X(tanhshrink, 1, a - tanh(a))                                            \
  X(selu, 1, selu<T>(a))                                                   \
  X(celu, 2, a > T(0) ? a : b * expm1(a / b))                              \
  X(hardsigmoid, 1, hardsigmoid<T>(a))                                     \
  X(hardswish, 1, a * hardsigmoid<T>(a))                                   \
  X(hardshrink, 2, abs(a) <= b ? vec<T>{} : a)                             \
  X(softshrink, 2, a - bounded(a, -b, b))                                  \
  X(threshold, 3, a <= b ? c : a)                                          \
  X(relu_grad, 2, b > T(0) ? a : vec<T>{})                                 \
  X(sigmoid_grad, 2, a * b * (T(1) - b))                                   \
  X(tanh_grad, 2, a * (T(1) - b * b))                                      \
  X(gelu_grad, 2, a * gelu_slope<T>(b))                                    \
  X(gelu_tanh_grad, 2, a * gelu_tanh_slope<T>(b))                          \
  X(silu_grad, 2, a * silu_slope<T>(b))

// X(name, operator): of elements of T, with a bool result
#define DL_COMPARISONS(X) \
  X(less, <)              \
  X(less_equal, <=)       \
  X(greater, >)           \
  X(greater_equal, >=)    \
  X(equal, ==)            \
  X(not_equal, !=)
// clang-format on

namespace dlcore {

using Block = void (*)(std::ptrdiff_t n, const void* const* operands, void* out);

enum Elementwise {
#define DL_NAME(name, ...) k_##name,
  DL_MAPS(DL_NAME) DL_COMPARISONS(DL_NAME) k_where,  // where: operands condition (bool), a, b
#undef DL_NAME
  kElementwiseCount
};

struct ElementwiseKernels {
  Block f32[kElementwiseCount], f64[kElementwiseCount];
};

}  // namespace dlcore
