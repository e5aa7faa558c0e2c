// Products of matrices: the problem, who computes which tile of C, and what becomes of a finished tile.
//
// The loops over k stand in gemm_simt.cuh (multiply-adds) and gemm_mma.cuh (tensor cores). Both take their operands
// through loaders, so that a convolution is the same loop with loaders that gather.
#pragma once
#include "activation.cuh"

constexpr int kBand = 8;  // tiles of C that neighbouring blocks compute one below the other, for the L2 cache

// C[m, n] = activation(alpha * sum over k of A[m, k] B[k, n] + bias), for a batch of A, B and C.
struct Product {
  int m, n, k;
  int slice;               // how many k one split adds up: whole slabs
  int splits;              // more than one: blocks leave their sums in `partial`, gemm_reduce adds them up in order
  int inner;               // batches are two nested loops; length of the inner one
  unsigned lda, ldb, ldc;  // elements from one line of a matrix to the next
  int activation;
  int vectors;  // whether rows of C take whole vectors
  int batches;
  long long a_batch[2], b_batch[2], c_batch[2];  // elements from one batch to the next, in the outer and inner loop
  double alpha;
};

// What one block computes.
struct Share {
  int row, column;  // where its tile begins
  int k_begin, k_end;
  int batch, split;
};

DL_DEVICE int least(int a, int b) { return a < b ? a : b; }
DL_DEVICE int rounded_up(int a, int b) { return (a + b - 1) / b; }

// Blocks are numbered over tiles, then splits, then batches.
template <int TILE_M, int TILE_N>
DL_DEVICE Share share_of(const Product& p) {
  const unsigned down = rounded_up(p.m, TILE_M), across = rounded_up(p.n, TILE_N);
  const unsigned z = blockIdx.x / (down * across), tile = blockIdx.x - z * (down * across);
  const unsigned band = tile / (kBand * across), within = tile - band * (kBand * across);
  const unsigned height = least(down - band * kBand, kBand);
  Share s;
  s.row = (band * kBand + within % height) * TILE_M;
  s.column = within / height * TILE_N;
  s.batch = z / p.splits;
  s.split = z - s.batch * p.splits;
  s.k_begin = s.split * p.slice;
  s.k_end = least(s.k_begin + p.slice, p.k);
  return s;
}

DL_DEVICE long long batch_offset(const Product& p, int batch, const long long (&stride)[2]) {
  const int outer = batch / p.inner;
  return outer * stride[0] + (batch - outer * p.inner) * stride[1];
}

// C in rows, bias along them.
template <class T>
struct RowMajor {
  using Element = T;
  T* c;
  const T* bias;
  unsigned ld;
  int n;
  DL_DEVICE RowMajor(const Product& p, int batch, T* c, const T* bias)
      : c(c + batch_offset(p, batch, p.c_batch)), bias(bias), ld(p.ldc), n(p.n) {}
  DL_DEVICE bool has(int column) const { return column < n; }
  DL_DEVICE T* at(int row, int column) const { return c + (long long)row * ld + column; }
  DL_DEVICE wide<T> bias_of(int, int column) const { return bias ? widen(bias[column]) : wide<T>(0); }
};

// V neighbouring numbers of shared memory. Of 32 bytes, every other group of four lanes takes the second half first, so
// that eight lanes meet all banks.
template <class R, int V>
DL_DEVICE void read_sums(const R* from, R (&to)[V]) {
  using Chunk = Vec<R, kPerVector<R>>;
  if constexpr (V == kPerVector<R>) {
    const Chunk v = *reinterpret_cast<const Chunk*>(from);
    DL_UNROLL
    for (int j = 0; j < V; ++j) to[j] = v.at[j];
  } else {
    static_assert(V == 2 * kPerVector<R>, "16 or 32 bytes");
    const bool swapped = threadIdx.x >> 2 & 1;
    const Chunk v = *reinterpret_cast<const Chunk*>(from + (swapped ? V / 2 : 0));
    const Chunk w = *reinterpret_cast<const Chunk*>(from + (swapped ? 0 : V / 2));
    DL_UNROLL
    for (int j = 0; j < V / 2; ++j) {
      to[j] = swapped ? w.at[j] : v.at[j];
      to[j + V / 2] = swapped ? v.at[j] : w.at[j];
    }
  }
}

// The last step for as many elements of a row as a vector holds; `sums` lies in shared memory and belongs to this
// thread.
template <class Out, class R>
DL_DEVICE void emit(const Product& p, const Out& out, R* sums, int row, int column) {
  using T = typename Out::Element;
  constexpr int V = kPerVector<T>;
  const R alpha = R(p.alpha);
  if (p.activation > kRelu) {
    DL_ROLLED
    for (int j = 0; j < V; ++j)
      sums[j] = activated(alpha * sums[j] + out.bias_of(row, least(column + j, p.n - 1)), p.activation);
  }
  Vec<R, V> x;
  read_sums(sums, x.at);
  Vec<T, V> y;
  DL_UNROLL
  for (int j = 0; j < V; ++j) {
    R value = x.at[j];
    if (p.activation <= kRelu) value = alpha * value + out.bias_of(row, least(column + j, p.n - 1));
    if (p.activation == kRelu) value = relu(value);
    y.at[j] = narrow<T>(value);
  }
  if (p.vectors) {
    if (out.has(column)) *reinterpret_cast<Vec<T, V>*>(out.at(row, column)) = y;
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j)
      if (out.has(column + j)) *out.at(row, column + j) = y.at[j];
  }
}

// Sums of one split, in f32 (f64): partial[batch][split][m][n].
template <int V, class R>
DL_DEVICE void keep(const Product& p, R* partial, const Share& s, const R* sums, int row, int column) {
  R* to = partial + (((long long)s.batch * p.splits + s.split) * p.m + row) * p.n + column;
  if (p.n % V == 0) {
    *reinterpret_cast<Vec<R, V>*>(to) = *reinterpret_cast<const Vec<R, V>*>(sums);
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j)
      if (column + j < p.n) to[j] = sums[j];
  }
}

// Passes on ROWS rows of a tile that lie in shared memory, STRIDE apart; row(i) says which row of C the i-th one is.
template <int THREADS, int ROWS, int TILE_N, int STRIDE, class Out, class R, class F>
DL_DEVICE void emit_rows(const Product& p, const Share& s, const Out& out, R* partial, R* rows, F row) {
  constexpr int V = kPerVector<typename Out::Element>, kPerRow = TILE_N / V;
  DL_ROLLED
  for (int i = threadIdx.x; i < ROWS * kPerRow; i += THREADS) {
    const int own = i / kPerRow, in_tile = i % kPerRow * V;
    const int m = s.row + row(own), n = s.column + in_tile;
    if (m >= p.m || n >= p.n) continue;
    R* sums = rows + own * STRIDE + in_tile;
    if (p.splits > 1) keep<V>(p, partial, s, sums, m, n);
    else emit(p, out, sums, m, n);
  }
}

// Adds up what the splits left, in their order. Blocks of 256 threads stride over vectors of C.
template <class Out, class R, class F>
DL_DEVICE void reduce_splits(const Product& p, const R* partial, F out_of) {
  constexpr int V = kPerVector<typename Out::Element>;
  __shared__ Vec<R, V> scratch[256];
  R* sums = scratch[threadIdx.x].at;
  const int per_row = rounded_up(p.n, V);
  const long long count = (long long)p.batches * p.m * per_row, size = (long long)p.m * p.n;
  DL_ROLLED
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const long long line = i / per_row;
    const int batch = int(line / p.m), row = int(line - (long long)batch * p.m), column = int(i - line * per_row) * V;
    const R* from = partial + (long long)batch * p.splits * size + (long long)row * p.n + column;
    Vec<R, V> sum{};
    DL_ROLLED
    for (int split = 0; split < p.splits; ++split, from += size) {
      Vec<R, V> next{};
      if (p.n % V == 0) {
        next = *reinterpret_cast<const Vec<R, V>*>(from);
      } else {
        DL_UNROLL
        for (int j = 0; j < V; ++j)
          if (column + j < p.n) next.at[j] = from[j];
      }
      DL_UNROLL
      for (int j = 0; j < V; ++j) sum.at[j] += next.at[j];
    }
    scratch[threadIdx.x] = sum;
    emit(p, out_of(batch, column), sums, row, column);
  }
}
