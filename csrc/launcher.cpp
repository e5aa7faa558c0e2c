#include "launcher.h"

#include <dlfcn.h>

#include <memory>
#include <stdexcept>

namespace dlcore {

struct DriverApi {
  int (*cuInit)(unsigned);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(void**, int);
  int (*cuCtxSetCurrent)(void*);
  int (*cuCtxSynchronize)();
  int (*cuModuleLoadData)(void**, const void*);
  int (*cuModuleGetFunction)(void**, void*, const char*);
  int (*cuFuncGetParamInfo)(void*, std::size_t, std::size_t*, std::size_t*);
  int (*cuFuncGetAttribute)(int*, int, void*);
  int (*cuFuncSetAttribute)(void*, int, int);
  int (*cuOccupancyMaxActiveBlocksPerMultiprocessor)(int*, void*, int, std::size_t);
  int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                        void**);
  int (*cuLaunchCooperativeKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                                   void**);
  int (*cuGetErrorString)(int, const char**);
  // only an emulator has these
  const char* (*dlsim_signature)(void*);
  void (*dlsim_register)(const void*, std::size_t, const char*, int);
  void (*dlsim_unregister)(const void*);
};

namespace {

template <class F>
void find(void* library, const char* name, F& function, bool optional = false) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function && !optional) throw std::runtime_error(std::string("the driver library has no ") + name);
}

void find_all(void* library, DriverApi& api) {
#define DL_FIND(name) find(library, #name, api.name)
  DL_FIND(cuInit);
  DL_FIND(cuDeviceGet);
  DL_FIND(cuDeviceGetAttribute);
  DL_FIND(cuDevicePrimaryCtxRetain);
  DL_FIND(cuCtxSetCurrent);
  DL_FIND(cuCtxSynchronize);
  DL_FIND(cuModuleLoadData);
  DL_FIND(cuModuleGetFunction);
  DL_FIND(cuFuncGetParamInfo);  // CUDA 12.4
  DL_FIND(cuFuncGetAttribute);
  DL_FIND(cuFuncSetAttribute);
  DL_FIND(cuOccupancyMaxActiveBlocksPerMultiprocessor);
  DL_FIND(cuLaunchKernel);
  DL_FIND(cuLaunchCooperativeKernel);
  DL_FIND(cuGetErrorString);
#undef DL_FIND
  find(library, "dlsim_signature", api.dlsim_signature, true);
  find(library, "dlsim_register", api.dlsim_register, true);
  find(library, "dlsim_unregister", api.dlsim_unregister, true);
}

}  // namespace

Driver::Driver(const std::string& path, int device) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) throw std::runtime_error(dlerror());
  auto api = std::make_unique<DriverApi>();
  find_all(library, *api);
  api_ = api.release();
  check(api_->cuInit(0), "cuInit");
  check(api_->cuDeviceGet(&device_, device), "cuDeviceGet");
  check(api_->cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
  make_current();
}

void Driver::make_current() const { check(api_->cuCtxSetCurrent(context_), "cuCtxSetCurrent"); }

void Driver::check(int code, const std::string& what) const {
  if (code == 0) return;
  const char* text = nullptr;
  api_->cuGetErrorString(code, &text);
  throw std::runtime_error(what + ": " + (text ? text : "unknown error") + " (CUDA error " + std::to_string(code) +
                           ")");
}

int Driver::attribute(int which) const {
  int value = 0;
  check(api_->cuDeviceGetAttribute(&value, which, device_), "cuDeviceGetAttribute");
  return value;
}

void* Driver::load(const std::string& image) const {
  void* module = nullptr;
  make_current();
  check(api_->cuModuleLoadData(&module, image.c_str()), "cuModuleLoadData");
  return module;
}

void Driver::synchronize() const { check(api_->cuCtxSynchronize(), "cuCtxSynchronize"); }

bool Driver::emulated() const { return api_->dlsim_signature != nullptr; }

void Driver::open(const void* low, std::size_t bytes, const char* name) const {
  constexpr int kWritten = 1;  // its values count as written
  if (api_->dlsim_register) api_->dlsim_register(low, bytes, name, kWritten);
}

void Driver::close(const void* low) const {
  if (api_->dlsim_unregister) api_->dlsim_unregister(low);
}

Function::Function(const Driver& driver, void* module, const std::string& name) : driver_(driver), name_(name) {
  const DriverApi& api = driver.api();
  driver.check(api.cuModuleGetFunction(&handle_, module, name.c_str()), name);
  std::size_t offset, size;
  while (api.cuFuncGetParamInfo(handle_, sizes_.size(), &offset, &size) == 0) sizes_.push_back(size);
  if (api.dlsim_signature) kinds_ = api.dlsim_signature(handle_);
}

int Function::attribute(int which) const {
  int value = 0;
  driver_.check(driver_.api().cuFuncGetAttribute(&value, which, handle_), name_);
  return value;
}

void Function::set_attribute(int which, int value) const {
  driver_.check(driver_.api().cuFuncSetAttribute(handle_, which, value), name_);
}

int Function::blocks_per_multiprocessor(int threads, std::size_t shared) const {
  int blocks = 0;
  driver_.check(driver_.api().cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, handle_, threads, shared), name_);
  return blocks;
}

void Function::launch(Dim3 g, Dim3 b, unsigned shared, void* stream, void** parameters, bool cooperative) const {
  constexpr int kInvalidContext = 201;  // CUDA_ERROR_INVALID_CONTEXT: this thread has none yet
  const DriverApi& api = driver_.api();
  const auto run = [&] {
    return cooperative
               ? api.cuLaunchCooperativeKernel(handle_, g.x, g.y, g.z, b.x, b.y, b.z, shared, stream, parameters)
               : api.cuLaunchKernel(handle_, g.x, g.y, g.z, b.x, b.y, b.z, shared, stream, parameters, nullptr);
  };
  int code = run();
  if (code == kInvalidContext) {
    driver_.make_current();
    code = run();
  }
  if (code) driver_.check(code, "launch");
}

}  // namespace dlcore
