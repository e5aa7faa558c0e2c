// Values that a kernel refuses, an index or a label out of range: it skips what they ask for and notes the one at the
// lowest position in a record, which the host reads at its next synchronisation.
#pragma once
#include "dl.cuh"

typedef unsigned long long Record;  // all ones: nothing was refused

// Keeps the position, and of the value what fits 32 bits.
DL_DEVICE void refuse(Record* record, unsigned position, long long value) {
  constexpr long long kLeast = -0x80000000ll, kMost = 0x7fffffffll;
  const long long kept = value < kLeast ? kLeast : value > kMost ? kMost : value;
  atomicMin(record, Record(position) << 32 | unsigned(kept));
}
