// What a kernel does to each part of its result as soon as that is complete, while it is in cache.
#pragma once
#include <cstddef>

namespace dlcore {

struct Tail {
  void (*run)(const void* self, std::ptrdiff_t begin, std::ptrdiff_t n) = nullptr;  // on elements of the result
  const void* self = nullptr;
};

}  // namespace dlcore
