#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if defined(__x86_64__)
// Saves the registers that a called function must keep, and continues where `to` was left.
extern "C" void simt_switch_stacks(void** from, void* to);
asm(R"(
.text
.globl simt_switch_stacks
.hidden simt_switch_stacks
.type simt_switch_stacks, @function
simt_switch_stacks:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
.size simt_switch_stacks, . - simt_switch_stacks
)");
#endif

namespace simt {

void allocate_stacks(Fiber* const* fibers, size_t count) {
  constexpr size_t kHugePage = 2 * 1024 * 1024;
  size_t bytes = count * kStackBytes;
  void* memory =
      mmap(nullptr, bytes + 2 * kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto first = (reinterpret_cast<uintptr_t>(memory) + 2 * kHugePage - 1) & ~(kHugePage - 1);
  mprotect(memory, first - reinterpret_cast<uintptr_t>(memory), PROT_NONE);  // below the first stack
#ifdef MADV_HUGEPAGE
  madvise(reinterpret_cast<void*>(first), bytes, MADV_HUGEPAGE);
#endif
  for (size_t i = 0; i < count; ++i) {
    fibers[i]->stack_ = reinterpret_cast<char*>(first + i * kStackBytes);
    fibers[i]->offset_ = (i * 5 % 61) * 64;
    fibers[i]->repair();
  }
}

#if defined(__x86_64__)

void Fiber::prepare(void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes - offset_);
  *--top = nullptr;  // where the address to return to would be; keeps the stack aligned as the ABI asks
  *--top = reinterpret_cast<void*>(entry);
  top_ = top - 6;
}

void Fiber::switch_to(Fiber& other) { simt_switch_stacks(&top_, other.top_); }

#else

void Fiber::prepare(void (*entry)()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_ + sizeof kCanary * 2;
  context_.uc_stack.ss_size = kStackBytes - sizeof kCanary * 2 - offset_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
}

void Fiber::switch_to(Fiber& other) { swapcontext(&context_, &other.context_); }

#endif

}  // namespace simt
