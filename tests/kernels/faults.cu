// Kernels that run to their end, or nearly, and are wrong: the checked build says so at a line marked "fault".
// x is an array of 256 floats; n is 0, but the compiler does not know it.
#include "dl.cuh"

#define FAULTY(name) extern "C" __global__ void name(float* x, int n)

// ---- races in shared memory

FAULTY(no_barrier_before_read) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];       // fault
  x[threadIdx.x] = s[63 - threadIdx.x];  // fault
}
DL_EXPORT(no_barrier_before_read)

FAULTY(no_barrier_before_reuse) {
  __shared__ float s[64];
  for (int i = 0; i < 2; ++i) {
    s[threadIdx.x] = x[threadIdx.x] + i;  // fault
    __syncthreads();
    x[threadIdx.x] = s[(threadIdx.x + 32) % 64];  // fault
  }
}
DL_EXPORT(no_barrier_before_reuse)

FAULTY(two_writers) {
  __shared__ float s[64];
  s[threadIdx.x / 2] = x[threadIdx.x];  // fault
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x / 2];
}
DL_EXPORT(two_writers)

FAULTY(no_syncwarp) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];      // fault
  x[threadIdx.x] = s[threadIdx.x ^ 1];  // fault
}
DL_EXPORT(no_syncwarp)

FAULTY(syncwarp_for_two_warps) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];  // fault
  __syncwarp();
  x[threadIdx.x] = s[threadIdx.x ^ 32];  // fault
}
DL_EXPORT(syncwarp_for_two_warps)

FAULTY(shuffle_is_no_barrier) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];  // fault
  float y = __shfl_xor_sync(~0u, x[threadIdx.x], 1);
  x[threadIdx.x] = y + s[threadIdx.x ^ 1];  // fault
}
DL_EXPORT(shuffle_is_no_barrier)

FAULTY(plain_read_of_a_counter) {
  __shared__ int count;
  if (threadIdx.x == 0) count = n;
  __syncthreads();
  atomicAdd(&count, 1);    // fault
  x[threadIdx.x] = count;  // fault
}
DL_EXPORT(plain_read_of_a_counter)

FAULTY(last_reader_of_the_warp_writes) {
  __shared__ float s;
  if (threadIdx.x == 0) s = n;
  __syncthreads();
  if (threadIdx.x < 32) {
    x[threadIdx.x] = s;               // fault
    if (threadIdx.x == 31) s = 1.0f;  // fault
  }
}
DL_EXPORT(last_reader_of_the_warp_writes)

FAULTY(last_reader_of_the_block_writes) {
  __shared__ float s;
  if (threadIdx.x == 0) s = n;
  __syncthreads();
  if (threadIdx.x % 32 == 0) x[threadIdx.x] = s;  // fault
  if (threadIdx.x == 32) s = 1.0f;                // fault
}
DL_EXPORT(last_reader_of_the_block_writes)

// ---- races in global memory

FAULTY(blocks_add_to_the_same) {
  x[threadIdx.x] += 1.0f;  // fault
}
DL_EXPORT(blocks_add_to_the_same)

FAULTY(block_overwrites_what_another_reads) {
  float y = x[(blockIdx.x + 1) % gridDim.x * 64 + threadIdx.x];  // fault
  x[blockIdx.x * 64 + threadIdx.x] = y;                          // fault
}
DL_EXPORT(block_overwrites_what_another_reads)

FAULTY(last_block_to_read_writes) {
  if (threadIdx.x == 0) {
    x[128 + blockIdx.x] = x[0];        // fault
    if (blockIdx.x == 1) x[0] = 1.0f;  // fault
  }
}
DL_EXPORT(last_block_to_read_writes)

FAULTY(no_barrier_in_global_memory) {
  x[threadIdx.x] = n;                          // fault
  if (threadIdx.x == 0) x[64] = x[1] + x[40];  // fault
}
DL_EXPORT(no_barrier_in_global_memory)

// The last block to come adds up what the others left; without a fence it may not see it.
template <bool FENCE>
DL_DEVICE void last_block_sums(float* x) {
  __shared__ bool last;
  unsigned* counter = reinterpret_cast<unsigned*>(x + 255);
  if (threadIdx.x == 0) {
    x[blockIdx.x] = 1.0f;
    if (FENCE) __threadfence();
    last = atomicAdd(counter, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0)
    for (unsigned b = 0; b < gridDim.x; ++b) x[200] += x[b];  // fault
}

FAULTY(no_fence) { last_block_sums<false>(x); }
DL_EXPORT(no_fence)

FAULTY(no_grid_sync) {
  x[blockIdx.x * 64 + threadIdx.x] = n;  // fault
  __syncthreads();
  x[128 + threadIdx.x] = x[threadIdx.x] + x[64 + threadIdx.x];  // fault
  dl::grid_sync(nullptr);
}
DL_EXPORT(no_grid_sync)

// ---- out of bounds, misaligned

FAULTY(past_the_end) {
  x[193 + threadIdx.x] = n;  // fault
}
DL_EXPORT(past_the_end)

FAULTY(before_the_start) {
  x[128 + threadIdx.x] = x[static_cast<int>(threadIdx.x) - 1];  // fault
}
DL_EXPORT(before_the_start)

FAULTY(guard_forgotten) {
  if (threadIdx.x < 64) x[threadIdx.x * 5] = n;  // fault
}
DL_EXPORT(guard_forgotten)

FAULTY(vector_past_the_end) {
  float4 y = *reinterpret_cast<float4*>(x + 4 * (threadIdx.x + 1));  // fault
  if (y.x != 0.0f) x[threadIdx.x] = y.x;
}
DL_EXPORT(vector_past_the_end)

FAULTY(past_a_shared_array) {
  __shared__ float s[64];
  float* p = s + n;
  p[threadIdx.x + 1] = x[threadIdx.x];  // fault
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
DL_EXPORT(past_a_shared_array)

FAULTY(from_one_shared_array_into_the_next) {
  __shared__ float a[64];
  __shared__ float b[64];
  float *p = a + n, *q = b + n;
  p[threadIdx.x] = q[threadIdx.x] = 0.0f;
  __syncthreads();
  p[threadIdx.x * 2] = 1.0f;  // fault
  q[threadIdx.x * 2] = 1.0f;  // fault
  __syncthreads();
  x[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}
DL_EXPORT(from_one_shared_array_into_the_next)

FAULTY(past_dynamic_shared_memory) {
  DL_SHARED(float, s);
  s[threadIdx.x + 1] = x[threadIdx.x];  // fault
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
DL_EXPORT(past_dynamic_shared_memory)

FAULTY(past_the_row) {
  __shared__ float s[4][16];
  s[threadIdx.x / 16][threadIdx.x % 16 + 1] = x[threadIdx.x];  // fault
  __syncthreads();
  x[threadIdx.x] = s[0][threadIdx.x % 16];
}
DL_EXPORT(past_the_row)

FAULTY(past_a_local_array) {
  float y[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  y[(threadIdx.x + n) % 5] = x[threadIdx.x];  // fault
  x[threadIdx.x] = y[n];
}
DL_EXPORT(past_a_local_array)

FAULTY(misaligned_vector) {
  float4 y = *reinterpret_cast<float4*>(x + 1 + n);  // fault
  x[threadIdx.x] = y.x;
}
DL_EXPORT(misaligned_vector)

FAULTY(misaligned_ldmatrix) {
  DL_SHARED(unsigned short, s);
  for (int i = threadIdx.x; i < 128; i += blockDim.x) s[i] = 0;
  __syncthreads();
  unsigned y[1];
  dl::ldmatrix<1>(y, s + threadIdx.x % 8 * 8 + 4);  // fault
  x[threadIdx.x] = y[0];
}
DL_EXPORT(misaligned_ldmatrix)

FAULTY(writes_an_input) {
  float* input = x;
  input[threadIdx.x] = n;  // fault
}
DL_EXPORT(writes_an_input)

// ---- reads of what nobody wrote

FAULTY(unwritten_shared) {
  __shared__ float s[64];
  if (threadIdx.x < 63) s[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = s[63 - threadIdx.x];  // fault
}
DL_EXPORT(unwritten_shared)

FAULTY(unwritten_global) {
  if (threadIdx.x < 32) x[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) x[200] = x[31] + x[32];  // fault
}
DL_EXPORT(unwritten_global)

FAULTY(left_by_the_block_before) {
  __shared__ float s[64];
  if (blockIdx.x == 0) s[threadIdx.x] = 1.0f;
  __syncthreads();
  x[blockIdx.x * 64 + threadIdx.x] = s[threadIdx.x];  // fault
}
DL_EXPORT(left_by_the_block_before)

// ---- asynchronous copies

template <int WAIT, bool BARRIER, bool BARRIER_AFTER>
DL_DEVICE void pipeline(float* x) {
  DL_SHARED(float, s);  // two stages of 64 floats
  int t = threadIdx.x;
  float sum = 0.0f;
  dl::cp_async<4>(&s[t], &x[t]);  // fault
  dl::cp_async_commit();
  for (int i = 0; i < 3; ++i) {
    dl::cp_async<4>(&s[(i + 1) % 2 * 64 + t], &x[i * 64 + t]);  // fault
    dl::cp_async_commit();
    dl::cp_async_wait<WAIT>();
    if (BARRIER) __syncthreads();
    sum += s[i % 2 * 64 + 63 - t];  // fault
    if (BARRIER_AFTER) __syncthreads();
  }
  dl::cp_async_wait<0>();
  __syncthreads();
  x[192 + t] = sum;
}

FAULTY(waits_too_little) { pipeline<2, true, true>(x); }
DL_EXPORT(waits_too_little)

FAULTY(no_barrier_after_wait) { pipeline<1, false, true>(x); }
DL_EXPORT(no_barrier_after_wait)

FAULTY(stage_overwritten_too_early) { pipeline<1, true, false>(x); }
DL_EXPORT(stage_overwritten_too_early)

FAULTY(source_overwritten_too_early) {
  __shared__ float s[64];
  dl::cp_async<4>(&s[threadIdx.x], &x[63 - threadIdx.x]);  // fault
  dl::cp_async_commit();
  x[threadIdx.x] = n;  // fault
  dl::cp_async_wait<0>();
}
DL_EXPORT(source_overwritten_too_early)

// ---- arithmetic

FAULTY(integer_overflow) {
  int i = n + 65536;
  x[threadIdx.x] = i * i;  // fault
}
DL_EXPORT(integer_overflow)

FAULTY(shift_too_far) {
  x[threadIdx.x] = 1 << (threadIdx.x + n);  // fault
}
DL_EXPORT(shift_too_far)

// ---- the same, right

FAULTY(fence) { last_block_sums<true>(x); }
DL_EXPORT(fence)

FAULTY(syncwarp) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  float y = s[threadIdx.x ^ 1];
  __syncwarp();
  s[threadIdx.x] = y;
  __syncwarp();
  x[threadIdx.x] = s[threadIdx.x ^ 1];
}
DL_EXPORT(syncwarp)

FAULTY(right_pipeline) { pipeline<1, true, true>(x); }
DL_EXPORT(right_pipeline)

// Neighbouring bytes and halves written by different threads, blocks and warps.
FAULTY(narrow_writes) {
  __shared__ unsigned char s[256];
  auto* halves = reinterpret_cast<unsigned short*>(x) + 64 * blockIdx.x;
  auto* bytes = reinterpret_cast<unsigned char*>(x + 128) + 64 * blockIdx.x;
  halves[threadIdx.x] = static_cast<unsigned short>(n);
  bytes[threadIdx.x] = static_cast<unsigned char>(n);
  s[threadIdx.x * 3] = 1;
  __syncthreads();
  if (threadIdx.x == 0) bytes[1] = static_cast<unsigned char>(s[63 * 3] + halves[3]);
}
DL_EXPORT(narrow_writes)

__constant__ float table[5] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f};
struct Wide {
  float values[8];
};
__device__ __noinline__ void fill(Wide* wide, float value) {
  for (float& v : wide->values) v = value;
}
FAULTY(constants_and_locals) {
  Wide a, b;
  fill(&a, table[threadIdx.x % 5]);
  b = a;
  x[threadIdx.x] = b.values[threadIdx.x % 8];
}
DL_EXPORT(constants_and_locals)

// Structs of 32 bytes in shared and global memory.
FAULTY(wide_structs) {
  __shared__ Wide s[33];
  Wide* out = reinterpret_cast<Wide*>(x);
  Wide own;
  fill(&own, threadIdx.x);
  if (threadIdx.x < 32) s[threadIdx.x + n] = own;
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = s[31 - threadIdx.x];
}
DL_EXPORT(wide_structs)
