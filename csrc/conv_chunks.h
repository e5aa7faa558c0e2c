// How the gradients of weights are divided: the batch into chunks, whose sums are added in order at the end, and the
// features of each chunk into parts. Chunks depend on the shape alone, so that the bits do not depend on the threads.
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

// A power of two up to `most`: no chunk is without an image, and all have at most `limit` elements, `sums` each.
DL_INLINE Index chunks_of(Index batch, Index sums, Index most, Index limit) {
  Index chunks = most;
  while (chunks > 1 && (chunks > batch || chunks * sums > limit)) chunks /= 2;
  return chunks;
}

// As many as give nt threads one of `chunks` each, at most one for each panel of features.
DL_INLINE Index parts_of(Index panels, Index chunks, int nt) { return smaller(panels, (nt + chunks - 1) / chunks); }

}  // namespace DL_ISA
}  // namespace dlcore
