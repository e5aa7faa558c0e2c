// libcuda_sim: the functions of the CUDA driver API that dlcore calls, with their true names and signatures, over the
// emulator. Launches are synchronous and report their failure at once; the error stays until dlsim_clear_error.
// Signatures and numbers: CUDA Driver API, cuda.h.
#pragma once
#include <stdio.h>
#include <string.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "check.h"

enum CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_ILLEGAL_STATE = 401,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE = 720,
  CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
};

// The device that is emulated: limits of an sm_80, with few multiprocessors, so that grids which fill it stay small.
constexpr int kStaticAndDynamicShared = 48 * 1024, kOptInShared = 163 * 1024, kSharedPerMultiprocessor = 164 * 1024;
constexpr int kThreadsPerBlock = 1024, kThreadsPerMultiprocessor = 2048, kBlocksPerMultiprocessor = 32;
extern int multiprocessors;

struct CUmod;
struct CUfunc {
  const simt::Kernel* kernel;
  CUmod* module;
  int dynamic_limit = kStaticAndDynamicShared;

  size_t parameters() const { return strlen(kernel->signature); }
  int static_bytes() const {
    size_t bytes = 0;
    for (const simt::SharedArray* array = kernel->shared; array->address; ++array) bytes += array->bytes;
    return static_cast<int>(bytes);
  }
};
struct CUmod {
  void* library;
  std::vector<std::unique_ptr<CUfunc>> functions;
};
struct CUevent_st;
struct CUstream_st {};
struct CUctx_st {};

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = CUctx_st*;
using CUmodule = CUmod*;
using CUfunction = CUfunc*;
using CUstream = CUstream_st*;
using CUevent = CUevent_st*;

// ---- state of the driver, and the errors of its functions

extern std::recursive_mutex driver_mutex;
#define LOCKED std::lock_guard<std::recursive_mutex> lock(driver_mutex)

extern thread_local CUcontext current;  // of this thread
extern CUresult sticky;                 // the error that a failed launch left
extern std::string problem;             // what the last failing call was about
extern size_t live_objects;             // allocations, modules, streams and events
extern unsigned long long launches;

inline CUresult refuse(CUresult code, std::string text) {
  problem = std::move(text);
  return code;
}

// What a capturing stream was given. Memory that was registered for its launches stays so.
struct Recording {
  std::vector<std::function<CUresult()>> steps;
  std::vector<void*> registered;
  ~Recording();
};
extern std::shared_ptr<Recording> recording;  // under way, one at a time
extern CUstream recorded;                     // of which stream

// Does something now, or whenever the graph of a capturing stream is launched.
template <class Step>
CUresult in_order(CUstream stream, Step step) {
  if (!recording || stream != recorded) return step();
  recording->steps.push_back(step);
  return CUDA_SUCCESS;
}

template <class... Numbers>
std::string format(const char* pattern, Numbers... numbers) {  // each number as %lld
  char text[256];
  snprintf(text, sizeof text, pattern, static_cast<long long>(numbers)...);
  return text;
}
