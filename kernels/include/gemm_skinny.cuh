// Products with few rows: the problem, how W and x are read, and how a block adds up what its warps have.
//
// y[r, n] = activation(alpha * sum over k of x[r, k] W[n, k] + bias). Every element of the large operand W is read
// once, straight into registers. A block of 8 warps computes 8 V lines n, V being the numbers in 16 bytes. Its warps
// take turns at chunks of 4 V k's; of a chunk, a lane has V k's for V lines: as V vectors along k or along n, whichever
// is contiguous. So what is added to what, and when, does not depend on layouts and alignments.
#pragma once
#include "gemm.cuh"
#include "warp.cuh"

constexpr int kWarps = 8, kThreads = kWarp * kWarps;
template <class T>
constexpr int kLines = 8 * kPerVector<T>;
template <class T>
constexpr int kChunk = 4 * kPerVector<T>;

struct Skinny {
  Product product;    // m rows of x, n lines of W; ldb: from one line (or k) of W to the next
  int x_row, x_k;     // elements between rows and between k's of x
  int y_row, y_line;  // elements between rows and between lines of y
  int bias_by_row;    // whether bias belongs to rows of x
  int x_vectors;      // whether x_k is 1 and rows of x are whole vectors that begin at multiples of 16 bytes
};

// Numbers `step` apart, as many as are left; zeros after them.
template <class T>
DL_DEVICE Vec<T, kPerVector<T>> collected(const T* from, long long step, int left) {
  Vec<T, kPerVector<T>> v;
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) v.at[j] = j < left ? from[j * step] : T{};
  return v;
}

template <class T>
DL_DEVICE Vec<T, kPerVector<T>> vector_at(const T* from) {
  return *reinterpret_cast<const Vec<T, kPerVector<T>>*>(from);
}

// A thread's V lines of W, or V k's of W: read in vectors if WHOLE, else of every size and at every alignment.
template <bool ALONG_K, bool WHOLE, class T>
struct ReaderOfW {
  static constexpr int V = kPerVector<T>;
  const T* from;
  unsigned offset[V];
  long long step;  // from one chunk of the warp to the next
  int lines;       // from this thread's first one on

  DL_DEVICE ReaderOfW(const T* w, const Product& p, int line, int k) {
    const int last = ALONG_K ? p.n - 1 : WHOLE ? p.n - V : line;  // nobody stores what lines past the end give
    const int first = least(line, last);
    from = w + (ALONG_K ? (long long)first * p.ldb + k : (long long)k * p.ldb + first);
    lines = p.n - first;
    step = (long long)kWarps * kChunk<T> * (ALONG_K ? 1u : p.ldb);
    DL_UNROLL
    for (int i = 0; i < V; ++i) offset[i] = (ALONG_K ? least(line + i, last) - first : i) * p.ldb;
  }
  // left: how many k's there are from this thread's on
  DL_DEVICE void read(int left, Vec<T, V> (&to)[V]) {
    DL_UNROLL
    for (int i = 0; i < V; ++i)
      if constexpr (WHOLE) to[i] = (ALONG_K ? 0 : i) < left ? vector_at(from + offset[i]) : Vec<T, V>{};
      else to[i] = collected(from + offset[i], 1, ALONG_K ? left : i < left ? lines : 0);
    from += step;
  }
};

// V k's of a row of x; rows past the end repeat the last one.
template <class T>
DL_DEVICE Vec<T, kPerVector<T>> read_x(const T* x, const Skinny& s, int row, int k) {
  const T* from = x + (long long)least(row, s.product.m - 1) * s.x_row + (long long)k * s.x_k;
  const int left = s.product.k - k;
  return s.x_vectors && left > 0 ? vector_at(from) : collected(from, s.x_k, left);
}

// Adds up what the warps have and stores it.
template <int ROWS, int STRIDE, class T>
DL_DEVICE void finish(const Skinny& s, const T* bias, T* y, const Vec<float, 4> (&part)[kWarps][ROWS][STRIDE]) {
  const Product& p = s.product;
  y += batch_offset(p, blockIdx.y, p.c_batch);
  __syncthreads();
  DL_ROLLED
  for (int i = threadIdx.x; i < ROWS * kLines<T>; i += kThreads) {
    const int row = i / kLines<T>, own = i % kLines<T>, line = blockIdx.x * kLines<T> + own;
    if (row >= p.m || line >= p.n) continue;
    float sum = 0.0f;
    DL_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) sum += part[warp][row][own / 4].at[own % 4];
    const float shift = bias ? widen(bias[s.bias_by_row ? row : line]) : 0.0f;
    y[(long long)row * s.y_row + (long long)line * s.y_line] =
        narrow<T>(activated(float(p.alpha) * sum + shift, p.activation));
  }
}
