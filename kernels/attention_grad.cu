// Gradient of attention, which computes the probabilities again: no T x S matrix in memory but that of the bias.
// Of k and v: attention_grad_kv.cu.
//
// attention_delta_<dtype>(dy, y, dlse, delta, rows, width): delta[row] = dy . y - dlse, in float; dlse may be null.
//   Grid: rows / 8, rounded up; block: 256, a warp a row; no shared memory.
// attention_grad_q_<width>_<dtype>(q, k, v, bias, dy, lse, delta, dq, call): gradient of q; blocks own queries.
// attention_grad_kv_<width>_<dtype>(q, k, v, bias, dy, lse, delta, dk, dv, call): gradients of k and v; blocks own
// keys. attention_grad_bias_<dtype>(q, k, v, bias, dy, lse, delta, dbias, call): gradient of the bias, tile by tile.
//   Operands as in attention.cu, those after bias contiguous. width: 64, 128 or 256, at least D and E.
//   Grid: leading size x tiles of 64 rows (grad_bias: and of 64 keys); block: 256; shared as in attention.cu.
#include "attention.cuh"

template <class T>
DL_DEVICE void delta_of_rows(const T* dy, const T* y, const T* dlse, float* delta, int rows, int width) {
  const int row = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float sum = 0.0f;
  if (row < rows)
    for (int i = lane; i < width; i += kWarp)
      sum = fmaf(widen(dy[(long long)row * width + i]), widen(y[(long long)row * width + i]), sum);
  sum = dl::warp_sum(sum);
  if (row < rows && lane == 0) delta[row] = dlse == nullptr ? sum : sum - widen(dlse[row]);
}

template <int PARTS, class T>
DL_DEVICE void grad_q(const T* q, const T* k, const T* v, const T* bias, const T* dy, const T* lse, const float* delta,
                      T* dq, const Attention& c) {
  __shared__ __align__(16) Shared shared;
  const unsigned place = blockIdx.x / tiles_of(c.t);
  const int first = (blockIdx.x - place * tiles_of(c.t)) * kTile;
  const long long rows = (long long)place * c.t;
  const Head<T> head(q, k, v, bias, c, place);
  const Matrix<T> into{dy + rows * c.e, c.e, c.t, c.e, c.vectors != 0};
  float sum[PARTS][kOwn][4] = {};
  const int end = c.causal ? smaller(c.s, first + kTile) : c.s;
  DL_ROLLED
  for (int key = 0; key < end; key += kTile) {
    float p[kOwn][kOwn], ds[kOwn][kOwn];
    multiply_rows(head.q, first, head.k, key, shared, p);
    multiply_rows(into, first, head.v, key, shared, ds);
    finish_scores<true>(head, lse + rows, delta + rows, first, key, p, ds);
    store_weights(ds, shared);
    add_weighted(head.k, key, shared, sum);
  }
  const float factor[kOwn] = {c.scale, c.scale, c.scale, c.scale};
  store_rows(sum, factor, dq + rows * c.d, first, c.t, c.d, c.vectors);
}

template <class T>
DL_DEVICE void grad_bias(const T* q, const T* k, const T* v, const T* bias, const T* dy, const T* lse,
                         const float* delta, T* dbias, const Attention& c) {
  __shared__ __align__(16) Shared shared;
  const unsigned across = tiles_of(c.s), tile = blockIdx.x / across, place = tile / tiles_of(c.t);
  const int key = (blockIdx.x - tile * across) * kTile, first = (tile - place * tiles_of(c.t)) * kTile;
  const long long rows = (long long)place * c.t;
  const Head<T> head(q, k, v, bias, c, place);
  const Matrix<T> into{dy + rows * c.e, c.e, c.t, c.e, c.vectors != 0};
  float p[kOwn][kOwn], ds[kOwn][kOwn];
  multiply_rows(head.q, first, head.k, key, shared, p);
  multiply_rows(into, first, head.v, key, shared, ds);
  finish_scores<true>(head, lse + rows, delta + rows, first, key, p, ds);
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) DL_UNROLL
  for (int j = 0; j < kOwn; ++j) {
    const int row = first + row_of() + i * kGroup, column = key + column_of() + j * kGroup;
    if (row < c.t && column < c.s) dbias[(rows + row) * c.s + column] = narrow<T>(ds[i][j]);
  }
}

#define DL_ATTENTION_GRAD_Q(T, suffix, width)                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                  \
      attention_grad_q_##width##_##suffix(const T* q, const T* k, const T* v, const T* bias, const T* dy, \
                                          const T* lse, const float* delta, T* dq, Attention call) {      \
    grad_q<width / kTile>(q, k, v, bias, dy, lse, delta, dq, call);                                       \
  }                                                                                                       \
  DL_EXPORT(attention_grad_q_##width##_##suffix)
#define DL_ATTENTION_GRAD(T, suffix)                                                                             \
  DL_ATTENTION_GRAD_Q(T, suffix, 64)                                                                             \
  DL_ATTENTION_GRAD_Q(T, suffix, 128)                                                                            \
  DL_ATTENTION_GRAD_Q(T, suffix, 256)                                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads, 2)                                                      \
      attention_grad_bias_##suffix(const T* q, const T* k, const T* v, const T* bias, const T* dy, const T* lse, \
                                   const float* delta, T* dbias, Attention call) {                               \
    grad_bias(q, k, v, bias, dy, lse, delta, dbias, call);                                                       \
  }                                                                                                              \
  DL_EXPORT(attention_grad_bias_##suffix)                                                                        \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                         \
      attention_delta_##suffix(const T* dy, const T* y, const T* dlse, float* delta, int rows, int width) {      \
    delta_of_rows(dy, y, dlse, delta, rows, width);                                                              \
  }                                                                                                              \
  DL_EXPORT(attention_delta_##suffix)
DL_ATTENTION_GRAD(float, f32)
DL_ATTENTION_GRAD(__half, f16)
DL_ATTENTION_GRAD(__nv_bfloat16, bf16)
