#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dlcore {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHuge = std::size_t{2} << 20;  // a huge page
constexpr int kBuckets = 512;

struct Bucket {
  int index;
  std::size_t bytes;
};

// Eight sizes per power of two: at most an eighth of a block is wasted. Up to 512 bytes, multiples of 64.
Bucket bucket_of(std::size_t bytes) {
  const std::size_t units = bytes == 0 ? 1 : (bytes - 1) / kAlign + 1;
  if (units <= 8) return {int(units), units * kAlign};
  const int shift = 63 - __builtin_clzll(static_cast<unsigned long long>(units - 1)) - 3;
  const std::size_t steps = ((units - 1) >> shift) + 1;  // 9 .. 16
  return {8 * shift + int(steps), (steps << shift) * kAlign};
}

struct FreeBlock {
  FreeBlock* next;
};

std::size_t default_limit() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? std::size_t(pages) / 4 * std::size_t(page) : std::size_t{1} << 30;
}

struct Cache {
  std::mutex mutex;
  FreeBlock* lists[kBuckets] = {};
  MemoryStats stats = {0, 0, 0, default_limit()};

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
  if (posix_memalign(&block, bytes >= kHuge ? kHuge : kAlign, bytes) != 0) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= kHuge) madvise(block, bytes, MADV_HUGEPAGE);  // a hint: its failure changes nothing
#endif
  return block;
}

void free_all(Cache& c) {
  for (FreeBlock*& list : c.lists)
    while (list != nullptr) {
      FreeBlock* block = list;
      list = block->next;
      free(block);
    }
  c.stats.cached = 0;
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > SIZE_MAX / 4) throw std::bad_alloc();
  const Bucket bucket = bucket_of(bytes);
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  void* block = c.lists[bucket.index];
  if (block != nullptr) {
    c.lists[bucket.index] = c.lists[bucket.index]->next;
    c.stats.cached -= bucket.bytes;
  } else if ((block = from_system(bucket.bytes)) == nullptr) {
    free_all(c);
    if ((block = from_system(bucket.bytes)) == nullptr) throw std::bad_alloc();
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
  if (c.stats.cached + bucket.bytes > c.stats.limit) return free(block);
  c.stats.cached += bucket.bytes;
  c.lists[bucket.index] = new (block) FreeBlock{c.lists[bucket.index]};
}

MemoryStats memory_stats() {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  return c.stats;
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
  if (c.stats.cached > bytes) free_all(c);
}

Scratch::Scratch(std::size_t bytes) : block_(allocate(bytes)), bytes_(bytes) {}
Scratch::~Scratch() { release(block_, bytes_); }
void* Scratch::data() const { return block_; }

}  // namespace dlcore
