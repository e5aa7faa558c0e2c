// Gradients of attention for keys and values, which compute the probabilities again: no T x S matrix in memory.
//
// attention_grad_kv_<width>_<dtype>(q, k, v, bias, dy, lse, delta, dk, dv, call): a block owns 64 keys and walks over
//   the queries that see them. Operands as in attention.cu, those after bias contiguous; delta from attention_delta.
//   width: 64, 128 or 256, at least D and E.
//   Grid: leading size x tiles of 64 keys; block: 256; shared as in attention.cu.
#include "attention.cuh"

template <int PARTS, class T>
DL_DEVICE void grad_kv(const T* q, const T* k, const T* v, const T* bias, const T* dy, const T* lse, const float* delta,
                       T* dk, T* dv, const Attention& c) {
  __shared__ __align__(16) Shared shared;
  const unsigned place = blockIdx.x / tiles_of(c.s);
  const int first = (blockIdx.x - place * tiles_of(c.s)) * kTile;
  const long long rows = (long long)place * c.t, keys = (long long)place * c.s;
  const Head<T> head(q, k, v, bias, c, place);
  const Matrix<T> into{dy + rows * c.e, c.e, c.t, c.e, c.vectors != 0};
  float sum_k[PARTS][kOwn][4] = {}, sum_v[PARTS][kOwn][4] = {};
  DL_ROLLED
  for (int query = c.causal ? first : 0; query < c.t; query += kTile) {
    float p[kOwn][kOwn], ds[kOwn][kOwn];
    multiply_rows(head.k, first, head.q, query, shared, p);
    multiply_rows(head.v, first, into, query, shared, ds);
    finish_scores<false>(head, lse + rows, delta + rows, first, query, p, ds);
    store_weights(p, shared);
    add_weighted(into, query, shared, sum_v);
    store_weights(ds, shared);
    add_weighted(head.q, query, shared, sum_k);
  }
  const float factor[kOwn] = {c.scale, c.scale, c.scale, c.scale}, one[kOwn] = {1.0f, 1.0f, 1.0f, 1.0f};
  store_rows(sum_k, factor, dk + keys * c.d, first, c.s, c.d, c.vectors);
  store_rows(sum_v, one, dv + keys * c.e, first, c.s, c.e, c.vectors);
}

#define DL_ATTENTION_GRAD_KV(T, suffix, width)                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                     \
      attention_grad_kv_##width##_##suffix(const T* q, const T* k, const T* v, const T* bias, const T* dy,   \
                                           const T* lse, const float* delta, T* dk, T* dv, Attention call) { \
    grad_kv<width / kTile>(q, k, v, bias, dy, lse, delta, dk, dv, call);                                     \
  }                                                                                                          \
  DL_EXPORT(attention_grad_kv_##width##_##suffix)
#define DL_ATTENTION_WIDTHS(T, suffix) \
  DL_ATTENTION_GRAD_KV(T, suffix, 64)  \
  DL_ATTENTION_GRAD_KV(T, suffix, 128) \
  DL_ATTENTION_GRAD_KV(T, suffix, 256)
DL_ATTENTION_WIDTHS(float, f32)
DL_ATTENTION_WIDTHS(__half, f16)
DL_ATTENTION_WIDTHS(__nv_bfloat16, bf16)
