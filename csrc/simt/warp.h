// Operands of the operations in which the lanes of a warp meet, and how the last lane completes them.
#pragma once
#include "machine.h"

namespace simt {

enum WarpOperation { kSyncwarp, kShuffleOperation, kBallot, kLdmatrix, kMma };  // kMma + MmaKind

struct Shuffle {
  unsigned long long value, result;
  int mode, argument, width;
};
struct Vote {
  int predicate;
  unsigned votes;
};
struct Ldmatrix {
  const char* row;
  int matrices, transposed;
  unsigned fragment[4];
};
struct Mma {
  uint4 a;
  uint2 b;
  float4 c;
};

void complete_ldmatrix(Warp& warp, Meeting& meeting);
void complete_mma_tf32(Warp& warp, Meeting& meeting);
void complete_mma_bf16(Warp& warp, Meeting& meeting);
void complete_mma_f16(Warp& warp, Meeting& meeting);

}  // namespace simt
