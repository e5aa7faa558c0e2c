// Copies: to contiguous memory from any strides, to another dtype, and the tiled transpose.
//
// copy_strided_b<bytes>(x, y, walk): y contiguous, elements of 1, 2, 4 or 8 bytes whatever they mean.
// copy_cast_<from>_<to>(x, y, walk): the same with a conversion; floats to whole numbers cut towards zero.
//   Grid: any, threads stride over chunks; block: 256; no shared memory.
// copy_transpose_b<bytes>(x, y, rows, columns, vectors_in, vectors_out): y[b][c][r] = x[b][r][c] of contiguous matrices
//   of elements of 2, 4 or 8 bytes. vectors_in, vectors_out: whether rows of x, of y begin at multiples of 16 bytes.
//   Grid: (columns / S, rows / S, b), rounded up; block: 128; shared: a tile of S rows of 128 bytes, S = 128 / bytes.
#include "strided.cuh"

template <class T, class U, class F>
DL_DEVICE void copy(const T* x, U* y, const Walk<1>& walk, F convert) {
  constexpr int V = kPerVector<T>;
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < walk.chunks; i += gridDim.x * blockDim.x) {
    const unsigned row = i / walk.chunks_per_row;
    const long long first = (long long)(i - row * walk.chunks_per_row) * V;
    const int count = walk.inner - first < V ? int(walk.inner - first) : V;
    long long offset[1];
    row_offsets(walk, row, offset);
    Vec<T, V> in;
    load_chunk(x, offset[0] + first * walk.inner_stride[0], walk.inner_stride[0], count, walk.vectors, 0.0, in);
    Vec<U, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = convert(in.at[j]);
    store_chunk(y, row * walk.inner + first, count, walk.vectors, out);
  }
}

#define DL_COPY_KERNEL(T, bytes)                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                   \
      copy_strided_b##bytes(const T* x, T* y, const __grid_constant__ Walk<1> walk) { \
    copy(x, y, walk, [](T value) { return value; });                                  \
  }                                                                                   \
  DL_EXPORT(copy_strided_b##bytes)
DL_COPY_KERNEL(unsigned char, 1)
DL_COPY_KERNEL(unsigned short, 2)
DL_COPY_KERNEL(unsigned, 4)
DL_COPY_KERNEL(unsigned long long, 8)

// ---- conversions

template <class T>
DL_DEVICE T plain(T x) {
  return x;
}
DL_DEVICE float plain(__half x) { return __half2float(x); }
DL_DEVICE float plain(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class U, class T>
struct Convert {
  DL_DEVICE U operator()(T x) const { return U(plain(x)); }
};
template <class T>
struct Convert<bool, T> {
  DL_DEVICE bool operator()(T x) const { return plain(x) != 0; }
};
template <class T>
struct Convert<__half, T> {
  DL_DEVICE __half operator()(T x) const { return __float2half(float(plain(x))); }
};
template <class T>
struct Convert<__nv_bfloat16, T> {
  DL_DEVICE __nv_bfloat16 operator()(T x) const { return __float2bfloat16(float(plain(x))); }
};

#define DL_CAST_KERNEL(T, from, U, to)                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                     \
      copy_cast_##from##_##to(const T* x, U* y, const __grid_constant__ Walk<1> walk) { \
    copy(x, y, walk, Convert<U, T>{});                                                  \
  }                                                                                     \
  DL_EXPORT(copy_cast_##from##_##to)
#define DL_CAST_KERNELS(T, t, U, u) \
  DL_CAST_KERNEL(T, t, U, u)        \
  DL_CAST_KERNEL(U, u, T, t)
DL_CAST_KERNELS(float, f32, double, f64)
DL_CAST_KERNELS(float, f32, __half, f16)
DL_CAST_KERNELS(float, f32, __nv_bfloat16, bf16)
DL_CAST_KERNELS(float, f32, int, i32)
DL_CAST_KERNELS(float, f32, long long, i64)
DL_CAST_KERNELS(float, f32, bool, b8)
DL_CAST_KERNELS(double, f64, __half, f16)
DL_CAST_KERNELS(double, f64, __nv_bfloat16, bf16)
DL_CAST_KERNELS(double, f64, int, i32)
DL_CAST_KERNELS(double, f64, long long, i64)
DL_CAST_KERNELS(double, f64, bool, b8)
DL_CAST_KERNELS(__half, f16, __nv_bfloat16, bf16)
DL_CAST_KERNELS(__half, f16, int, i32)
DL_CAST_KERNELS(__half, f16, long long, i64)
DL_CAST_KERNELS(__half, f16, bool, b8)
DL_CAST_KERNELS(__nv_bfloat16, bf16, int, i32)
DL_CAST_KERNELS(__nv_bfloat16, bf16, long long, i64)
DL_CAST_KERNELS(__nv_bfloat16, bf16, bool, b8)
DL_CAST_KERNELS(int, i32, long long, i64)
DL_CAST_KERNELS(int, i32, bool, b8)
DL_CAST_KERNELS(long long, i64, bool, b8)

// ---- transpose

constexpr int kThreads = 128, kRow = 8;  // vectors of a row of a tile

// Where a tile holds an element: the vectors of a row change places so that the lanes of a warp, eight along a row or a
// column and four across, meet in no bank.
template <class T>
DL_DEVICE int slot(int row, int column) {
  constexpr int V = kPerVector<T>;
  return (row * kRow + (column / V ^ row / V ^ row % V * (kRow / V))) * V + column % V;
}

// f(row, lane) for the eight lanes of each row of a tile.
template <int SIDE, class F>
DL_DEVICE void each_strip(const F& f) {
  DL_UNROLL
  for (int k = 0; k < SIDE * kRow / kThreads; ++k) f(k * (kThreads / kRow) + threadIdx.x / kRow, threadIdx.x % kRow);
}

// One lane's share of a row of x, into the tile: a vector, or as many elements eight apart. `left`: up to the edge.
template <class T>
DL_DEVICE void load_strip(const T* x, int row, int lane, int left, bool vectors, T* tile) {
  constexpr int V = kPerVector<T>;
  if (vectors) {
    if (lane * V < left)
      *reinterpret_cast<Vec<T, V>*>(tile + slot<T>(row, lane * V)) = reinterpret_cast<const Vec<T, V>*>(x)[lane];
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      const int column = j * kRow + lane;
      if (column < left) tile[slot<T>(row, column)] = x[column];
    }
  }
}

// The same out of the tile: a column of it is a row of y.
template <class T>
DL_DEVICE void store_strip(T* y, int column, int lane, int left, bool vectors, const T* tile) {
  constexpr int V = kPerVector<T>;
  if (vectors) {
    if (lane * V >= left) return;
    Vec<T, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = tile[slot<T>(lane * V + j, column)];
    reinterpret_cast<Vec<T, V>*>(y)[lane] = out;
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      const int row = j * kRow + lane;
      if (row < left) y[row] = tile[slot<T>(row, column)];
    }
  }
}

template <class T>
DL_DEVICE void transpose(const T* x, T* y, int rows, int columns, bool vectors_in, bool vectors_out) {
  constexpr int S = kRow * kPerVector<T>;
  __shared__ __align__(16) T tile[S * S];
  const long long matrix = (long long)blockIdx.z * rows * columns;
  const int first_row = blockIdx.y * S, first_column = blockIdx.x * S;
  const int height = rows - first_row, width = columns - first_column;
  each_strip<S>([&](int row, int lane) {
    const T* from = x + matrix + (long long)(first_row + row) * columns + first_column;
    if (row < height) load_strip(from, row, lane, width, vectors_in, tile);
  });
  __syncthreads();
  each_strip<S>([&](int column, int lane) {
    T* to = y + matrix + (long long)(first_column + column) * rows + first_row;
    if (column < width) store_strip(to, column, lane, height, vectors_out, tile);
  });
}

#define DL_TRANSPOSE_KERNEL(T, bytes)                                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                  \
      copy_transpose_b##bytes(const T* x, T* y, int rows, int columns, int vectors_in, int vectors_out) { \
    transpose(x, y, rows, columns, vectors_in, vectors_out);                                              \
  }                                                                                                       \
  DL_EXPORT(copy_transpose_b##bytes)
DL_TRANSPOSE_KERNEL(unsigned short, 2)
DL_TRANSPOSE_KERNEL(unsigned, 4)
DL_TRANSPOSE_KERNEL(unsigned long long, 8)
