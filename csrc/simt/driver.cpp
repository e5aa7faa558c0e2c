// libcuda_sim: the functions of the CUDA driver API that dlcore calls, with their true names and signatures, over the
// emulator. Launches are synchronous and report their failure at once; the error stays until dlsim_clear_error.
// Signatures and numbers: CUDA Driver API, cuda.h.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "check.h"

namespace {

enum CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE = 720,
};

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
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
     "too many blocks in cooperative launch"},
};

// The device that is emulated: limits of an sm_80, with few multiprocessors, so that grids which fill it stay small.
constexpr int kStaticAndDynamicShared = 48 * 1024, kOptInShared = 163 * 1024, kSharedPerMultiprocessor = 164 * 1024;
constexpr int kThreadsPerBlock = 1024, kThreadsPerMultiprocessor = 2048, kBlocksPerMultiprocessor = 32;
constexpr int kClockKhz = 1000000;
int multiprocessors = 8;

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
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};
struct CUstream_st {};
struct CUctx_st {};

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = CUctx_st*;
using CUmodule = CUmod*;
using CUfunction = CUfunc*;
using CUstream = CUstream_st*;
using CUevent = CUevent_st*;

constexpr size_t kGuardBytes = 256;
constexpr int kGuardByte = 0xfd;
struct Allocation {
  std::unique_ptr<char, decltype(&free)> memory{nullptr, free};
  size_t bytes = 0;
};

std::recursive_mutex mutex;
CUctx_st context;
std::map<CUdeviceptr, Allocation> allocations;
std::string problem;  // what the last failing call was about
CUresult sticky = CUDA_SUCCESS;
size_t live_streams = 0, live_events = 0, live_modules = 0;
unsigned long long launches = 0;

CUresult refuse(CUresult code, std::string text) {
  problem = std::move(text);
  return code;
}

template <class... Numbers>
std::string format(const char* pattern, Numbers... numbers) {  // each number as %lld
  char text[256];
  snprintf(text, sizeof text, pattern, static_cast<long long>(numbers)...);
  return text;
}

bool allocated(CUdeviceptr pointer, size_t bytes) {
  auto next = allocations.upper_bound(pointer);
  if (next == allocations.begin()) return false;
  auto& [start, allocation] = *std::prev(next);
  return pointer - start <= allocation.bytes && bytes <= allocation.bytes - (pointer - start);
}

CUresult check_range(const char* call, CUdeviceptr pointer, size_t bytes) {
  if (sticky) return sticky;
  if (bytes == 0 || allocated(pointer, bytes)) return CUDA_SUCCESS;
  return refuse(CUDA_ERROR_INVALID_VALUE,
                std::string(call) + format(": %lld bytes at %#llx are not within an allocation", bytes, pointer));
}

CUresult copy(void* to, const void* from, size_t bytes) {
  memmove(to, from, bytes);
  return CUDA_SUCCESS;
}

void* host(CUdeviceptr pointer) { return reinterpret_cast<void*>(pointer); }

bool guards_intact(CUdeviceptr pointer, size_t bytes) {
  auto* data = static_cast<unsigned char*>(host(pointer));
  for (size_t i = 1; i <= kGuardBytes; ++i)
    if (data[-static_cast<ptrdiff_t>(i)] != kGuardByte || data[bytes + i - 1] != kGuardByte) return false;
  return true;
}

// ---- launches

struct Shape {
  dim3 grid, block;
  unsigned dynamic_bytes;
  size_t blocks() const { return size_t(grid.x) * grid.y * grid.z; }
  size_t threads() const { return size_t(block.x) * block.y * block.z; }
};

CUresult check_shape(const CUfunc& f, const Shape& s) {
  const std::string name = f.kernel->name;
  if (s.blocks() == 0 || s.threads() == 0)
    return refuse(CUDA_ERROR_INVALID_VALUE, name + ": a dimension of grid or block is 0");
  if (s.grid.x > 0x7fffffffu || s.grid.y > 65535 || s.grid.z > 65535)
    return refuse(CUDA_ERROR_INVALID_VALUE, name + ": the grid exceeds 2147483647 x 65535 x 65535 blocks");
  if (s.threads() > kThreadsPerBlock || s.block.z > 64)
    return refuse(CUDA_ERROR_INVALID_VALUE, name + format(": a block of %lld threads; at most %lld, and 64 along z",
                                                          s.threads(), kThreadsPerBlock));
  if (static_cast<int>(s.dynamic_bytes) + f.static_bytes() >
          std::max(f.dynamic_limit + f.static_bytes(), kStaticAndDynamicShared) ||
      static_cast<int>(s.dynamic_bytes) > f.dynamic_limit)
    return refuse(
        CUDA_ERROR_INVALID_VALUE,
        name + format(": %lld bytes of dynamic shared memory; at most %lld unless cuFuncSetAttribute allows more",
                      s.dynamic_bytes, f.dynamic_limit));
  if (f.static_bytes() > kStaticAndDynamicShared)
    return refuse(CUDA_ERROR_INVALID_VALUE, name + format(": %lld bytes of static shared memory; at most %lld",
                                                          f.static_bytes(), kStaticAndDynamicShared));
  return CUDA_SUCCESS;
}

int blocks_per_multiprocessor(const CUfunc& f, int threads, size_t dynamic_bytes) {
  size_t shared = dynamic_bytes + static_cast<size_t>(f.static_bytes());
  int warps = (threads + 31) / 32,
      blocks = std::min(kBlocksPerMultiprocessor, kThreadsPerMultiprocessor / 32 / std::max(warps, 1));
  return shared ? std::min<int>(blocks, static_cast<int>(kSharedPerMultiprocessor / (shared + 1024))) : blocks;
}

// Arguments laid out one after the other, each aligned to its own size (CU_LAUNCH_PARAM_BUFFER_POINTER of `extra`).
size_t offset_of(const CUfunc& f, size_t parameter) {
  size_t offset = 0;
  for (size_t i = 0;; ++i) {
    size_t size = f.kernel->sizes[i], alignment = std::min<size_t>(size & -size, 16);
    if (alignment) offset = (offset + alignment - 1) / alignment * alignment;
    if (i == parameter) return offset;
    offset += size;
  }
}

CUresult unpack(const CUfunc& f, void** extra, std::vector<void*>& arguments) {
  char* buffer = nullptr;
  size_t bytes = 0;
  for (; *extra; extra += 2) {
    auto tag = reinterpret_cast<uintptr_t>(extra[0]);
    if (tag == 1) buffer = static_cast<char*>(extra[1]);
    if (tag == 2) bytes = *static_cast<size_t*>(extra[1]);
  }
  size_t count = f.parameters(), needed = count ? offset_of(f, count - 1) + f.kernel->sizes[count - 1] : 0;
  if (!buffer || bytes < needed || bytes >= needed + 16)
    return refuse(CUDA_ERROR_INVALID_VALUE,
                  std::string(f.kernel->name) + format(": %lld bytes of arguments, expected %lld", bytes, needed));
  for (size_t i = 0; i < count; ++i) arguments.push_back(buffer + offset_of(f, i));
  return CUDA_SUCCESS;
}

CUresult launch(CUfunction f, const Shape& shape, bool cooperative, void** parameters, void** extra) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  if (sticky) return sticky;
  if (!f) return refuse(CUDA_ERROR_INVALID_HANDLE, "launch: the function is null");
  if (CUresult bad = check_shape(*f, shape)) return bad;
  size_t room =
      static_cast<size_t>(blocks_per_multiprocessor(*f, static_cast<int>(shape.threads()), shape.dynamic_bytes)) *
      multiprocessors;
  if (cooperative && shape.blocks() > room)
    return refuse(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
                  f->kernel->name + format(": %lld blocks, but only %lld fit on the device", shape.blocks(), room));
  std::vector<void*> unpacked;
  if (extra && !parameters) {
    if (CUresult bad = unpack(*f, extra, unpacked)) return bad;
    parameters = unpacked.data();
  }
  if (f->parameters() && !parameters)
    return refuse(CUDA_ERROR_INVALID_VALUE, std::string(f->kernel->name) + ": no arguments");
  ++launches;
  if (simt::run({f->kernel, shape.grid, shape.block, shape.dynamic_bytes, cooperative, parameters}))
    return CUDA_SUCCESS;
  return sticky = refuse(CUDA_ERROR_LAUNCH_FAILED, simt::machine.error);
}

CUresult device_attribute(int attribute, int* value) {
  switch (attribute) {  // CU_DEVICE_ATTRIBUTE_...
    case 1:
      *value = kThreadsPerBlock;
      return CUDA_SUCCESS;
    case 2:
    case 3:
      *value = kThreadsPerBlock;
      return CUDA_SUCCESS;
    case 4:
      *value = 64;
      return CUDA_SUCCESS;
    case 5:
      *value = 0x7fffffff;
      return CUDA_SUCCESS;
    case 6:
    case 7:
      *value = 65535;
      return CUDA_SUCCESS;
    case 8:
      *value = kStaticAndDynamicShared;
      return CUDA_SUCCESS;
    case 10:
      *value = 32;
      return CUDA_SUCCESS;
    case 12:
      *value = 65536;
      return CUDA_SUCCESS;
    case 13:
      *value = kClockKhz;
      return CUDA_SUCCESS;
    case 16:
      *value = multiprocessors;
      return CUDA_SUCCESS;
    case 39:
      *value = kThreadsPerMultiprocessor;
      return CUDA_SUCCESS;
    case 41:
      *value = 1;
      return CUDA_SUCCESS;  // unified addressing
    case 38:
      *value = 4 * 1024 * 1024;
      return CUDA_SUCCESS;  // L2 bytes
    case 75:
      *value = 8;
      return CUDA_SUCCESS;  // compute capability 8.0
    case 76:
      *value = 0;
      return CUDA_SUCCESS;
    case 81:
      *value = kSharedPerMultiprocessor;
      return CUDA_SUCCESS;
    case 82:
      *value = 65536;
      return CUDA_SUCCESS;
    case 95:
      *value = 1;
      return CUDA_SUCCESS;  // cooperative launch
    case 97:
      *value = kOptInShared;
      return CUDA_SUCCESS;
    case 106:
      *value = kBlocksPerMultiprocessor;
      return CUDA_SUCCESS;
    case 111:
      *value = 1024;
      return CUDA_SUCCESS;  // shared memory reserved per block
    default:
      return refuse(CUDA_ERROR_INVALID_VALUE,
                    format("cuDeviceGetAttribute: the emulator does not know attribute %lld", attribute));
  }
}

}  // namespace

#define LOCKED std::lock_guard<std::recursive_mutex> lock(mutex)

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
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice) { return device_attribute(attribute, value); }
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { return *bytes = size_t(16) << 30, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* result, CUdevice) { return *result = &context, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* result) { return *result = &context, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() { return sticky; }
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

// ---- modules and functions

// The image is the text "SIMT:" and the path of a compiled kernel file.
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  LOCKED;
  auto* text = static_cast<const char*>(image);
  if (strncmp(text, "SIMT:", 5) != 0)
    return refuse(CUDA_ERROR_INVALID_IMAGE, "the image is not for the emulator (SIMT:path)");
  void* library = dlopen(text + 5, RTLD_NOW | RTLD_LOCAL);
  if (!library) return refuse(CUDA_ERROR_INVALID_IMAGE, dlerror());
  auto* kernels = static_cast<const simt::Kernel**>(dlsym(library, "simt_kernels"));
  auto loaded = std::make_unique<CUmod>();
  loaded->library = library;
  for (const simt::Kernel* kernel = kernels ? *kernels : nullptr; kernel; kernel = kernel->next)
    loaded->functions.push_back(std::make_unique<CUfunc>(CUfunc{kernel, loaded.get()}));
  ++live_modules;
  *module = loaded.release();
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  LOCKED;
  dlclose(module->library);
  delete module;
  --live_modules;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  LOCKED;
  for (auto& candidate : module->functions)
    if (strcmp(candidate->kernel->name, name) == 0) return *function = candidate.get(), CUDA_SUCCESS;
  return refuse(CUDA_ERROR_NOT_FOUND, std::string("no kernel ") + name + " in the image (is there a DL_EXPORT?)");
}
CUresult cuModuleGetFunctionCount(unsigned* count, CUmodule module) {
  return *count = static_cast<unsigned>(module->functions.size()), CUDA_SUCCESS;
}
CUresult cuModuleEnumerateFunctions(CUfunction* functions, unsigned count, CUmodule module) {
  for (unsigned i = 0; i < count && i < module->functions.size(); ++i) functions[i] = module->functions[i].get();
  return CUDA_SUCCESS;
}
CUresult cuFuncGetName(const char** name, CUfunction function) { return *name = function->kernel->name, CUDA_SUCCESS; }
CUresult cuFuncGetModule(CUmodule* module, CUfunction function) { return *module = function->module, CUDA_SUCCESS; }
CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* size) {
  if (index >= function->parameters()) return CUDA_ERROR_INVALID_VALUE;
  *offset = offset_of(*function, index);
  if (size) *size = function->kernel->sizes[index];
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
  switch (attribute) {  // CU_FUNC_ATTRIBUTE_...
    case 0:
      *value = kThreadsPerBlock;
      return CUDA_SUCCESS;
    case 1:
      *value = function->static_bytes();
      return CUDA_SUCCESS;
    case 2:
    case 3:
      *value = 0;
      return CUDA_SUCCESS;  // constant and local memory: not known
    case 4:
      *value = 32;
      return CUDA_SUCCESS;  // registers: not known
    case 5:
    case 6:
      *value = 80;
      return CUDA_SUCCESS;  // PTX and binary version
    case 8:
      *value = function->dynamic_limit;
      return CUDA_SUCCESS;
    default:
      return refuse(CUDA_ERROR_INVALID_VALUE,
                    format("cuFuncGetAttribute: the emulator does not know attribute %lld", attribute));
  }
}
CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  LOCKED;
  if (attribute == 9) return CUDA_SUCCESS;  // preferred carve-out: a hint
  if (attribute != 8)
    return refuse(CUDA_ERROR_INVALID_VALUE,
                  format("cuFuncSetAttribute: the emulator does not know attribute %lld", attribute));
  if (value < 0 || value + function->static_bytes() > kOptInShared)
    return refuse(CUDA_ERROR_INVALID_VALUE,
                  function->kernel->name + format(": %lld bytes of dynamic shared memory; the device has %lld", value,
                                                  kOptInShared - function->static_bytes()));
  function->dynamic_limit = value;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads,
                                                     size_t dynamic_bytes) {
  return *blocks = blocks_per_multiprocessor(*function, threads, dynamic_bytes), CUDA_SUCCESS;
}

// ---- launches

CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned dynamic_bytes, CUstream, void** parameters, void** extra) {
  return launch(f, {{gx, gy, gz}, {bx, by, bz}, dynamic_bytes}, false, parameters, extra);
}
CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                   unsigned bz, unsigned dynamic_bytes, CUstream, void** parameters) {
  return launch(f, {{gx, gy, gz}, {bx, by, bz}, dynamic_bytes}, true, parameters, nullptr);
}

// ---- memory: guard zones around every allocation, 0xFF in it until it is written

CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  LOCKED;
  if (bytes == 0) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemAlloc: 0 bytes");
  size_t whole = (bytes + 255) / 256 * 256 + 2 * kGuardBytes;
  Allocation allocation;
  allocation.memory.reset(whole > bytes ? static_cast<char*>(aligned_alloc(256, whole)) : nullptr);
  if (!allocation.memory) return refuse(CUDA_ERROR_OUT_OF_MEMORY, format("cuMemAlloc: %lld bytes", bytes));
  memset(allocation.memory.get(), kGuardByte, whole);
  memset(allocation.memory.get() + kGuardBytes, 0xff, bytes);
  allocation.bytes = bytes;
  *pointer = reinterpret_cast<CUdeviceptr>(allocation.memory.get() + kGuardBytes);
  simt::add_global(*pointer, bytes, format("cuMemAlloc(%lld)", bytes), false, false);
  allocations[*pointer] = std::move(allocation);
  return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr pointer) {
  LOCKED;
  if (pointer == 0) return CUDA_SUCCESS;
  auto found = allocations.find(pointer);
  if (found == allocations.end()) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFree: not the start of an allocation");
  size_t bytes = found->second.bytes;
  bool intact = guards_intact(pointer, bytes);
  allocations.erase(found);
  simt::remove_global(pointer);
  if (intact) return CUDA_SUCCESS;
  return refuse(CUDA_ERROR_LAUNCH_FAILED,
                format("cuMemFree: somebody wrote before or after the %lld bytes of the allocation", bytes));
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  LOCKED;
  if (CUresult bad = check_range("cuMemcpyHtoD", to, bytes)) return bad;
  simt::mark_initialised(to, bytes);
  return copy(host(to), from, bytes);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  LOCKED;
  if (CUresult bad = check_range("cuMemcpyDtoH", from, bytes)) return bad;
  return copy(to, host(from), bytes);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  LOCKED;
  if (CUresult bad = check_range("cuMemcpyDtoD", from, bytes)) return bad;
  if (CUresult bad = check_range("cuMemcpyDtoD", to, bytes)) return bad;
  simt::mark_initialised(to, bytes);
  return copy(host(to), host(from), bytes);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
  return cuMemcpyHtoD_v2(to, from, bytes);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream) {
  return cuMemcpyDtoH_v2(to, from, bytes);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
  return cuMemcpyDtoD_v2(to, from, bytes);
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  LOCKED;
  if (CUresult bad = check_range("cuMemsetD8", to, count)) return bad;
  simt::mark_initialised(to, count);
  memset(host(to), value, count);
  return CUDA_SUCCESS;
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  LOCKED;
  if (CUresult bad = check_range("cuMemsetD32", to, count * 4)) return bad;
  simt::mark_initialised(to, count * 4);
  std::fill_n(static_cast<unsigned*>(host(to)), count, value);
  return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream) {
  return cuMemsetD8_v2(to, value, count);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream) {
  return cuMemsetD32_v2(to, value, count);
}
CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) {
  *pointer = malloc(bytes ? bytes : 1);
  return *pointer ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFreeHost(void* pointer) { return free(pointer), CUDA_SUCCESS; }

// ---- streams and events: everything is done when a call returns

CUresult cuStreamCreate(CUstream* stream, unsigned) { return *stream = new CUstream_st, ++live_streams, CUDA_SUCCESS; }
CUresult cuStreamDestroy_v2(CUstream stream) { return delete stream, --live_streams, CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return sticky; }
CUresult cuStreamQuery(CUstream) { return sticky; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return sticky; }
CUresult cuEventCreate(CUevent* event, unsigned) { return *event = new CUevent_st, ++live_events, CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent event) { return delete event, --live_events, CUDA_SUCCESS; }
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
  return allocations.size() + live_modules + live_streams + live_events;
}

}  // extern "C"
