// The CUDA execution model as a kernel sees it, for g++: keywords, built-in variables, barriers, warp functions,
// atomics. Included by kernels/include/dl.cuh when DL_SIM is defined. The functions are implemented in the runtime
// (abi.h).
#pragma once
#include <string.h>

#include <type_traits>
#include <utility>

#include "abi.h"
#include "intrinsics.h"
#include "types.h"

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ __attribute__((always_inline)) inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static  // moved to a section of its own by dlcore/sim/build.py
#define __constant__ static const
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

#define SIMT_INLINE __attribute__((always_inline)) inline
#define SIMT_LINE int line = __builtin_LINE()

static const int warpSize = 32;

// ---- barriers and fences

SIMT_INLINE void __syncthreads(SIMT_LINE) { simt_syncthreads(line); }
SIMT_INLINE int __syncthreads_count(int p, SIMT_LINE) { return simt_syncthreads_reduce(p, simt::kCount, line); }
SIMT_INLINE int __syncthreads_and(int p, SIMT_LINE) { return simt_syncthreads_reduce(p, simt::kAnd, line); }
SIMT_INLINE int __syncthreads_or(int p, SIMT_LINE) { return simt_syncthreads_reduce(p, simt::kOr, line); }
SIMT_INLINE void __syncwarp(unsigned mask = ~0u, SIMT_LINE) { simt_syncwarp(mask, line); }
SIMT_INLINE void __threadfence() { simt_threadfence(); }
SIMT_INLINE void __threadfence_block() {}
SIMT_INLINE void __trap() { simt_trap(); }

// ---- warp functions

namespace simt {

template <class T>
SIMT_INLINE T shuffle(unsigned mask, T value, int mode, int argument, int width, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "shuffles move at most 8 bytes");
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = simt_shuffle(mask, bits, mode, argument, width, line);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

template <class T>
SIMT_INLINE T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_LINE) {
  return simt::shuffle(mask, value, simt::kShuffle, lane, width, line);
}
template <class T>
SIMT_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_LINE) {
  return simt::shuffle(mask, value, simt::kShuffleUp, static_cast<int>(delta), width, line);
}
template <class T>
SIMT_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_LINE) {
  return simt::shuffle(mask, value, simt::kShuffleDown, static_cast<int>(delta), width, line);
}
template <class T>
SIMT_INLINE T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_LINE) {
  return simt::shuffle(mask, value, simt::kShuffleXor, lanes, width, line);
}
SIMT_INLINE unsigned __ballot_sync(unsigned mask, int p, SIMT_LINE) { return simt_ballot(mask, p, line); }
SIMT_INLINE int __any_sync(unsigned mask, int p, SIMT_LINE) { return simt_ballot(mask, p, line) != 0; }
SIMT_INLINE int __all_sync(unsigned mask, int p, SIMT_LINE) { return simt_ballot(mask, !p, line) == 0; }

// ---- atomics on 4- and 8-byte integers

namespace simt {

template <class T>
SIMT_INLINE T atomic(T* address, AtomicOp operation, T value, T compare = T()) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "atomics take 4- and 8-byte integers only");
  if constexpr (sizeof(T) == 4)
    return static_cast<T>(simt_atomic32(reinterpret_cast<unsigned*>(address), operation, std::is_signed_v<T>,
                                        static_cast<unsigned>(value), static_cast<unsigned>(compare)));
  else
    return static_cast<T>(simt_atomic64(reinterpret_cast<unsigned long long*>(address), operation, std::is_signed_v<T>,
                                        static_cast<unsigned long long>(value),
                                        static_cast<unsigned long long>(compare)));
}

template <class T>
using Same = typename std::common_type<T>::type;  // a parameter that takes no part in deduction

}  // namespace simt

#define SIMT_ATOMIC(name, operation)                         \
  template <class T>                                         \
  SIMT_INLINE T name(T* address, simt::Same<T> value) {      \
    return simt::atomic<T>(address, simt::operation, value); \
  }
SIMT_ATOMIC(atomicAdd, kAdd)
SIMT_ATOMIC(atomicExch, kExchange)
SIMT_ATOMIC(atomicMin, kMin)
SIMT_ATOMIC(atomicMax, kMax)
SIMT_ATOMIC(atomicAnd, kAnd_)
SIMT_ATOMIC(atomicOr, kOr_)
SIMT_ATOMIC(atomicXor, kXor)
#undef SIMT_ATOMIC

template <class T>
SIMT_INLINE T atomicCAS(T* address, simt::Same<T> compare, simt::Same<T> value) {
  return simt::atomic<T>(address, simt::kCompareAndSwap, value, compare);
}

// ---- export of kernels

namespace simt {

#ifdef __SANITIZE_THREAD__
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

template <class T>
constexpr char letter() {
  if (std::is_pointer_v<T>) return 'P';
  if (std::is_floating_point_v<T>) return sizeof(T) == 4 ? 'f' : 'd';
  if (!std::is_integral_v<T>) return 's';
  return sizeof(T) == 8 ? 'l' : sizeof(T) == 4 ? 'i' : sizeof(T) == 2 ? 'h' : 'b';
}

template <auto function, class Function = decltype(function)>
struct Trampoline;

template <auto function, class... Parameters>
struct Trampoline<function, void (*)(Parameters...)> {
  static constexpr char signature[] = {letter<Parameters>()..., '\0'};
  static constexpr unsigned sizes[] = {sizeof(Parameters)..., 0};

  static __attribute__((no_sanitize("thread", "undefined"))) void call(void** arguments) {
    call(arguments, std::index_sequence_for<Parameters...>());
  }

 private:
  template <size_t... i>
  static __attribute__((no_sanitize("thread", "undefined"))) void call(void** arguments, std::index_sequence<i...>) {
    function(*static_cast<std::remove_reference_t<Parameters>*>(arguments[i])...);
  }
};

}  // namespace simt

extern "C" {
inline const simt::Kernel* simt_kernels = nullptr;  // the kernels of this file, newest first
}

namespace simt {

struct Exported : Kernel {
  explicit Exported(const Kernel& kernel) : Kernel(kernel) {
    next = simt_kernels;
    simt_kernels = this;
  }
};

}  // namespace simt
