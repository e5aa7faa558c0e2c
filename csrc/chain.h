// Element-wise functions one after the other, on pieces that stay in cache: what is not an output never reaches memory.
#pragma once
#include "elementwise.h"
#include "strided.h"
#include "tail.h"

namespace dlcore {

constexpr int kMaxSteps = 16;

// Values are numbered: the operands first, then the result of each step.
struct Step {
  int function;             // of Elementwise
  int from[kMostOperands];  // values
  int operands;
  bool output;
};

class Chain {
 public:
  int operands = 0, steps = 0;
  Step step[kMaxSteps];

  // Blocks for float (4 bytes) or double, and where each step that is an output writes; the first is that of the map.
  void prepare(Index itemsize, char* const* outputs);
  void operator()(Index n, const void* const* data, void* out) const;

 private:
  Index itemsize_ = 0;
  Block block_[kMaxSteps];
  char* output_[kMaxSteps];
  char* first_ = nullptr;
};

// A chain of one output that replaces its first operand; all are contiguous arrays of one shape.
class InPlace {
 public:
  InPlace(const Chain& chain, Index itemsize, char* const* data);
  Tail tail() const { return {run, this}; }

 private:
  static void run(const void* self, Index begin, Index n);
  Chain chain_;
  Index itemsize_;
  char* data_[kMaxOperands];
};

}  // namespace dlcore
