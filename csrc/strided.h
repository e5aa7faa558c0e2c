// Broadcast operands of any strides, given to a Block (elementwise.h) as contiguous pieces.
#pragma once
#include "elementwise.h"
#include "parallel.h"

namespace dlcore {

constexpr int kMaxRank = 64, kMaxOperands = 8;
constexpr int kMostOperands = 3;        // of one function
constexpr Index kStridedGrain = 16384;  // elements worth a thread

struct StridedOperand {
  const char* data;
  Index itemsize;
  Index stride[kMaxRank];  // bytes, by axis of the output; 0 where it is repeated
};

// out is contiguous, in row-major order of `dim`; each operand gives an element for each of out.
struct StridedMap {
  int rank = 0;
  Index dim[kMaxRank];
  int count = 0;
  StridedOperand operand[kMaxOperands];
  char* out = nullptr;
  Index out_itemsize = 0;

  Index size() const;
  // Joins axes that lie one behind the other in every operand, and drops those of size 1.
  void coalesce();
  // On the team when large. F: a Block or a Chain, called as f(n, operands, out).
  template <class F>
  void run(const F& f) const;
  // out = the only operand, whose items may be of 1, 2, 4 or 8 bytes. On the team when large.
  void copy();
};

}  // namespace dlcore
