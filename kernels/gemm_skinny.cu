// Products with few rows in f32, by multiply-adds.
//
// y[r, n] = activation(alpha * sum over k of x[r, k] W[n, k] + bias) for r < 1, 4 or 16.
// gemm_skinny_<k|n>_f32_<rows>(x, w, bias, y, skinny): k or n is contiguous in W, in lines of whole vectors at
// multiples
//   of 16 bytes; names that end in _any take every size and alignment.
//   Grid: lines / 32, batches; block: 256; shared: a warp's chunk of x, and its sums.
#include "gemm_skinny.cuh"

template <int ROWS, bool ALONG_K, bool WHOLE>
DL_DEVICE void skinny(const float* x, const float* w, const float* bias, float* y, const Skinny& s) {
  constexpr int V = kPerVector<float>, kAtOnce = ROWS < 4 ? ROWS : 4;  // rows of sums that a warp stores at once
  __shared__ Vec<float, V> rows[kWarps][ROWS * 4], part[kWarps][ROWS][8 + 2];
  const Product& p = s.product;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int of_lines = (lane & 1) | (lane >> 2 & 6), of_k = lane >> 1 & 3;  // neighbours read the same numbers of x
  x += batch_offset(p, blockIdx.y, p.a_batch);
  w += batch_offset(p, blockIdx.y, p.b_batch);
  ReaderOfW<ALONG_K, WHOLE, float> reader(w, p, (blockIdx.x * 8 + of_lines) * V, warp * kChunk<float> + of_k * V);
  float sum[ROWS][V];
  DL_UNROLL
  for (int r = 0; r < ROWS; ++r) DL_UNROLL
  for (int i = 0; i < V; ++i) sum[r][i] = 0.0f;
  DL_ROLLED
  for (int chunk = warp * kChunk<float>; chunk < p.k; chunk += kWarps * kChunk<float>) {
    Vec<float, V> of_w[V];
    reader.read(p.k - chunk - of_k * V, of_w);
    DL_UNROLL
    for (int i = lane; i < ROWS * 4; i += kWarp) rows[warp][i] = read_x(x, s, i / 4, chunk + i % 4 * V);
    __syncwarp();
    DL_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const Vec<float, V> of_x = rows[warp][r * 4 + of_k];
      DL_UNROLL
      for (int j = 0; j < V; ++j) DL_UNROLL
      for (int i = 0; i < V; ++i) sum[r][i] = fmaf(of_x.at[j], ALONG_K ? of_w[i].at[j] : of_w[j].at[i], sum[r][i]);
    }
    __syncwarp();
  }
  DL_UNROLL
  for (int r = 0; r < ROWS; r += kAtOnce) {
    Vec<float, V> own;  // of row r + of_k
    DL_UNROLL
    for (int e = 0; e < kAtOnce; ++e) DL_UNROLL
    for (int i = 0; i < V; ++i) {
      float total = sum[r + e][i];
      DL_UNROLL
      for (int mask = 4; mask > 1; mask /= 2) total += lane_xor(total, mask);
      if (of_k == e) own.at[i] = total;
    }
    if (of_k < kAtOnce) part[warp][r + of_k][of_lines] = own;
  }
  finish(s, bias, y, part);
}

#define DL_SKINNY(name, ROWS, ALONG_K, WHOLE)                                                     \
  extern "C" __global__ void __launch_bounds__(256, ROWS == 16 ? 2 : 3)                           \
      gemm_skinny_##name(const float* x, const float* w, const float* bias, float* y, Skinny s) { \
    skinny<ROWS, ALONG_K, WHOLE>(x, w, bias, y, s);                                               \
  }                                                                                               \
  DL_EXPORT(gemm_skinny_##name)
#define DL_SKINNY_ROWS(ROWS)                       \
  DL_SKINNY(k_f32_##ROWS, ROWS, true, true)        \
  DL_SKINNY(n_f32_##ROWS, ROWS, false, true)       \
  DL_SKINNY(k_f32_##ROWS##_any, ROWS, true, false) \
  DL_SKINNY(n_f32_##ROWS##_any, ROWS, false, false)
DL_SKINNY_ROWS(1)
DL_SKINNY_ROWS(4)
DL_SKINNY_ROWS(16)
