// Kernels whose memory traffic is known: a warp of 32 threads, x and y of 1024 floats or more.
#include "dl.cuh"

#define ONE_WARP(name) extern "C" __global__ void name(const float* x, float* y)

ONE_WARP(contiguous) { y[threadIdx.x] = x[threadIdx.x]; }
DL_EXPORT(contiguous)

ONE_WARP(strided) { y[threadIdx.x * 8] = x[threadIdx.x * 2]; }
DL_EXPORT(strided)

ONE_WARP(broadcast) { y[threadIdx.x] = x[7]; }
DL_EXPORT(broadcast)

ONE_WARP(by_four) { reinterpret_cast<float4*>(y)[threadIdx.x] = reinterpret_cast<const float4*>(x)[threadIdx.x]; }
DL_EXPORT(by_four)

ONE_WARP(off_by_one) { y[threadIdx.x] = x[threadIdx.x + 1]; }
DL_EXPORT(off_by_one)

ONE_WARP(half_of_the_warp) {
  if (threadIdx.x % 2) y[threadIdx.x] = x[threadIdx.x];
}
DL_EXPORT(half_of_the_warp)

ONE_WARP(twice) {
  const volatile float* z = x;
  for (int i = 0; i < 2; ++i) y[threadIdx.x] = z[threadIdx.x];
}
DL_EXPORT(twice)

ONE_WARP(ragged_loop) {
  for (unsigned i = 0; i < threadIdx.x / 8 + 1; ++i) y[i * 32 + threadIdx.x] = 1.0f;
}
DL_EXPORT(ragged_loop)

template <int WIDTH>
DL_DEVICE void transpose(const float* x, float* y) {
  __shared__ float tile[32][WIDTH];
  for (int i = 0; i < 32; ++i) tile[i][threadIdx.x] = x[i * 32 + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 32; ++i) y[i * 32 + threadIdx.x] = tile[threadIdx.x][i];
}
ONE_WARP(transpose_32) { transpose<32>(x, y); }
DL_EXPORT(transpose_32)
ONE_WARP(transpose_33) { transpose<33>(x, y); }
DL_EXPORT(transpose_33)

// Reads 16 bytes from shared memory at a distance of STRIDE floats; GROUP lanes read the same.
template <int STRIDE, int GROUP>
DL_DEVICE void read_vectors(float* y) {
  __shared__ __align__(16) float s[32 * STRIDE];
  for (int i = threadIdx.x; i < 32 * STRIDE; i += 32) s[i] = 0.0f;
  __syncthreads();
  float4 v = *reinterpret_cast<float4*>(&s[threadIdx.x / GROUP * STRIDE]);
  y[threadIdx.x] = v.x;
}
ONE_WARP(vectors) { read_vectors<4, 1>(y); }
DL_EXPORT(vectors)
ONE_WARP(vectors_apart) { read_vectors<8, 1>(y); }
DL_EXPORT(vectors_apart)
ONE_WARP(vectors_in_pairs) { read_vectors<4, 2>(y); }
DL_EXPORT(vectors_in_pairs)

template <int WIDTH>
DL_DEVICE void load_matrices(float* y) {
  __shared__ __align__(16) unsigned short s[16 * WIDTH];
  for (int i = threadIdx.x; i < 16 * WIDTH; i += 32) s[i] = 0;
  __syncthreads();
  unsigned fragment[4];
  dl::ldmatrix<4>(fragment, &s[threadIdx.x % 16 * WIDTH + threadIdx.x / 16 * 8]);
  y[threadIdx.x] = fragment[0];
}
ONE_WARP(matrices) { load_matrices<64>(y); }
DL_EXPORT(matrices)
ONE_WARP(matrices_padded) { load_matrices<72>(y); }
DL_EXPORT(matrices_padded)

ONE_WARP(async) {
  __shared__ __align__(16) float s[128];
  dl::cp_async<16>(&s[threadIdx.x * 4], &x[threadIdx.x * 4]);
  dl::cp_async_commit();
  dl::cp_async_wait<0>();
  y[threadIdx.x] = s[threadIdx.x * 4];
}
DL_EXPORT(async)

ONE_WARP(async_of_half) {
  __shared__ __align__(16) float s[64];
  for (int i = threadIdx.x; i < 64; i += blockDim.x) dl::cp_async<4>(&s[i], &x[i], (i / 32 + i) % 2);
  dl::cp_async_commit();
  dl::cp_async_wait<0>();
  y[threadIdx.x] = s[threadIdx.x];
}
DL_EXPORT(async_of_half)

ONE_WARP(counts) { atomicAdd(reinterpret_cast<int*>(y) + threadIdx.x % 4, 1); }
DL_EXPORT(counts)
