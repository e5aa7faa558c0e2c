// Kernels that cannot go on; each stops at a line marked "fault".
#include "dl.cuh"

extern "C" __global__ void divergent_barrier(int* out, int n) {
  if (threadIdx.x < 32) __syncthreads();  // fault
  else __syncthreads();                   // fault
  out[threadIdx.x] = n;
}
DL_EXPORT(divergent_barrier)

extern "C" __global__ void exit_before_barrier(int* out, int n) {
  if (threadIdx.x >= 40) return;
  __syncthreads();  // fault
  out[threadIdx.x] = n;
}
DL_EXPORT(exit_before_barrier)

extern "C" __global__ void shuffle_of_half_a_warp(int* out, int n) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(~0u, n, 1);  // fault
}
DL_EXPORT(shuffle_of_half_a_warp)

extern "C" __global__ void lane_not_in_mask(int* out, int n) {
  __syncwarp(0xff);  // fault
  out[threadIdx.x] = n;
}
DL_EXPORT(lane_not_in_mask)

extern "C" __global__ void vote_and_shuffle(int* out, int n) {
  if (threadIdx.x % 2) out[threadIdx.x] = __any_sync(~0u, n);  // fault
  else out[threadIdx.x] = __shfl_sync(~0u, n, 0);              // fault
}
DL_EXPORT(vote_and_shuffle)

extern "C" __global__ void reads_absent_lane(int* out, int n) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, n, threadIdx.x == 1 ? 17 : 0);  // fault
}
DL_EXPORT(reads_absent_lane)

extern "C" __global__ void deadlock(int* out, int n) {
  if (threadIdx.x < 32 || threadIdx.x == 40) __syncthreads();
  if (threadIdx.x != 40) __syncwarp();  // fault
  out[threadIdx.x] = n;
}
DL_EXPORT(deadlock)

extern "C" __global__ void no_wait(int* out, int n) {
  DL_SHARED(int, s);
  for (int i = 0; i <= n; ++i) dl::cp_async<4>(&s[threadIdx.x], &out[threadIdx.x]);  // fault
  dl::cp_async_commit();
}
DL_EXPORT(no_wait)

extern "C" __global__ void wild_pointer(int* out, int n) {
  out[(1ll << 46) + threadIdx.x] = n;  // fault
}
DL_EXPORT(wild_pointer)

extern "C" __global__ void divides_by_zero(int* out, int n) {
  out[threadIdx.x] = 7 / n;  // fault
}
DL_EXPORT(divides_by_zero)

__device__ __noinline__ int deep(int* out, int n) {
  volatile int space[1000];
  space[n % 1000] = n;
  return n > 100 ? space[0] : deep(out, n + 1) + space[n % 1000];
}
extern "C" __global__ void deep_recursion(int* out, int n) { out[threadIdx.x] = deep(out, n); }
DL_EXPORT(deep_recursion)

extern "C" __global__ void trap(int* out, int n) {
  if (n == 0) __trap();  // fault
}
DL_EXPORT(trap)

extern "C" __global__ void misaligned_copy(int* out, int n) {
  DL_SHARED(int, s);
  dl::cp_async<16>(&s[threadIdx.x], &out[n + 1]);  // fault
}
DL_EXPORT(misaligned_copy)

extern "C" __global__ void grid_sync_alone(int* out, int n) {
  unsigned* counter = reinterpret_cast<unsigned*>(out) + n;
  dl::grid_sync(counter);  // fault
}
DL_EXPORT(grid_sync_alone)

extern "C" __global__ void fine(int* out, int n) { out[threadIdx.x] = n; }
DL_EXPORT(fine)

extern "C" __global__ void never_ends(int* out, int n) {
  while (atomicAdd(&out[n], 0) == 0) n = 0;  // fault
}
DL_EXPORT(never_ends)

extern "C" __global__ void never_ends_in_barriers(int* out, int n) {
  while (n == 0) __syncthreads();  // fault
  out[0] = n;
}
DL_EXPORT(never_ends_in_barriers)
