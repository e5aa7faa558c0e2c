// C = A B of row-major f32 matrices, four times: each kernel does one thing more than the one before. To be read.
//
// ladder_<n>_<name>(a, b, c, m, n, k): A [m, k], B [k, n], C [m, n]; any sizes, but the last wants n in fours.
// Per multiply-add, what limits each of them:
//   1 naive      two loads from global memory (the caches serve most)
//   2 tiled      two loads from shared memory; each number comes from global memory once in 32 uses
//   3 blocked    a quarter of a load: a thread's 8 x 8 results share 16 numbers in registers
//   4 pipelined  1/16 of a load instruction of 16 bytes, and none of the waiting for global memory
// gemm.cu goes on from there: wider blocks of results, transposed operands, fragments read ahead, lanes that share
// loads.
#include "types.cuh"

// One thread, one element of C. Grid: (n / 32, m / 8), rounded up; block: (32, 8).
extern "C" __global__ void __launch_bounds__(256)
    ladder_1_naive(const float* a, const float* b, float* c, int m, int n, int k) {
  const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y;
  if (row >= m || column >= n) return;
  float sum = 0.0f;
  for (int i = 0; i < k; ++i) sum = fmaf(a[(long long)row * k + i], b[(long long)i * n + column], sum);
  c[(long long)row * n + column] = sum;
}
DL_EXPORT(ladder_1_naive)

// A block's tiles of A and B pass through shared memory. Grid: (n / 32, m / 32), rounded up; block: (32, 32).
extern "C" __global__ void __launch_bounds__(1024)
    ladder_2_tiled(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float tile_a[32][32], tile_b[32][32];
  const int x = threadIdx.x, y = threadIdx.y;
  const int column = blockIdx.x * 32 + x, row = blockIdx.y * 32 + y;
  float sum = 0.0f;
  for (int first = 0; first < k; first += 32) {
    tile_a[y][x] = row < m && first + x < k ? a[(long long)row * k + first + x] : 0.0f;
    tile_b[y][x] = column < n && first + y < k ? b[(long long)(first + y) * n + column] : 0.0f;
    __syncthreads();
    DL_UNROLL
    for (int i = 0; i < 32; ++i) sum = fmaf(tile_a[y][i], tile_b[i][x], sum);
    __syncthreads();
  }
  if (row < m && column < n) c[(long long)row * n + column] = sum;
}
DL_EXPORT(ladder_2_tiled)

// A thread owns 8 x 8 elements, 8 rows and 8 columns apart by 8. Grid: (n / 64, m / 64), rounded up; block: 64.
extern "C" __global__ void __launch_bounds__(64)
    ladder_3_blocked(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float tile_a[8][64 + 1], tile_b[8][64];
  const int t = threadIdx.x, x = t % 8, y = t / 8, column = blockIdx.x * 64, row = blockIdx.y * 64;
  float sum[8][8] = {};
  for (int first = 0; first < k; first += 8) {
    DL_UNROLL
    for (int i = 0; i < 8; ++i) {  // A: 8 k's of 8 rows at a time, transposed; B: one k of 64 columns
      const int from = row + y + 8 * i;
      tile_a[x][y + 8 * i] = from < m && first + x < k ? a[(long long)from * k + first + x] : 0.0f;
      tile_b[i][t] = column + t < n && first + i < k ? b[(long long)(first + i) * n + column + t] : 0.0f;
    }
    __syncthreads();
    DL_UNROLL
    for (int i = 0; i < 8; ++i) {
      float of_a[8], of_b[8];
      DL_UNROLL
      for (int j = 0; j < 8; ++j) of_a[j] = tile_a[i][y + 8 * j], of_b[j] = tile_b[i][x + 8 * j];
      DL_UNROLL
      for (int p = 0; p < 8; ++p) DL_UNROLL
      for (int q = 0; q < 8; ++q) sum[p][q] = fmaf(of_a[p], of_b[q], sum[p][q]);
    }
    __syncthreads();
  }
  DL_UNROLL
  for (int p = 0; p < 8; ++p) DL_UNROLL
  for (int q = 0; q < 8; ++q)
    if (row + y + 8 * p < m && column + x + 8 * q < n)
      c[(long long)(row + y + 8 * p) * n + column + x + 8 * q] = sum[p][q];
}
DL_EXPORT(ladder_3_blocked)

// Copies of the next slabs are under way while this one is multiplied; all traffic of B and C in vectors of four.
// A thread owns 8 x 8 elements: two groups of 4 rows and of 4 columns, 32 apart. Grid and block as in 3; n % 4 == 0.
extern "C" __global__ void __launch_bounds__(64)
    ladder_4_pipelined(const float* a, const float* b, float* c, int m, int n, int k) {
  constexpr int kStages = 3;
  __shared__ __align__(16) float tile_a[kStages][8][64 + 4], tile_b[kStages][8][64];
  const int t = threadIdx.x, x = t % 8, y = t / 8, column = blockIdx.x * 64, row = blockIdx.y * 64;
  auto fetch = [&](int first, int stage) {
    DL_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int from = row + y + 8 * i;
      const bool valid = from < m && first + x < k;
      dl::cp_async<4>(&tile_a[stage][x][y + 8 * i], a + (valid ? (long long)from * k + first + x : 0), valid);
    }
    DL_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int line = t / 16 + 4 * i, from = column + t % 16 * 4;
      const bool valid = first + line < k && from < n;
      dl::cp_async<16>(&tile_b[stage][line][t % 16 * 4], b + (valid ? (long long)(first + line) * n + from : 0), valid);
    }
    dl::cp_async_commit();
  };
  float sum[8][8] = {};
  DL_UNROLL
  for (int stage = 0; stage < kStages - 1; ++stage) fetch(8 * stage, stage);
  for (int first = 0, stage = 0; first < k; first += 8, stage = stage + 1 == kStages ? 0 : stage + 1) {
    dl::cp_async_wait<kStages - 2>();
    __syncthreads();
    fetch(first + 8 * (kStages - 1), stage == 0 ? kStages - 1 : stage - 1);
    DL_UNROLL
    for (int i = 0; i < 8; ++i) {
      Vec<float, 4> of_a[2], of_b[2];
      DL_UNROLL
      for (int half = 0; half < 2; ++half) {
        of_a[half] = *reinterpret_cast<const Vec<float, 4>*>(&tile_a[stage][i][y * 4 + 32 * half]);
        of_b[half] = *reinterpret_cast<const Vec<float, 4>*>(&tile_b[stage][i][x * 4 + 32 * half]);
      }
      DL_UNROLL
      for (int p = 0; p < 8; ++p) DL_UNROLL
      for (int q = 0; q < 8; ++q) sum[p][q] = fmaf(of_a[p / 4].at[p % 4], of_b[q / 4].at[q % 4], sum[p][q]);
    }
  }
  dl::cp_async_wait<0>();
  DL_UNROLL
  for (int p = 0; p < 8; ++p) DL_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int to = row + y * 4 + p / 4 * 32 + p % 4, from = column + x * 4 + 32 * half;
    const float* s = &sum[p][4 * half];
    if (to < m && from < n)
      *reinterpret_cast<Vec<float, 4>*>(c + (long long)to * n + from) = {{s[0], s[1], s[2], s[3]}};
  }
}
DL_EXPORT(ladder_4_pipelined)
