// Templates of element-wise kernels: y[i] = f(x0[i], ...) of broadcast operands with any strides, y contiguous.
//
// DL_UNARY_KERNEL and its like make `kernel(x0[, x1[, x2]], y, walk)` of an expression in a, b and c, elements in the
// wide type R of T; a null operand is the number in walk.scalar.
// Grid: any, threads stride over 16-byte chunks of the output; block: 256; no shared memory.
// Every access of a contiguous operand moves 16 bytes where walk.vectors says that rows allow it.
#pragma once
#include "strided.cuh"

// A chunk of V elements of the output, `count` of them inside its row, and where each operand's chunk begins.
template <int N>
struct Chunk {
  long long out, from[N];
  int count;
};

// f(chunk) of each of the thread's chunks.
template <int V, int N, class F>
DL_DEVICE void each_chunk(const Walk<N>& walk, F f) {
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < walk.chunks; i += gridDim.x * blockDim.x) {
    const unsigned row = i / walk.chunks_per_row;
    const long long first = (long long)(i - row * walk.chunks_per_row) * V;
    Chunk<N> chunk;
    chunk.count = walk.inner - first < V ? int(walk.inner - first) : V;
    chunk.out = row * walk.inner + first;
    row_offsets(walk, row, chunk.from);
    DL_UNROLL
    for (int k = 0; k < N; ++k) chunk.from[k] += first * walk.inner_stride[k];
    f(chunk);
  }
}

// Operand k's elements of a chunk.
template <int K, class T, int V, int N>
DL_DEVICE void load_operand(const T* x, const Walk<N>& walk, const Chunk<N>& chunk, Vec<T, V>& in) {
  load_chunk(x, chunk.from[K], walk.inner_stride[K], chunk.count, walk.vectors, walk.scalar[K], in);
}

template <class T, class U, int N, class F>
DL_DEVICE void map(const T* const (&x)[N], U* y, const Walk<N>& walk, F f) {
  constexpr int V = kPerVector<T>;
  each_chunk<V>(walk, [&](const Chunk<N>& chunk) {
    Vec<T, V> in[N];
    load_operand<0>(x[0], walk, chunk, in[0]);
    if constexpr (N > 1) load_operand<1>(x[1], walk, chunk, in[1]);
    if constexpr (N > 2) load_operand<2>(x[2], walk, chunk, in[2]);
    Vec<U, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = f(in, j);
    store_chunk(y, chunk.out, chunk.count, walk.vectors, out);
  });
}

template <class R>
DL_DEVICE R bounded(R a, R low, R high) {
  const R raised = a < low ? low : a;
  return raised > high ? high : raised;
}

#define DL_UNARY_KERNEL(T, kernel, value)                                                                             \
  extern "C" __global__ void __launch_bounds__(256) kernel(const T* x0, T* y, const __grid_constant__ Walk<1> walk) { \
    map<T, T, 1>({x0}, y, walk, [](const auto& in, int j) {                                                           \
      using R = wide<T>;                                                                                              \
      const R a = widen(in[0].at[j]);                                                                                 \
      return narrow<T>(R(value));                                                                                     \
    });                                                                                                               \
  }                                                                                                                   \
  DL_EXPORT(kernel)

#define DL_BINARY_KERNEL(T, kernel, value)                                           \
  extern "C" __global__ void __launch_bounds__(256)                                  \
      kernel(const T* x0, const T* x1, T* y, const __grid_constant__ Walk<2> walk) { \
    map<T, T, 2>({x0, x1}, y, walk, [](const auto& in, int j) {                      \
      using R = wide<T>;                                                             \
      const R a = widen(in[0].at[j]), b = widen(in[1].at[j]);                        \
      return narrow<T>(R(value));                                                    \
    });                                                                              \
  }                                                                                  \
  DL_EXPORT(kernel)

#define DL_TERNARY_KERNEL(T, kernel, value)                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                               \
      kernel(const T* x0, const T* x1, const T* x2, T* y, const __grid_constant__ Walk<3> walk) { \
    map<T, T, 3>({x0, x1, x2}, y, walk, [](const auto& in, int j) {                               \
      using R = wide<T>;                                                                          \
      const R a = widen(in[0].at[j]), b = widen(in[1].at[j]), c = widen(in[2].at[j]);             \
      return narrow<T>(R(value));                                                                 \
    });                                                                                           \
  }                                                                                               \
  DL_EXPORT(kernel)

#define DL_COMPARISON_KERNEL(T, kernel, value)                                          \
  extern "C" __global__ void __launch_bounds__(256)                                     \
      kernel(const T* x0, const T* x1, bool* y, const __grid_constant__ Walk<2> walk) { \
    map<T, bool, 2>({x0, x1}, y, walk, [](const auto& in, int j) {                      \
      const wide<T> a = widen(in[0].at[j]), b = widen(in[1].at[j]);                     \
      return bool(value);                                                               \
    });                                                                                 \
  }                                                                                     \
  DL_EXPORT(kernel)

#define DL_PREDICATE_KERNEL(T, kernel, value)                              \
  extern "C" __global__ void __launch_bounds__(256)                        \
      kernel(const T* x0, bool* y, const __grid_constant__ Walk<1> walk) { \
    map<T, bool, 1>({x0}, y, walk, [](const auto& in, int j) {             \
      using R = wide<T>;                                                   \
      const R a = widen(in[0].at[j]);                                      \
      return bool(value);                                                  \
    });                                                                    \
  }                                                                        \
  DL_EXPORT(kernel)
