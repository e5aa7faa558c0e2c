// Memory: guard zones around every allocation, 0xFF in it until it is written.
#include <stdlib.h>

#include <algorithm>
#include <map>

#include "driver.h"

namespace {

constexpr size_t kGuardBytes = 256;
constexpr int kGuardByte = 0xfd;
struct Allocation {
  std::unique_ptr<char, decltype(&free)> memory{nullptr, free};
  size_t bytes = 0;
};

std::map<CUdeviceptr, Allocation> allocations;

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

}  // namespace

extern "C" {

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
  ++live_objects;
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
  --live_objects;
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
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return in_order(stream, [=] { return cuMemcpyHtoD_v2(to, from, bytes); });
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return in_order(stream, [=] { return cuMemcpyDtoH_v2(to, from, bytes); });
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return in_order(stream, [=] { return cuMemcpyDtoD_v2(to, from, bytes); });
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
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return in_order(stream, [=] { return cuMemsetD8_v2(to, value, count); });
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return in_order(stream, [=] { return cuMemsetD32_v2(to, value, count); });
}
CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) {
  *pointer = malloc(bytes ? bytes : 1);
  return *pointer ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFreeHost(void* pointer) { return free(pointer), CUDA_SUCCESS; }

}  // extern "C"
