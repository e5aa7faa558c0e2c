// What the compiler calls in the checked build: -fsanitize=thread before each access to memory, -fsanitize=bounds,...
// where an index or an integer leaves its range. Neither library is linked; these functions take their place.
#include "check.h"

using namespace simt;

#define HOOK(name, bytes, kind) \
  void name(void* address) { check_access(reinterpret_cast<uintptr_t>(address), bytes, kind, SIMT_CALLER); }
#define HOOKS(bytes)                               \
  HOOK(__tsan_read##bytes, bytes, kRead)           \
  HOOK(__tsan_write##bytes, bytes, kWrite)         \
  HOOK(__tsan_unaligned_read##bytes, bytes, kRead) \
  HOOK(__tsan_unaligned_write##bytes, bytes, kWrite)

#define ARITHMETIC(name, text, ...) \
  void __ubsan_handle_##name(void*, ##__VA_ARGS__) { fail(Kind::arithmetic, SIMT_CALLER, text); }

using Value = unsigned long;

// A struct of more than 16 bytes moves in pieces, as large as its alignment lets them be.
static void check_range(void* start, size_t bytes, unsigned kind, const void* pc) {
  auto address = reinterpret_cast<uintptr_t>(start);
  unsigned piece = 16;
  while ((address | bytes) % piece) piece /= 2;
  for (size_t i = 0; i < bytes; i += piece) check_access(address + i, piece, kind, pc);
}

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) { check_range(address, bytes, kRead, SIMT_CALLER); }
void __tsan_write_range(void* address, size_t bytes) { check_range(address, bytes, kWrite, SIMT_CALLER); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

void __ubsan_handle_out_of_bounds(void*, Value index) {
  fail(Kind::bounds, SIMT_CALLER, "out-of-bounds index %ld of an array", static_cast<long>(index));
}
ARITHMETIC(add_overflow, "signed integer overflow in +", Value, Value)
ARITHMETIC(sub_overflow, "signed integer overflow in -", Value, Value)
ARITHMETIC(mul_overflow, "signed integer overflow in *", Value, Value)
ARITHMETIC(negate_overflow, "signed integer overflow in negation", Value)
ARITHMETIC(divrem_overflow, "integer division by zero, or overflow", Value, Value)
ARITHMETIC(shift_out_of_bounds, "shift by more than the width, or of a negative number", Value, Value)
}
