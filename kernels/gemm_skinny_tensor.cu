// Products with few rows in f16 and bf16, on tensor cores.
//
// y[r, n] = activation(alpha * sum over k of x[r, k] W[n, k] + bias) for r < 8 or 16.
// gemm_skinny_<k|n>_<dtype>_<rows>(x, w, bias, y, skinny): k or n is contiguous in W, in lines of whole vectors at
//   multiples of 16 bytes; names that end in _any take every size and alignment.
//   Grid: lines / 64, batches; block: 256; shared: the sums of every warp.
//
// 16 lines of W times 8 rows of x are one mma. It takes any 16 k's as long as both operands name the same ones, so that
// what a thread reads as 16 bytes are the fragments of two mma.
#include "gemm_mma.cuh"
#include "gemm_skinny.cuh"

// Pairs of neighbours as registers hold them.
template <class T>
DL_DEVICE Vec<unsigned, 4> pairs(const Vec<T, 8>& v) {
  Vec<unsigned, 4> found;
  DL_UNROLL
  for (int i = 0; i < 4; ++i) found.at[i] = v.at[2 * i].bits | unsigned(v.at[2 * i + 1].bits) << 16;
  return found;
}

// The fragment of lines 2 i and 2 i + 1 for one half of the thread's k's, from vectors along k or along n.
template <bool ALONG_K>
DL_DEVICE void fragment_of(const Vec<unsigned, 4> (&w)[8], int i, int half, unsigned (&fragment)[4]) {
  DL_UNROLL
  for (int pair = 0; pair < 2; ++pair) {
    const int k = 4 * half + 2 * pair;
    DL_UNROLL
    for (int line = 0; line < 2; ++line)
      fragment[2 * pair + line] =
          ALONG_K ? w[2 * i + line].at[k / 2] : __byte_perm(w[k].at[i], w[k + 1].at[i], line ? 0x7632 : 0x5410);
  }
}

template <int ROWS, bool ALONG_K, bool WHOLE, class T>
DL_DEVICE void skinny(const T* x, const T* w, const T* bias, T* y, const Skinny& s) {
  constexpr int V = kPerVector<T>;
  __shared__ Vec<float, 4> part[kWarps][ROWS][kLines<T> / 4 + 1];
  const Product& p = s.product;
  const int warp = threadIdx.x / kWarp, group = threadIdx.x % kWarp / 4, of_k = threadIdx.x % 4;
  x += batch_offset(p, blockIdx.y, p.a_batch);
  w += batch_offset(p, blockIdx.y, p.b_batch);
  ReaderOfW<ALONG_K, WHOLE, T> reader(w, p, (blockIdx.x * 8 + group) * V, warp * kChunk<T> + of_k * V);
  float sum[ROWS / 8][V / 2][4];  // of rows 2 of_k and 2 of_k + 1: the first, then the second of two lines
  DL_UNROLL
  for (int r = 0; r < ROWS / 8; ++r) DL_UNROLL
  for (int i = 0; i < V / 2; ++i) DL_UNROLL
  for (int e = 0; e < 4; ++e) sum[r][i][e] = 0.0f;
  DL_ROLLED
  for (int chunk = warp * kChunk<T>; chunk < p.k; chunk += kWarps * kChunk<T>) {
    const int k = chunk + of_k * V;
    Vec<unsigned, 4> of_w[V], of_x[ROWS / 8];
    DL_UNROLL
    for (int r = 0; r < ROWS / 8; ++r) of_x[r] = pairs(read_x(x, s, r * 8 + group, k));
    Vec<T, V> vectors[V];
    reader.read(p.k - k, vectors);
    DL_UNROLL
    for (int i = 0; i < V; ++i) of_w[i] = pairs(vectors[i]);
    DL_UNROLL
    for (int half = 0; half < 2; ++half) DL_UNROLL
    for (int i = 0; i < V / 2; ++i) {
      unsigned lines[4];
      fragment_of<ALONG_K>(of_w, i, half, lines);
      DL_UNROLL
      for (int r = 0; r < ROWS / 8; ++r) {
        const unsigned row[2] = {of_x[r].at[2 * half], of_x[r].at[2 * half + 1]};
        multiply_add(sum[r][i], lines, row, T{});
      }
    }
  }
  const bool odd = group % 2;  // these groups store their second four lines first, so that eight lanes meet all banks
  DL_UNROLL
  for (int r = 0; r < ROWS; r += 4) DL_UNROLL
  for (int turn = 0; turn < 2; ++turn) {
    Vec<float, 4> four;
    DL_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float (&of)[V / 2][4] = sum[r / 8];
      const int e = 2 * (i % 2) + r / 4 % 2;
      four.at[i] = (turn == 0) == odd ? of[2 + i / 2][e] : of[i / 2][e];
    }
    part[warp][r / 8 * 8 + 2 * of_k + r / 4 % 2][2 * group + (turn ^ odd)] = four;
  }
  finish(s, bias, y, part);
}

#define DL_SKINNY(name, T, ROWS, ALONG_K, WHOLE)                                  \
  extern "C" __global__ void __launch_bounds__(256, WHOLE ? 2 : 1)                \
      gemm_skinny_##name(const T* x, const T* w, const T* bias, T* y, Skinny s) { \
    skinny<ROWS, ALONG_K, WHOLE>(x, w, bias, y, s);                               \
  }                                                                               \
  DL_EXPORT(gemm_skinny_##name)
#define DL_SKINNY_ROWS(T, suffix, ROWS)                      \
  DL_SKINNY(k_##suffix##_##ROWS, T, ROWS, true, true)        \
  DL_SKINNY(n_##suffix##_##ROWS, T, ROWS, false, true)       \
  DL_SKINNY(k_##suffix##_##ROWS##_any, T, ROWS, true, false) \
  DL_SKINNY(n_##suffix##_##ROWS##_any, T, ROWS, false, false)
DL_SKINNY_ROWS(__half, f16, 8)
DL_SKINNY_ROWS(__half, f16, 16)
DL_SKINNY_ROWS(__nv_bfloat16, bf16, 8)
DL_SKINNY_ROWS(__nv_bfloat16, bf16, 16)
