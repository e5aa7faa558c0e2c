// cp.async. A copy may land at any moment between its issue and the wait: late (the default) shows a wait that is
// missing, early one that comes too late for the data it overwrites.
#include <string.h>

#include "check.h"

namespace simt {

namespace {

void land(const AsyncCopy& copy) {
  memcpy(copy.shared, copy.global, copy.source_bytes);
  memset(copy.shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

}  // namespace

void async_when_thread_exits(Thread& thread) {
  if (!thread.copies.empty())
    fail(Kind::async, thread.copies.front().pc, "cp.async without a wait: the thread exits with %zu copies under way",
         thread.copies.size());
}

}  // namespace simt

using namespace simt;

void simt_cp_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes) {
  const void* pc = SIMT_CALLER;
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes)
    fail(Kind::alignment, pc, "cp.async of %u bytes: address %p (shared) or %p (global) is misaligned", bytes, shared,
         global);
  if (machine.checking) {
    if (source_bytes) check_access(reinterpret_cast<uintptr_t>(global), source_bytes, kRead | kAsyncAccess, pc);
    else check_no_access(bytes, kRead | kAsyncAccess, pc);
    check_access(reinterpret_cast<uintptr_t>(shared), bytes, kWrite | kAsyncAccess, pc);
  }
  AsyncCopy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes, source_bytes, pc};
  if (machine.eager_copies) land(copy);
  machine.current->copies.push_back(copy);
}

void simt_cp_async_commit() {
  Thread& self = *machine.current;
  self.groups.push_back(self.copies.size());
}

void simt_cp_async_wait(int groups_left) {
  Thread& self = *machine.current;
  if (self.groups.size() <= static_cast<size_t>(groups_left)) return;
  auto last = self.groups.end() - groups_left - 1;
  size_t landed = *last;
  for (size_t i = 0; i < landed; ++i) {
    if (!machine.eager_copies) land(self.copies[i]);
    if (machine.checking) check_landed(self.copies[i]);
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<long>(landed));
  self.groups.erase(self.groups.begin(), last + 1);
  for (size_t& end : self.groups) end -= landed;
}
