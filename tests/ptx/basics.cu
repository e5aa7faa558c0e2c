// Kernels that the tests of the PTX interpreter run; basics.ptx is this file compiled with
// nvcc -arch=sm_80 -ptx -fmad=false -lineinfo
#define TILE 16

// c[m,n] = a[m,k] b[k,n] in tiles of shared memory, any m, n, k; one fmaf per element of k, in order.
extern "C" __global__ void __launch_bounds__(TILE* TILE)
    sgemm(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float left[TILE][TILE], right[TILE][TILE];
  int x = threadIdx.x, y = threadIdx.y;
  int row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
  float sum = 0.0f;
  for (int first = 0; first < k; first += TILE) {
    left[y][x] = row < m && first + x < k ? a[row * k + first + x] : 0.0f;
    right[y][x] = column < n && first + y < k ? b[(first + y) * n + column] : 0.0f;
    __syncthreads();
    int length = min(TILE, k - first);
    for (int i = 0; i < length; ++i) sum = fmaf(left[y][i], right[i][x], sum);
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

// Softmax of rows to base 2, one warp per row.
extern "C" __global__ void softmax2(const float* x, float* y, int columns) {
  int lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  x += row * columns, y += row * columns;
  float top = __int_as_float(0xff800000);
  for (int i = lane; i < columns; i += 32) top = fmaxf(top, x[i]);
  for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  float sum = 0.0f;
  for (int i = lane; i < columns; i += 32) sum += exp2f(x[i] - top);
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  for (int i = lane; i < columns; i += 32) y[i] = exp2f(x[i] - top) / sum;
}

// d[16,8] = a[16,k] b[8,k]^T by one warp, bf16 in pairs, k a multiple of 16, copied two slabs ahead.
extern "C" __global__ void mma_bf16(const uint4* a, const uint4* b, float* d, int k) {
  __shared__ __align__(16) uint4 left[2][16][2], right[2][8][2];
  int lane = threadIdx.x, slabs = k / 16;
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  auto fetch = [&](int slab) {
    unsigned to = __cvta_generic_to_shared(&left[slab % 2][lane / 2][lane % 2]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                 "l"(&a[(lane / 2 * slabs + slab) * 2 + lane % 2]));
    if (lane < 16) {
      to = __cvta_generic_to_shared(&right[slab % 2][lane / 2][lane % 2]);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                   "l"(&b[(lane / 2 * slabs + slab) * 2 + lane % 2]));
    }
    asm volatile("cp.async.commit_group;");
  };
  fetch(0);
  for (int slab = 0; slab < slabs; ++slab) {
    if (slab + 1 < slabs) {
      fetch(slab + 1);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncwarp();
    unsigned fa[4], fb[2];
    unsigned from = __cvta_generic_to_shared(&left[slab % 2][lane % 16][lane / 16]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                 : "r"(from));
    from = __cvta_generic_to_shared(&right[slab % 2][lane % 8][lane / 8 % 2]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(fb[0]), "=r"(fb[1]) : "r"(from));
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    __syncwarp();
  }
  int g = lane / 4, t = lane % 4 * 2;
  d[g * 8 + t] = sum[0], d[g * 8 + t + 1] = sum[1];
  d[(g + 8) * 8 + t] = sum[2], d[(g + 8) * 8 + t + 1] = sum[3];
}

// The number of steps to 1: threads leave the loop one by one.
extern "C" __global__ void collatz(const long long* start, int* steps, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, count = 0;
  if (i >= n) return;
  for (long long x = start[i]; x != 1; ++count) x = x % 2 ? 3 * x + 1 : x / 2;
  steps[i] = count;
}

// Blocks reversed through dynamic shared memory, and scaled by what a device function with a loop computes.
__device__ __noinline__ int power(int base, int exponent) {
  int result = 1;
  for (; exponent > 0; --exponent) result *= base;
  return result;
}
extern "C" __global__ void reverse(const int* x, int* y, int base) {
  extern __shared__ int held[];
  held[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = held[blockDim.x - 1 - threadIdx.x] * power(base, threadIdx.x % 4);
}

// A table in constant memory, a counter in global memory, an array in local memory.
__constant__ short weights[5] = {1, -2, 3, -4, 5};
__device__ unsigned visits;
extern "C" __global__ void spaces(const unsigned char* pick, int* y, unsigned* seen) {
  int own[8];
  for (int i = 0; i < 8; ++i) own[i] = i * threadIdx.x;
  y[threadIdx.x] = own[pick[threadIdx.x] % 8] + weights[pick[threadIdx.x] % 5];
  atomicAdd(&visits, 1u);
  __syncthreads();
  if (threadIdx.x == 0) *seen = visits;
}

// An early exit, then a barrier that those threads never reach.
extern "C" __global__ void partial_barrier(int* y) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}

extern "C" __global__ void endless(volatile int* flag) {
  while (*flag == 0) {
  }
}

// Threads 1 to 31 wait in a loop for thread 0, which comes last.
extern "C" __global__ void handoff(volatile int* flag, int* y) {
  if (threadIdx.x > 0) {
    while (*flag == 0) {
    }
    y[threadIdx.x] = *flag;
  } else {
    y[0] = 7;
    *flag = 7;
  }
}
