// Copies: to contiguous memory from any strides, to another dtype, and the tiled transpose.
//
// copy_strided_b<bytes>(x, y, walk): y contiguous, elements of 1, 2, 4 or 8 bytes whatever they mean.
// copy_cast_<from>_<to>(x, y, walk): the same with a conversion; floats to whole numbers cut towards zero.
//   Grid: any, threads stride over chunks; block: 256; no shared memory.
// copy_transpose_b<bytes>(x, y, rows, columns): y[b][c][r] = x[b][r][c] of contiguous matrices.
//   Grid: (columns / 32, rows / 32, b), rounded up; block: (32, 8); shared: one padded tile of 32 x 33.
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

#define DL_COPY_KERNEL(T, bytes)                                                                            \
  extern "C" __global__ void __launch_bounds__(256) copy_strided_b##bytes(const T* x, T* y, Walk<1> walk) { \
    copy(x, y, walk, [](T value) { return value; });                                                        \
  }                                                                                                         \
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

#define DL_CAST_KERNEL(T, from, U, to)                                                                        \
  extern "C" __global__ void __launch_bounds__(256) copy_cast_##from##_##to(const T* x, U* y, Walk<1> walk) { \
    copy(x, y, walk, Convert<U, T>{});                                                                        \
  }                                                                                                           \
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

constexpr int kTile = 32, kTileRows = 8;

template <class T>
DL_DEVICE void transpose(const T* x, T* y, int rows, int columns) {
  __shared__ T tile[kTile][kTile + 1];
  const long long matrix = (long long)blockIdx.z * rows * columns;
  const int column = blockIdx.x * kTile + threadIdx.x, row = blockIdx.y * kTile + threadIdx.y;
  DL_UNROLL
  for (int j = 0; j < kTile; j += kTileRows)
    if (column < columns && row + j < rows)
      tile[threadIdx.y + j][threadIdx.x] = x[matrix + (long long)(row + j) * columns + column];
  __syncthreads();
  const int out_column = blockIdx.y * kTile + threadIdx.x, out_row = blockIdx.x * kTile + threadIdx.y;
  DL_UNROLL
  for (int j = 0; j < kTile; j += kTileRows)
    if (out_column < rows && out_row + j < columns)
      y[matrix + (long long)(out_row + j) * rows + out_column] = tile[threadIdx.x][threadIdx.y + j];
}

#define DL_TRANSPOSE_KERNEL(T, bytes)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256) copy_transpose_b##bytes(const T* x, T* y, int rows, int columns) { \
    transpose(x, y, rows, columns);                                                                                    \
  }                                                                                                                    \
  DL_EXPORT(copy_transpose_b##bytes)
DL_TRANSPOSE_KERNEL(unsigned short, 2)
DL_TRANSPOSE_KERNEL(unsigned, 4)
DL_TRANSPOSE_KERNEL(unsigned long long, 8)
