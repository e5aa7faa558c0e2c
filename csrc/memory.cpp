#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <mutex>
#include <new>

#include "heap.h"

namespace dlcore {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kLarge = std::size_t{64} << 10;  // from here on a block is the heap's
constexpr int kBuckets = 512;

struct Bucket {
  int index;
  std::size_t bytes;
};

std::size_t in_units(std::size_t bytes) { return bytes == 0 ? 1 : (bytes - 1) / kAlign + 1; }

// Eight sizes per power of two: at most an eighth of a block is wasted. Up to 512 bytes, multiples of 64.
Bucket bucket_of(std::size_t bytes) {
  const std::size_t units = in_units(bytes);
  if (bytes >= kLarge) return {0, units * kAlign};
  if (units <= 8) return {int(units), units * kAlign};
  const int shift = 63 - __builtin_clzll(static_cast<unsigned long long>(units - 1)) - 3;
  const std::size_t steps = ((units - 1) >> shift) + 1;  // 9 .. 16
  return {8 * shift + int(steps), (steps << shift) * kAlign};
}

struct FreeBlock {
  FreeBlock* next;
};

std::size_t physical_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? std::size_t(pages) * std::size_t(page) : std::size_t{4} << 30;
}

struct Cache {
  std::mutex mutex;
  FreeBlock* lists[kBuckets] = {};  // of small blocks
  std::size_t small = 0;            // bytes in them
  Heap heap{physical_memory()};
  MemoryStats stats = {0, 0, 0, physical_memory() / 4};

  Cache();
};

// Never destroyed: arrays may outlive static destructors.
Cache& cache() {
  static Cache* const the_cache = new Cache;
  return *the_cache;
}

Cache::Cache() {  // a fork in the middle of another thread's call must not leave the child a locked mutex
  pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
}

void* from_system(std::size_t bytes) {
  void* block = nullptr;
  return posix_memalign(&block, kAlign, bytes) == 0 ? block : nullptr;
}

// From the free blocks; null where there is none.
void* from_list(Cache& c, const Bucket& bucket) {
  FreeBlock* const block = c.lists[bucket.index];
  if (block == nullptr) return nullptr;
  c.lists[bucket.index] = block->next;
  c.small -= bucket.bytes;
  return block;
}

void* find(Cache& c, const Bucket& bucket) {
  void* const block = bucket.bytes >= kLarge ? c.heap.take(bucket.bytes) : from_list(c, bucket);
  return block != nullptr ? block : from_system(bucket.bytes);
}

void free_all(Cache& c) {
  for (FreeBlock*& list : c.lists)
    while (list != nullptr) {
      FreeBlock* block = list;
      list = block->next;
      free(block);
    }
  c.small = 0;
  c.heap.trim();
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > SIZE_MAX / 4) throw std::bad_alloc();
  const Bucket bucket = bucket_of(bytes);
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  void* block = find(c, bucket);
  if (block == nullptr) {
    free_all(c);
    if ((block = find(c, bucket)) == nullptr) throw std::bad_alloc();
  }
  c.stats.in_use += bucket.bytes;
  if (c.stats.in_use > c.stats.peak) c.stats.peak = c.stats.in_use;
  return block;
}

void release(void* block, std::size_t bytes) noexcept {
  const Bucket bucket = bucket_of(bytes);
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  c.stats.in_use -= bucket.bytes;
  if (c.heap.owns(block)) {
    c.heap.give(block, bucket.bytes);
    if (c.small + c.heap.cached() > c.stats.limit) free_all(c);
  } else if (bucket.bytes >= kLarge || c.small + c.heap.cached() + bucket.bytes > c.stats.limit) {
    free(block);
  } else {
    c.small += bucket.bytes;
    c.lists[bucket.index] = new (block) FreeBlock{c.lists[bucket.index]};
  }
}

MemoryStats memory_stats() {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  MemoryStats found = c.stats;
  found.cached = c.small + c.heap.cached();
  return found;
}

void empty_cache() {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  free_all(c);
}

void reset_peak() {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  c.stats.peak = c.stats.in_use;
}

void set_cache_limit(std::size_t bytes) {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  c.stats.limit = bytes;
  if (c.small + c.heap.cached() > bytes) free_all(c);
}

Scratch::Scratch(std::size_t bytes) : block_(allocate(bytes)), bytes_(bytes) {}
Scratch::~Scratch() { release(block_, bytes_); }
void* Scratch::data() const { return block_; }

}  // namespace dlcore
