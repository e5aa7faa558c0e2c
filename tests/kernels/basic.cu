// Small kernels that exercise each part of the execution model.
#include "dl.cuh"

extern "C" __global__ void __launch_bounds__(256) add(const float* x, const float* y, float* z, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) z[i] = x[i] + y[i];
}
DL_EXPORT(add)

// Where each thread is: (z, y, x) of block and thread in one number.
extern "C" __global__ void coordinates(int* out) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z + 1000 * threadIdx.x + 10000 * threadIdx.y + 100000 * threadIdx.z;
}
DL_EXPORT(coordinates)

template <class T>
DL_DEVICE T block_sum(T x) {
  __shared__ T parts[32];
  DL_UNROLL for (int lanes = 16; lanes; lanes >>= 1) x += __shfl_xor_sync(~0u, x, lanes);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += parts[i];
  __syncthreads();
  return sum;
}

extern "C" __global__ void sums(const float* x, const int* k, float* out, int* count) {
  float a = block_sum(x[threadIdx.x]);
  int b = block_sum(k[threadIdx.x]);
  if (threadIdx.x == 0) *out = a, *count = b;
}
DL_EXPORT(sums)

extern "C" __global__ void reverse_static(const int* x, int* y) {
  __shared__ int s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
DL_EXPORT(reverse_static)

extern "C" __global__ void reverse_dynamic(const int* x, int* y, int n) {
  DL_SHARED(int, s);
  for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = s[n - 1 - i];
}
DL_EXPORT(reverse_dynamic)

// Shared memory that nobody wrote.
extern "C" __global__ void unwritten(unsigned* out) {
  __shared__ unsigned s[32];
  DL_SHARED(unsigned, d);
  out[threadIdx.x] = s[threadIdx.x] & d[threadIdx.x];
  __syncthreads();
  s[threadIdx.x] = d[threadIdx.x] = 0;
}
DL_EXPORT(unwritten)

extern "C" __global__ void votes(int* out) {
  int t = threadIdx.x;
  int any = __any_sync(~0u, t % 32 == 3), all = __all_sync(~0u, t >= 0);
  unsigned ballot = __ballot_sync(~0u, t % 2);
  int count = __syncthreads_count(t < 40), both = __syncthreads_and(t < 40), either = __syncthreads_or(t < 40);
  if (t == 0) out[0] = any, out[1] = all, out[2] = (int)ballot, out[3] = count, out[4] = both, out[5] = either;
}
DL_EXPORT(votes)

extern "C" __global__ void shuffles(int* out) {
  int t = threadIdx.x, lane = t % 32;
  out[t] = __shfl_sync(~0u, t, 5);
  out[64 + t] = __shfl_up_sync(~0u, t, 3);
  out[128 + t] = __shfl_down_sync(~0u, t, 3, 16);
  out[192 + t] = __shfl_xor_sync(~0u, t, 9);
  double d = __shfl_sync(~0u, t + 0.5, lane ^ 1);
  out[256 + t] = (int)(2 * d);
  if (lane < 8) out[320 + t] = __shfl_xor_sync(0xffu, t, 7);
}
DL_EXPORT(shuffles)

extern "C" __global__ void atomics(int* i, unsigned* u, unsigned long long* l, int* order) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&i[0], t), atomicMin(&i[1], -t), atomicMax(&i[2], t);
  atomicAdd(&u[0], 1u), atomicMax(&u[1], 0x80000000u + t), atomicMin(&u[2], 7u + t), atomicCAS(&u[3], 0u, 9u);
  atomicAdd(&l[0], 1ull << 40), atomicExch(&l[1], 5ull);
  order[atomicAdd(&i[3], 1)] = t;
}
DL_EXPORT(atomics)

extern "C" __global__ void copy_async(const float4* x, float4* y, int n) {
  DL_SHARED(float4, s);
  int t = threadIdx.x;
  dl::cp_async<16>(&s[t], &x[t], t < n);
  dl::cp_async_commit();
  dl::cp_async<16>(&s[t + blockDim.x], &x[t + blockDim.x]);
  dl::cp_async_commit();
  dl::cp_async_wait<1>();
  __syncthreads();
  y[t] = s[blockDim.x - 1 - t];
  dl::cp_async_wait<0>();
  __syncthreads();
  y[t + blockDim.x] = s[2 * blockDim.x - 1 - t];
}
DL_EXPORT(copy_async)

// The ranks of the blocks, summed by the last to arrive, in order; twice.
extern "C" __global__ void through_the_grid(unsigned* counter, int* parts, int* out) {
  __shared__ int own;
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) parts[blockIdx.x] = own = blockIdx.x + 1 + round;
    dl::grid_sync(counter);
    int sum = 0;
    for (int b = 0; b < (int)gridDim.x; ++b) sum += parts[b];
    if (threadIdx.x == 33) out[round * gridDim.x + blockIdx.x] = sum * 100 + own;
    dl::grid_sync(counter);
  }
}
DL_EXPORT(through_the_grid)

// b[n][k] is stored as its transpose, so that both operands are read along k.
template <class T, class Mma>
DL_DEVICE void one_tile(const T* a, const T* b, float* d, Mma mma) {
  __shared__ __align__(16) T as[16][16], bs[8][16];
  int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) as[i / 16][i % 16] = a[i];
  for (int i = lane; i < 128; i += 32) bs[i / 16][i % 16] = b[i];
  __syncwarp();
  unsigned fa[4], fb[2];
  float c[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  dl::ldmatrix<4>(fa, &as[lane % 16][lane / 16 * 8]);
  dl::ldmatrix<2>(fb, &bs[lane % 8][lane / 8 % 2 * 8]);
  mma(c, fa, fb);
  for (int j = 0; j < 4; ++j) d[(lane / 4 + j / 2 * 8) * 8 + lane % 4 * 2 + j % 2] = c[j];
}

extern "C" __global__ void tile_f16(const __half* a, const __half* b, float* d) {
  one_tile(a, b, d, [](float (&c)[4], unsigned (&x)[4], unsigned (&y)[2]) { dl::mma_m16n8k16_f16(c, x, y); });
}
DL_EXPORT(tile_f16)

extern "C" __global__ void tile_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  one_tile(a, b, d, [](float (&c)[4], unsigned (&x)[4], unsigned (&y)[2]) { dl::mma_m16n8k16_bf16(c, x, y); });
}
DL_EXPORT(tile_bf16)

extern "C" __global__ void tile_tf32(const float* a, const float* b, float* d) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  unsigned x[4] = {dl::cvt_tf32(a[g * 8 + t]), dl::cvt_tf32(a[(g + 8) * 8 + t]), dl::cvt_tf32(a[g * 8 + t + 4]),
                   dl::cvt_tf32(a[(g + 8) * 8 + t + 4])};
  unsigned y[2] = {dl::cvt_tf32(b[g * 8 + t]), dl::cvt_tf32(b[g * 8 + t + 4])};
  float c[4] = {};
  dl::mma_m16n8k8_tf32(c, x, y);
  for (int j = 0; j < 4; ++j) d[(g + j / 2 * 8) * 8 + t * 2 + j % 2] = c[j];
}
DL_EXPORT(tile_tf32)

extern "C" __global__ void transposed_matrix(const unsigned short* x, unsigned* out) {
  __shared__ __align__(16) unsigned short s[64];
  for (int i = threadIdx.x; i < 64; i += 32) s[i] = x[i];
  __syncwarp();
  unsigned one[1];
  dl::ldmatrix<1, true>(one, &s[threadIdx.x % 8 * 8]);
  out[threadIdx.x] = one[0];
}
DL_EXPORT(transposed_matrix)

extern "C" __global__ void halves(const float* x, unsigned* packed, float* back, int n) {
  int i = threadIdx.x;
  if (i < n) {
    packed[2 * i] = dl::pack<__half>(x[i], -x[i]), packed[2 * i + 1] = dl::pack<__nv_bfloat16>(x[i], -x[i]);
    back[2 * i] = dl::unpack<__half>(packed[2 * i]).y, back[2 * i + 1] = dl::unpack<__nv_bfloat16>(packed[2 * i + 1]).y;
  }
}
DL_EXPORT(halves)
