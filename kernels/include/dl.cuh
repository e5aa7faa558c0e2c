// What every kernel includes, and the only file that knows which compiler reads it: nvcc, NVRTC, or g++ for the
// emulator (DL_SIM). Each function with inline PTX has an emulated twin. Contraction of a*b+c is off everywhere: write
// fmaf.
#pragma once

#ifdef DL_SIM
#include "simt.h"
// After each kernel: makes it known to the emulator.
#define DL_EXPORT(kernel)                                                                                              \
  extern "C" __attribute__((visibility("hidden"))) const simt::SharedArray simt_shared_of_##kernel[];                  \
  static const simt::Exported simt_export_##kernel({#kernel, simt::Trampoline<&kernel>::signature,                     \
                                                    simt::Trampoline<&kernel>::sizes, simt::Trampoline<&kernel>::call, \
                                                    simt_shared_of_##kernel, simt::kChecked, nullptr});
// A pointer to the block's dynamic shared memory, 16-byte aligned.
#define DL_SHARED(T, name) T* name = reinterpret_cast<T*>(simt_dynamic_shared())
#define DL_UNROLL _Pragma("GCC unroll 32")
#else
#define DL_EXPORT(kernel)
#define DL_SHARED(T, name)                                           \
  extern __shared__ __align__(16) unsigned char dl_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(dl_dynamic_shared)
#define DL_UNROLL _Pragma("unroll")
#endif

#ifdef __CUDACC_RTC__
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
typedef unsigned long size_t;
#endif

#define DL_DEVICE __device__ __forceinline__

// ---- 16-bit floats: storage only; arithmetic is in float

struct __half {
  unsigned short bits;
};
struct __nv_bfloat16 {
  unsigned short bits;
};

DL_DEVICE float __half2float(__half x) {
#ifdef DL_SIM
  return static_cast<float>(simt_bits<_Float16>(x.bits));
#else
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#endif
}

DL_DEVICE __half __float2half(float x) {  // to nearest even
#ifdef DL_SIM
  return {x != x ? static_cast<unsigned short>(0x7fff) : simt_bits<unsigned short>(static_cast<_Float16>(x))};
#else
  __half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#endif
}

DL_DEVICE float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

DL_DEVICE __nv_bfloat16 __float2bfloat16(float x) {  // to nearest even
  __nv_bfloat16 y;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
  unsigned bits = __float_as_uint(x);
  y.bits = static_cast<unsigned short>(x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
  return y;
}

namespace dl {

// One name for all element types: dl::to_float(x), dl::from_float<T>(y).
DL_DEVICE float to_float(float x) { return x; }
DL_DEVICE float to_float(__half x) { return __half2float(x); }
DL_DEVICE float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
struct Convert;
template <>
struct Convert<float> {
  DL_DEVICE static float from(float x) { return x; }
};
template <>
struct Convert<__half> {
  DL_DEVICE static __half from(float x) { return __float2half(x); }
};
template <>
struct Convert<__nv_bfloat16> {
  DL_DEVICE static __nv_bfloat16 from(float x) { return __float2bfloat16(x); }
};
template <class T>
DL_DEVICE T from_float(float x) {
  return Convert<T>::from(x);
}

// Two 16-bit numbers in a register, `low` at the lower address.
template <class T>
DL_DEVICE unsigned pack(float low, float high) {
  return static_cast<unsigned>(from_float<T>(low).bits) | static_cast<unsigned>(from_float<T>(high).bits) << 16;
}
template <class T>
DL_DEVICE float2 unpack(unsigned pair) {
  T low, high;
  low.bits = static_cast<unsigned short>(pair);
  high.bits = static_cast<unsigned short>(pair >> 16);
  return make_float2(to_float(low), to_float(high));
}

// ---- cp.async: copies of 4, 8 or 16 bytes from global to shared memory that end at a wait

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // which has no cp.async: a copy has ended when it returns
#define DL_COPY_AT_ONCE
#endif

#ifndef DL_SIM
DL_DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
#endif

// `valid` false: reads nothing and writes zeros; `global` must be a valid pointer all the same.
template <int BYTES>
DL_DEVICE void cp_async(void* shared, const void* global, bool valid = true) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#ifdef DL_SIM
  simt_cp_async(shared, global, BYTES, valid ? BYTES : 0);
#elif defined(DL_COPY_AT_ONCE)
  unsigned* to = static_cast<unsigned*>(shared);
  DL_UNROLL
  for (int i = 0; i < BYTES / 4; ++i) to[i] = valid ? static_cast<const unsigned*>(global)[i] : 0u;
#else
  int bytes = valid ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global), "n"(BYTES),
                 "r"(bytes)
                 : "memory");
#endif
}

DL_DEVICE void cp_async_commit() {
#ifdef DL_SIM
  simt_cp_async_commit();
#elif !defined(DL_COPY_AT_ONCE)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most GROUPS of this thread's committed groups are under way. Other threads' copies need a barrier
// after it.
template <int GROUPS>
DL_DEVICE void cp_async_wait() {
#ifdef DL_SIM
  simt_cp_async_wait(GROUPS);
#elif !defined(DL_COPY_AT_ONCE)
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

// ---- tensor cores (PTX ISA, "Matrix multiply-accumulate operation using mma instruction")

// Loads N 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 (16-byte aligned).
// Every lane gets elements (l / 4, 2 (l % 4)) and the next one of each matrix, of its transpose if TRANSPOSED.
template <int N, bool TRANSPOSED = false>
#ifdef DL_SIM
DL_DEVICE void ldmatrix(unsigned (&fragment)[N], const void* row, SIMT_LINE) {
#else
DL_DEVICE void ldmatrix(unsigned (&fragment)[N], const void* row) {
#endif
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
#ifdef DL_SIM
  uint4 loaded = simt_ldmatrix(row, N, TRANSPOSED, line);
  fragment[0] = loaded.x;
  if constexpr (N >= 2) fragment[1] = loaded.y;
  if constexpr (N == 4) fragment[2] = loaded.z, fragment[3] = loaded.w;
#else
  unsigned address = shared_address(row);
  if constexpr (N == 4 && TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 2 && TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(address)
                 : "memory");
  else if constexpr (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(fragment[0])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(fragment[0]) : "r"(address) : "memory");
#endif
}

// d[16x8] += a[16xK] b[Kx8] by a warp, K = 16, or 8 for tf32. With g = lane / 4, t = lane % 4:
// 16-bit: a = (g, 2t..2t+1), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..); b = (2t..2t+1, g), (2t+8.., g)
// tf32:   a = (g, t), (g+8, t), (g, t+4), (g+8, t+4);                b = (t, g), (t+4, g)
// d = (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)
#ifdef DL_SIM
#define DL_MMA(name, kind, ptx)                                                                          \
  DL_DEVICE void name(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SIMT_LINE) {        \
    float4 sum = simt_mma(kind, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}, line); \
    d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;                                              \
  }
#else
#define DL_MMA(name, kind, ptx)                                                                             \
  DL_DEVICE void name(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {                      \
    asm volatile("mma.sync.aligned." ptx " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                       \
  }
#endif
DL_MMA(mma_m16n8k8_tf32, simt::kTf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
DL_MMA(mma_m16n8k16_bf16, simt::kBf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
DL_MMA(mma_m16n8k16_f16, simt::kF16, "m16n8k16.row.col.f32.f16.f16.f32")
#undef DL_MMA

// What tensor cores, which ignore the lowest 13 bits, take for x rounded to tf32 (10 bits of mantissa), ties away from
// zero. Infinities and NaNs stay as they are.
DL_DEVICE unsigned cvt_tf32(float x) {
  unsigned bits = __float_as_uint(x);
  if (fabsf(x) < INFINITY) bits += 0x1000u;
  return bits;
}

// 2**x by the instruction made for it: relative error 2**-22; results below 2**-126 are 0.
DL_DEVICE float exp2_approx(float x) {
#ifdef DL_SIM
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// ---- warps and grids

DL_DEVICE float warp_sum(float x) {  // the same bits in every lane
  DL_UNROLL for (int lanes = 16; lanes; lanes >>= 1) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}
DL_DEVICE float warp_max(float x) {
  DL_UNROLL for (int lanes = 16; lanes; lanes >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}

// Barrier of all threads of a cooperative launch. `counter` points to a zero in global memory, and is left so that it
// can be used again without clearing: each barrier adds 2^31 to it in all, so the top bit tells one from the next.
#ifdef DL_SIM
DL_DEVICE void grid_sync(unsigned*, SIMT_LINE) { simt_grid_sync(line); }
#else
DL_DEVICE void grid_sync(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    bool first = blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0;
    __threadfence();
    unsigned before = atomicAdd(counter, first ? 0x80000000u - (blocks - 1) : 1u);
    while (((before ^ *reinterpret_cast<volatile unsigned*>(counter)) & 0x80000000u) == 0) {
    }
    __threadfence();
  }
  __syncthreads();
}
#endif

}  // namespace dl
