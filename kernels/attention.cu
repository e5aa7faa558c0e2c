// Scaled dot-product attention with online softmax: no T x S matrix in memory (Dao et al., "FlashAttention", 2022).
//
// attention_forward_<width>_<dtype>(q, k, v, bias, y, lse, call): y = softmax(scale q k^T + bias) v, and the logarithm
//   of each row's sum; rows without a visible key give 0 and -inf. bias may be null.
//   q, k, v: [T, D], [S, D], [S, E] for each place of the leading axes, columns contiguous; bias has any strides; y and
//   lse are contiguous. width: 64, 128 or 256, at least E; of 16-bit types only 256, attention_tensor.cu has the
//   others. Grid: leading size x tiles of 64 queries; block: 256; shared: two slabs of 64 x 32 or a tile of 64 x 64
//   values, and a tile of weights.
#include "attention.cuh"

template <int PARTS, class T>
DL_DEVICE void attend(const T* q, const T* k, const T* v, const T* bias, T* y, T* lse, const Attention& c) {
  __shared__ __align__(16) Shared shared;
  const unsigned place = blockIdx.x / tiles_of(c.t);
  const int first = (blockIdx.x - place * tiles_of(c.t)) * kTile;
  const Head<T> head(q, k, v, bias, c, place);
  Softmax<kOwn, kOwn, kGroup> softmax;
  float sum[PARTS][kOwn][4] = {};
  const int end = c.causal ? smaller(c.s, first + kTile) : c.s;
  DL_ROLLED
  for (int key = 0; key < end; key += kTile) {
    float score[kOwn][kOwn], fade[kOwn];
    multiply_rows(head.q, first, head.k, key, shared, score);
    DL_UNROLL
    for (int i = 0; i < kOwn; ++i) DL_UNROLL
    for (int j = 0; j < kOwn; ++j)
      score[i][j] = head.score(score[i][j], first + row_of() + i * kGroup, key + column_of() + j * kGroup);
    softmax.join(score, fade, [](float x, float top) { return expf(x - top); });
    store_weights(score, shared);
    DL_UNROLL
    for (int part = 0; part < PARTS; ++part) DL_UNROLL
    for (int i = 0; i < kOwn; ++i) DL_UNROLL
    for (int j = 0; j < 4; ++j) sum[part][i][j] *= fade[i];
    add_weighted(head.v, key, shared, sum);
  }
  float factor[kOwn];
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int row = first + row_of() + i * kGroup;
    factor[i] = softmax.factor(i);
    if (column_of() == 0 && row < c.t) lse[(long long)place * c.t + row] = narrow<T>(softmax.lse(i));
  }
  store_rows(sum, factor, y + (long long)place * c.t * c.e, first, c.t, c.e, c.vectors);
}

#define DL_ATTENTION(T, suffix, width)                                                         \
  extern "C" __global__ void __launch_bounds__(kThreads) attention_forward_##width##_##suffix( \
      const T* q, const T* k, const T* v, const T* bias, T* y, T* lse, Attention call) {       \
    attend<width / kTile>(q, k, v, bias, y, lse, call);                                        \
  }                                                                                            \
  DL_EXPORT(attention_forward_##width##_##suffix)
#define DL_ATTENTION_WIDTHS(T, suffix) \
  DL_ATTENTION(T, suffix, 64)          \
  DL_ATTENTION(T, suffix, 128)         \
  DL_ATTENTION(T, suffix, 256)
DL_ATTENTION_WIDTHS(float, f32)
DL_ATTENTION(__half, f16, 256)
DL_ATTENTION(__nv_bfloat16, bf16, 256)
