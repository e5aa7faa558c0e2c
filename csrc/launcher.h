// Kernels through the CUDA driver API. The library is opened by name, so that this builds and loads without CUDA.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace dlcore {

struct Dim3 {
  unsigned x, y, z;
};

struct DriverApi;  // the functions of the library, by their true names

// A CUDA driver library, or one that stands in for it, and the primary context of one of its devices.
class Driver {
 public:
  Driver(const std::string& path, int device);
  int attribute(int which) const;
  void* load(const std::string& image) const;  // a module
  void synchronize() const;
  void check(int code, const std::string& what) const;  // throws std::runtime_error with the driver's own words
  bool emulated() const;  // kernels run in host memory, and may touch only what is opened to them
  void open(const void* low, std::size_t bytes, const char* name) const;
  void close(const void* low) const;
  void make_current() const;  // for this thread
  const DriverApi& api() const { return *api_; }

 private:
  DriverApi* api_;  // lives as long as the process, like the library
  void* context_ = nullptr;
  int device_ = 0;
};

// One kernel of a module.
class Function {
 public:
  Function(const Driver& driver, void* module, const std::string& name);
  const std::string& name() const { return name_; }
  const std::vector<std::size_t>& sizes() const { return sizes_; }  // bytes of each parameter
  const std::string& kinds() const { return kinds_; }  // of each parameter, P i l f d s; empty on a real device
  int attribute(int which) const;
  void set_attribute(int which, int value) const;
  int blocks_per_multiprocessor(int threads, std::size_t shared) const;
  void launch(Dim3 grid, Dim3 block, unsigned shared, void* stream, void** parameters, bool cooperative) const;
  const Driver& driver() const { return driver_; }

 private:
  const Driver& driver_;
  std::string name_, kinds_;
  void* handle_ = nullptr;
  std::vector<std::size_t> sizes_;
};

}  // namespace dlcore
