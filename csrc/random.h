// Random numbers of a key (seed, stream), the same bits as the references in dlcore/ops/philox.py and random.py.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dlcore {

struct RandomKernels {
  struct Key {
    std::uint64_t seed, stream;
  };
  struct Of {  // of n elements of one type; arrays are contiguous
    void (*uniform)(std::ptrdiff_t n, Key key, void* y);
    // Words are mapped to [first, first + size) before inversion; size 0: used as they are.
    void (*normal)(std::ptrdiff_t n, Key key, std::uint64_t first, std::uint64_t size, void* y);
    void (*dropout)(std::ptrdiff_t n, Key key, const void* x, float p, double scale, void* y);
  };
  Of f32, f64;
  // low + word mod size of 64-bit words; size 0: the words as they are.
  void (*integers)(std::ptrdiff_t n, Key key, std::int64_t low, std::uint64_t size, std::int64_t* y);
};

}  // namespace dlcore
