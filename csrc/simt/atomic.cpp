// Atomics. One thread runs at a time, so they are plain arithmetic.
#include "check.h"

namespace simt {

namespace {

template <class T>
T combine(int operation, T old, T value, T compare) {
  switch (operation) {
    case kAdd:
      return old + value;
    case kExchange:
      return value;
    case kCompareAndSwap:
      return old == compare ? value : old;
    case kMin:
      return value < old ? value : old;
    case kMax:
      return old < value ? value : old;
    case kAnd_:
      return old & value;
    case kOr_:
      return old | value;
    default:
      return old ^ value;
  }
}

template <class Unsigned, class Signed>
Unsigned update(Unsigned* address, int operation, int is_signed, Unsigned value, Unsigned compare, const void* pc) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(Unsigned))
    fail(Kind::alignment, pc, "atomic: misaligned address %p", static_cast<void*>(address));
  if (machine.checking) {
    check_access(reinterpret_cast<uintptr_t>(address), sizeof(Unsigned), kAtomicAccess, pc);
    check_atomic(reinterpret_cast<uintptr_t>(address));
  }
  Unsigned old = *address;
  bool ordered = operation == kMin || operation == kMax;
  *address =
      is_signed && ordered
          ? static_cast<Unsigned>(combine(operation, static_cast<Signed>(old), static_cast<Signed>(value), Signed()))
          : combine(operation, old, value, compare);
  return old;
}

}  // namespace

}  // namespace simt

unsigned simt_atomic32(unsigned* address, int operation, int is_signed, unsigned value, unsigned compare) {
  return simt::update<unsigned, int>(address, operation, is_signed, value, compare, SIMT_CALLER);
}

unsigned long long simt_atomic64(unsigned long long* address, int operation, int is_signed, unsigned long long value,
                                 unsigned long long compare) {
  return simt::update<unsigned long long, long long>(address, operation, is_signed, value, compare, SIMT_CALLER);
}
