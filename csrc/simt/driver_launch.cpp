// Modules, functions, launches.
#include <dlfcn.h>

#include <algorithm>

#include "driver.h"

namespace {

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
  if (static_cast<int>(s.dynamic_bytes) > f.dynamic_limit)
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

CUresult run(CUfunction f, const Shape& shape, bool cooperative, void** parameters) {
  if (sticky) return sticky;
  ++launches;
  if (simt::run({f->kernel, shape.grid, shape.block, shape.dynamic_bytes, cooperative, parameters}))
    return CUDA_SUCCESS;
  return sticky = refuse(CUDA_ERROR_LAUNCH_FAILED, simt::machine.error);
}

// A launch whose arguments are kept.
struct Later {
  CUfunction function;
  Shape shape;
  bool cooperative;
  std::vector<std::string> arguments;

  Later(CUfunction f, const Shape& s, bool c, void** parameters) : function(f), shape(s), cooperative(c) {
    for (size_t i = 0; i < f->parameters(); ++i)
      arguments.emplace_back(static_cast<char*>(parameters[i]), f->kernel->sizes[i]);
  }
  CUresult operator()() {
    std::vector<void*> parameters;
    for (std::string& argument : arguments) parameters.push_back(argument.data());
    return run(function, shape, cooperative, parameters.data());
  }
};

CUresult launch(CUfunction f, const Shape& shape, bool cooperative, CUstream stream, void** parameters, void** extra) {
  LOCKED;
  if (sticky) return sticky;
  if (!current) return refuse(CUDA_ERROR_INVALID_CONTEXT, "launch: this thread has no current context");
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
  if (recording && stream == recorded) return in_order(stream, Later(f, shape, cooperative, parameters));
  return run(f, shape, cooperative, parameters);
}

}  // namespace

extern "C" {

// ---- modules and functions

// The image is the text "SIMT:" and the path of a compiled kernel file; "SASS:" stands for code of another device.
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  LOCKED;
  auto* text = static_cast<const char*>(image);
  if (strncmp(text, "SASS:", 5) == 0)
    return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device");
  if (strncmp(text, "SIMT:", 5) != 0)
    return refuse(CUDA_ERROR_INVALID_IMAGE, "the image is not for the emulator (SIMT:path)");
  void* library = dlopen(text + 5, RTLD_NOW | RTLD_LOCAL);
  if (!library) return refuse(CUDA_ERROR_INVALID_IMAGE, dlerror());
  auto* kernels = static_cast<const simt::Kernel**>(dlsym(library, "simt_kernels"));
  auto loaded = std::make_unique<CUmod>();
  loaded->library = library;
  for (const simt::Kernel* kernel = kernels ? *kernels : nullptr; kernel; kernel = kernel->next)
    loaded->functions.push_back(std::make_unique<CUfunc>(CUfunc{kernel, loaded.get()}));
  ++live_objects;
  *module = loaded.release();
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  LOCKED;
  dlclose(module->library);
  delete module;
  --live_objects;
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
  // CU_FUNC_ATTRIBUTE_...: threads, shared, constant and local bytes, registers (unknown), PTX and binary version,
  // cached loads, dynamic shared bytes
  const int values[] = {kThreadsPerBlock, function->static_bytes(), 0, 0, 32, 80, 80, 0, function->dynamic_limit};
  if (attribute < 0 || attribute > 8)
    return refuse(CUDA_ERROR_INVALID_VALUE,
                  format("cuFuncGetAttribute: the emulator does not know attribute %lld", attribute));
  return *value = values[attribute], CUDA_SUCCESS;
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
                        unsigned dynamic_bytes, CUstream stream, void** parameters, void** extra) {
  return launch(f, {{gx, gy, gz}, {bx, by, bz}, dynamic_bytes}, false, stream, parameters, extra);
}
CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                   unsigned bz, unsigned dynamic_bytes, CUstream stream, void** parameters) {
  return launch(f, {{gx, gy, gz}, {bx, by, bz}, dynamic_bytes}, true, stream, parameters, nullptr);
}

}  // extern "C"
