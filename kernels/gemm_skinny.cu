// Products with few rows: every element of the large operand W is read once, straight into registers.
//
// y[r, n] = activation(alpha * sum over k of x[r, k] W[n, k] + bias) for r < 1, 4 or 16.
// gemm_skinny_k_<dtype>_<rows>(x, w, bias, y, skinny): k contiguous in W; a warp computes a few lines n.
//   Grid: lines / (8 x kLines), batches; block: 256; shared: the sums of a warp.
// gemm_skinny_n_<dtype>_<rows>(x, w, bias, y, skinny): n contiguous in W; a thread computes a vector of lines over
// every
//   eighth k, the eight warps of a block add up. Grid: lines / (32 x vector), batches; block: 256.
#include "gemm.cuh"

constexpr int kWarps = 8;

struct Skinny {
  Product product;    // m rows of x, n lines of W; lda, ldb: from one line to the next
  int x_row, x_k;     // elements between rows and between k's of x
  int y_row, y_line;  // elements between rows and between lines of y
  int bias_by_row;    // whether bias belongs to rows of x
  int vectors;        // whether W (and x, where x_k is 1) can be read in vectors
};

// V elements of a row of x from k on.
template <int V, class T>
DL_DEVICE void read_row(const T* x, const Skinny& s, int row, int k, float (&to)[V]) {
  const T* from = x + (long long)least(row, s.product.m - 1) * s.x_row + (long long)k * s.x_k;
  if (s.vectors && s.x_k == 1) {
    const Vec<T, V> v = *reinterpret_cast<const Vec<T, V>*>(from);
    DL_UNROLL
    for (int j = 0; j < V; ++j) to[j] = widen(v.at[j]);
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) to[j] = k + j < s.product.k ? widen(from[(long long)j * s.x_k]) : 0.0f;
  }
}

template <int V, class T>
DL_DEVICE void read_vector(const T* from, bool vectors, int count, float (&to)[V]) {
  Vec<T, V> v;
  if (vectors) {
    v = *reinterpret_cast<const Vec<T, V>*>(from);
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) v.at[j] = j < count ? from[j] : T{};
  }
  DL_UNROLL
  for (int j = 0; j < V; ++j) to[j] = widen(v.at[j]);
}

template <class T>
DL_DEVICE void store(const Skinny& s, const T* bias, T* y, int row, int line, float sum) {
  if (row >= s.product.m || line >= s.product.n) return;
  const float shift = bias ? widen(bias[s.bias_by_row ? row : line]) : 0.0f;
  y[(long long)row * s.y_row + (long long)line * s.y_line] =
      narrow<T>(activated(float(s.product.alpha) * sum + shift, s.product.activation));
}

template <int ROWS, class T>
DL_DEVICE void along_k(const T* x, const T* w, const T* bias, T* y, const Skinny& s) {
  constexpr int V = kPerVector<T>, kLines = ROWS == 16 ? 2 : 4;
  __shared__ float shared[kWarps][ROWS * kLines];
  const Product& p = s.product;
  const int lane = threadIdx.x % 32, first = (blockIdx.x * kWarps + threadIdx.x / 32) * kLines;
  x += batch_offset(p, blockIdx.y, p.a_batch);
  w += batch_offset(p, blockIdx.y, p.b_batch);
  float sum[ROWS][kLines];
  DL_UNROLL
  for (int r = 0; r < ROWS; ++r) DL_UNROLL
  for (int i = 0; i < kLines; ++i) sum[r][i] = 0.0f;
  DL_ROLLED
  for (int k = lane * V; k < p.k; k += 32 * V) {
    float of_w[kLines][V], of_x[V];
    DL_UNROLL
    for (int i = 0; i < kLines; ++i)
      read_vector(w + (long long)least(first + i, p.n - 1) * p.ldb + k, s.vectors, p.k - k, of_w[i]);
    DL_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      read_row(x, s, r, k, of_x);
      DL_UNROLL
      for (int i = 0; i < kLines; ++i) DL_UNROLL
      for (int j = 0; j < V; ++j) sum[r][i] = fmaf(of_x[j], of_w[i][j], sum[r][i]);
    }
  }
  float* const totals = shared[threadIdx.x / 32];
  DL_UNROLL
  for (int r = 0; r < ROWS; ++r) DL_UNROLL
  for (int i = 0; i < kLines; ++i) {
    const float total = dl::warp_sum(sum[r][i]);
    if (lane == 0) totals[r * kLines + i] = total;
  }
  __syncwarp();
  if (lane < ROWS * kLines)
    store(s, bias, y + batch_offset(p, blockIdx.y, p.c_batch), lane / kLines, first + lane % kLines, totals[lane]);
}

template <int ROWS, class T>
DL_DEVICE void along_n(const T* x, const T* w, const T* bias, T* y, const Skinny& s) {
  constexpr int V = kPerVector<T>, kAcross = 32 * V;
  __shared__ float part[kWarps][kAcross];
  const Product& p = s.product;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * kAcross, line = first + lane * V;
  x += batch_offset(p, blockIdx.y, p.a_batch);
  w += batch_offset(p, blockIdx.y, p.b_batch);
  float sum[ROWS][V];
  DL_UNROLL
  for (int r = 0; r < ROWS; ++r) DL_UNROLL
  for (int j = 0; j < V; ++j) sum[r][j] = 0.0f;
  DL_ROLLED
  for (int k = warp; k < p.k; k += kWarps) {
    float of_w[V];
    const int here = s.vectors ? least(line, p.n - V) : line;
    read_vector(w + (long long)k * p.ldb + here, s.vectors, p.n - here, of_w);
    DL_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const float of_x = widen(x[(long long)least(r, p.m - 1) * s.x_row + (long long)k * s.x_k]);
      DL_UNROLL
      for (int j = 0; j < V; ++j) sum[r][j] = fmaf(of_x, of_w[j], sum[r][j]);
    }
  }
  DL_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    DL_UNROLL
    for (int j = 0; j < V; ++j) part[warp][j * 32 + lane] = sum[r][j];
    __syncthreads();
    DL_ROLLED
    for (int i = threadIdx.x; i < kAcross; i += 32 * kWarps) {
      float total = 0.0f;
      DL_UNROLL
      for (int from = 0; from < kWarps; ++from) total += part[from][i];
      store(s, bias, y + batch_offset(p, blockIdx.y, p.c_batch), r, first + i % 32 * V + i / 32, total);
    }
    __syncthreads();
  }
}

#define DL_SKINNY(along, letter, T, suffix, ROWS)                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                     \
      gemm_skinny_##letter##_##suffix##_##ROWS(const T* x, const T* w, const T* bias, T* y, Skinny s) { \
    along<ROWS>(x, w, bias, y, s);                                                                      \
  }                                                                                                     \
  DL_EXPORT(gemm_skinny_##letter##_##suffix##_##ROWS)
#define DL_SKINNY_ROWS(T, suffix)      \
  DL_SKINNY(along_k, k, T, suffix, 1)  \
  DL_SKINNY(along_k, k, T, suffix, 4)  \
  DL_SKINNY(along_k, k, T, suffix, 16) \
  DL_SKINNY(along_n, n, T, suffix, 1)  \
  DL_SKINNY(along_n, n, T, suffix, 4)  \
  DL_SKINNY(along_n, n, T, suffix, 16)
DL_SKINNY_ROWS(float, f32)
DL_SKINNY_ROWS(__half, f16)
DL_SKINNY_ROWS(__nv_bfloat16, bf16)
