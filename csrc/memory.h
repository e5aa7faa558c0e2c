// A caching allocator: a freed block waits for the next array, a small one in the list of its size and a large one in
// the heap, so that a training step does not page-fault its activations anew. Blocks are 64-byte aligned. Thread-safe.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dlcore {

struct MemoryStats {
  std::size_t in_use;  // bytes in live blocks, rounded sizes
  std::size_t cached;  // bytes waiting in free blocks
  std::size_t peak;    // largest in_use since the last reset_peak()
  std::size_t limit;   // on cached
};

void* allocate(std::size_t bytes);  // throws std::bad_alloc
void release(void* block, std::size_t bytes) noexcept;
MemoryStats memory_stats();
void empty_cache();
void reset_peak();
void set_cache_limit(std::size_t bytes);

// Working memory of one kernel call.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const;

 private:
  void* const block_;
  const std::size_t bytes_;
};

}  // namespace dlcore
