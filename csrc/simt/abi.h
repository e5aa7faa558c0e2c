// What a compiled kernel file and the emulator's runtime know of each other.
#pragma once
#include <stddef.h>

#include "types.h"

namespace simt {

// A static __shared__ array that a kernel uses, itself or through the functions that it calls.
// The table of each kernel ends with a null address; it is written by dlcore/sim/build.py.
struct SharedArray {
  char* address;
  size_t bytes;
  const char* symbol;
};

// What DL_EXPORT says about a kernel. `signature` has one letter per parameter: P pointer, f float, d double,
// i 4-byte, l 8-byte, h 2-byte, b 1-byte integer, s anything else (a struct).
struct Kernel {
  const char* name;
  const char* signature;
  const unsigned* sizes;           // bytes of each parameter
  void (*call)(void** arguments);  // runs one thread
  const SharedArray* shared;
  bool checked;  // whether the compiler put calls before accesses to memory
  const Kernel* next;
};

enum ShuffleMode { kShuffle, kShuffleUp, kShuffleDown, kShuffleXor };
enum BarrierReduction { kCount, kAnd, kOr };
enum AtomicOp { kAdd, kExchange, kCompareAndSwap, kMin, kMax, kAnd_, kOr_, kXor };
enum MmaKind { kTf32, kBf16, kF16 };

}  // namespace simt

#ifdef SIMT_RUNTIME
#define SIMT_BUILT_IN
#else
#define SIMT_BUILT_IN const  // constant to each thread: the compiler may keep them in registers
#endif

// `line` tells barriers of one source line from those of another.
extern "C" {
extern SIMT_BUILT_IN uint3 threadIdx, blockIdx, blockDim, gridDim;

void simt_syncthreads(int line);
int simt_syncthreads_reduce(int predicate, int reduction, int line);
void simt_grid_sync(int line);
void simt_threadfence();

void simt_syncwarp(unsigned mask, int line);
unsigned long long simt_shuffle(unsigned mask, unsigned long long bits, int mode, int argument, int width, int line);
unsigned simt_ballot(unsigned mask, int predicate, int line);
uint4 simt_ldmatrix(const void* row, int matrices, int transposed, int line);
float4 simt_mma(int kind, uint4 a, uint2 b, float4 c, int line);

unsigned simt_atomic32(unsigned* address, int operation, int is_signed, unsigned value, unsigned compare);
unsigned long long simt_atomic64(unsigned long long* address, int operation, int is_signed, unsigned long long value,
                                 unsigned long long compare);

void simt_cp_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes);
void simt_cp_async_commit();
void simt_cp_async_wait(int groups_left);

void* simt_dynamic_shared() __attribute__((const));
[[noreturn]] void simt_trap();
}
