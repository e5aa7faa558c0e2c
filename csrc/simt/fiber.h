// Fibers: threads of control that are switched by hand, a few nanoseconds each.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

constexpr size_t kStackBytes = 64 * 1024;

class Fiber {
 public:
  // Makes the fiber start at `entry`, which must not return, when it is first switched to.
  void prepare(void (*entry)());
  void switch_to(Fiber& other);

  // Whether the stack was used up to its end; the mark there is made anew by repair().
  bool overflowed() const { return *reinterpret_cast<const uint64_t*>(stack_) != kCanary; }
  void repair() { *reinterpret_cast<uint64_t*>(stack_) = kCanary; }
  // Whether the address lies less than a stack's length below the stack.
  bool is_just_below(const void* address) const {
    return reinterpret_cast<uintptr_t>(stack_) - reinterpret_cast<uintptr_t>(address) < kStackBytes;
  }
  bool owns(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(stack_) < kStackBytes; }

 private:
  static constexpr uint64_t kCanary = 0x5353a5a5c3c33c3cull;

  char* stack_ = nullptr;  // lowest address
  size_t offset_ = 0;      // of the first frame below the stack's end: different for neighbours, which spares the cache
#if defined(__x86_64__)
  void* top_ = nullptr;  // stack pointer of a fiber that does not run
#else
  ucontext_t context_;
#endif
  friend void allocate_stacks(Fiber* const* fibers, size_t count);
};

// Gives `count` fibers a stack each. The memory stays until the process ends.
void allocate_stacks(Fiber* const* fibers, size_t count);

}  // namespace simt
