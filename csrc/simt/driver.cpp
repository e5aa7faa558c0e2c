// The device, its context, streams, events, errors, and the control of the emulator.
#include "driver.h"

#include <chrono>

std::recursive_mutex driver_mutex;
thread_local CUcontext current = nullptr;
CUresult sticky = CUDA_SUCCESS;
std::string problem;
size_t live_objects = 0;
unsigned long long launches = 0;
int multiprocessors = 8;

struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};

namespace {

CUctx_st context;

struct Error {
  CUresult code;
  const char *name, *text;
};
const Error kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
     "too many blocks in cooperative launch"},
};

struct Attribute {
  int number, value;
};
// CU_DEVICE_ATTRIBUTE_...
const Attribute kAttributes[] = {
    {1, kThreadsPerBlock},            // MAX_THREADS_PER_BLOCK
    {2, kThreadsPerBlock},            // MAX_BLOCK_DIM_X
    {3, kThreadsPerBlock},            // MAX_BLOCK_DIM_Y
    {4, 64},                          // MAX_BLOCK_DIM_Z
    {5, 0x7fffffff},                  // MAX_GRID_DIM_X
    {6, 65535},                       // MAX_GRID_DIM_Y
    {7, 65535},                       // MAX_GRID_DIM_Z
    {8, kStaticAndDynamicShared},     // MAX_SHARED_MEMORY_PER_BLOCK
    {10, 32},                         // WARP_SIZE
    {12, 65536},                      // MAX_REGISTERS_PER_BLOCK
    {13, 1000000},                    // CLOCK_RATE, in kHz
    {36, 1000000},                    // MEMORY_CLOCK_RATE, in kHz
    {37, 512},                        // GLOBAL_MEMORY_BUS_WIDTH, in bits
    {38, 4 * 1024 * 1024},            // L2_CACHE_SIZE
    {39, kThreadsPerMultiprocessor},  // MAX_THREADS_PER_MULTIPROCESSOR
    {41, 1},                          // UNIFIED_ADDRESSING
    {75, 8},                          // COMPUTE_CAPABILITY_MAJOR
    {76, 0},                          // COMPUTE_CAPABILITY_MINOR
    {81, kSharedPerMultiprocessor},   // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
    {82, 65536},                      // MAX_REGISTERS_PER_MULTIPROCESSOR
    {95, 1},                          // COOPERATIVE_LAUNCH
    {97, kOptInShared},               // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    {106, kBlocksPerMultiprocessor},  // MAX_BLOCKS_PER_MULTIPROCESSOR
    {111, 1024},                      // RESERVED_SHARED_MEMORY_PER_BLOCK
};

}  // namespace

extern "C" {

// ---- initialisation, device, context

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (ordinal != 0) return refuse(CUDA_ERROR_INVALID_DEVICE, format("cuDeviceGet: no device %lld", ordinal));
  return *device = 0, CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int length, CUdevice) {
  snprintf(name, static_cast<size_t>(length), "SIMT emulator on the CPU");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice) {
  if (attribute == 16) return *value = multiprocessors, CUDA_SUCCESS;  // MULTIPROCESSOR_COUNT
  for (const Attribute& known : kAttributes)
    if (known.number == attribute) return *value = known.value, CUDA_SUCCESS;
  return refuse(CUDA_ERROR_INVALID_VALUE,
                format("cuDeviceGetAttribute: the emulator does not know attribute %lld", attribute));
}
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { return *bytes = size_t(16) << 30, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* result, CUdevice) { return *result = &context, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext chosen) { return current = chosen, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* result) { return *result = current, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() {
  if (recording) return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuCtxSynchronize: a stream is capturing");
  return sticky;
}
CUresult cuMemGetInfo_v2(size_t* available, size_t* total) {
  return *available = *total = size_t(16) << 30, CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult code, const char** name) {
  for (const Error& error : kErrors)
    if (error.code == code) return *name = error.name, CUDA_SUCCESS;
  return CUDA_ERROR_INVALID_VALUE;
}
// Tells more than the driver's: what the last failing call was about.
CUresult cuGetErrorString(CUresult code, const char** text) {
  LOCKED;
  static std::string full;
  for (const Error& error : kErrors)
    if (error.code == code) {
      full = code && !problem.empty() ? problem : error.text;
      return *text = full.c_str(), CUDA_SUCCESS;
    }
  return CUDA_ERROR_INVALID_VALUE;
}

// ---- streams and events: everything is done when a call returns

CUresult cuStreamCreate(CUstream* stream, unsigned) { return *stream = new CUstream_st, ++live_objects, CUDA_SUCCESS; }
CUresult cuStreamDestroy_v2(CUstream stream) { return delete stream, --live_objects, CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return cuCtxSynchronize(); }
CUresult cuStreamQuery(CUstream) { return sticky; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return sticky; }
CUresult cuEventCreate(CUevent* event, unsigned) { return *event = new CUevent_st, ++live_objects, CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent event) { return delete event, --live_objects, CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream) { return event->time = std::chrono::steady_clock::now(), sticky; }
CUresult cuEventSynchronize(CUevent) { return sticky; }
CUresult cuEventQuery(CUevent) { return sticky; }
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime(milliseconds, start, end);
}

// ---- control of the emulator, not part of the driver API

void dlsim_clear_error() {
  LOCKED;
  sticky = CUDA_SUCCESS;
  problem.clear();
}
// Order of threads and blocks: 0 forward, 1 reverse, 2 random with this seed. Copies by cp.async land as late as they
// may in order 0, as early in order 1, either way by the seed in order 2.
void dlsim_schedule(int order, unsigned long long seed) {
  LOCKED;
  simt::machine.order = static_cast<simt::Order>(order);
  simt::machine.seed = seed;
  simt::machine.eager_copies = order == 1 || (order == 2 && seed % 2);
}
// Memory that checked kernels may touch. Flags: 1 its values count as written, 2 read-only.
void dlsim_register(void* start, size_t bytes, const char* name, unsigned flags) {
  LOCKED;
  simt::add_global(reinterpret_cast<uintptr_t>(start), bytes, name, flags & 1, (flags & 2) != 0);
}
void dlsim_unregister(void* start) {
  LOCKED;
  if (recording) return recording->registered.push_back(start);
  simt::remove_global(reinterpret_cast<uintptr_t>(start));
}
// Texts of one record a line, fields separated by tabs; valid until the next call. The issues are those of the last
// launch.
const char* dlsim_issues() {
  LOCKED;
  static std::string text;
  return (text = simt::list_issues()).c_str();
}
const char* dlsim_take_counters() {
  LOCKED;
  static std::string text;
  return (text = simt::take_counters()).c_str();
}
const char* dlsim_take_traffic() {
  LOCKED;
  static std::string text;
  return (text = simt::take_traffic()).c_str();
}
// Seconds of the process's processor time that a launch may take before it is ended.
void dlsim_time_limit(unsigned seconds) { simt::machine.time_limit = seconds; }
void dlsim_multiprocessors(int count) { multiprocessors = count; }
const char* dlsim_signature(CUfunction function) { return function->kernel->signature; }
unsigned long long dlsim_launches() { return launches; }
// How many allocations, modules, streams and events are alive.
size_t dlsim_live() {
  LOCKED;
  return live_objects;
}

}  // extern "C"
