// Exchanges between the lanes of a warp.
#pragma once
#include "types.cuh"

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

template <class T>
DL_DEVICE T lane_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

// Merge the accumulators of lanes that are multiples of LANES apart; the first LANES lanes hold the results, in an
// order that the lanes alone decide.
template <int LANES = 1, class Acc>
DL_DEVICE void merge_lanes(Acc& acc) {
  DL_UNROLL
  for (int mask = kWarp / 2; mask >= LANES; mask /= 2) acc.merge(acc.partner(mask));
}
