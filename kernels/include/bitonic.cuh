// A bitonic network (Batcher 1968) that sorts what neighbouring threads hold: kHeld items each, distinct or padding.
// Every comparison puts the smaller item first: to merge two runs, the second is taken backwards. A step compares items
// of one thread, of two lanes, which exchange them by shuffles, or of two warps, for which each thread takes other
// items by way of shared memory. A block is 64, 128 or 256 threads; its tile is as many items, as `padded` lays them
// out.
#pragma once
#include "warp.cuh"

using Word64 = unsigned long long;

// ---- items: a key and below it a place, half of the bits each; keys of 64 bits take 16 bytes

struct alignas(16) Wider {
  Word64 key, place;
};

template <class Item, class Key>
DL_DEVICE Item item(Key key, unsigned place) {
  if constexpr (sizeof(Item) == 16) return {key, place};
  else return Item(key) << 4 * sizeof(Item) | place;
}
template <class Item>
DL_DEVICE Item last_item() {  // for padding
  if constexpr (sizeof(Item) == 16) return {~Word64(0), ~0u};
  else return ~Item(0);
}

DL_DEVICE unsigned key_of(unsigned item) { return item >> 16; }
DL_DEVICE unsigned key_of(Word64 item) { return unsigned(item >> 32); }
DL_DEVICE Word64 key_of(const Wider& item) { return item.key; }
DL_DEVICE unsigned place_of(unsigned item) { return item & 0xffff; }
DL_DEVICE unsigned place_of(Word64 item) { return unsigned(item); }
DL_DEVICE unsigned place_of(const Wider& item) { return unsigned(item.place); }

DL_DEVICE bool before(unsigned a, unsigned b) { return a < b; }
DL_DEVICE bool before(Word64 a, Word64 b) { return a < b; }
DL_DEVICE bool before(const Wider& a, const Wider& b) {
  return (a.key < b.key) | ((a.key == b.key) & (place_of(a) < place_of(b)));
}

template <class Item>
DL_DEVICE Item pick(bool first, const Item& a, const Item& b) {
  return first ? a : b;
}
DL_DEVICE Wider pick(bool first, const Wider& a, const Wider& b) {
  return {first ? a.key : b.key, first ? place_of(a) : place_of(b)};
}
DL_DEVICE Wider lane_xor(const Wider& item, int mask) {
  return {lane_xor(item.key, mask), lane_xor(place_of(item), mask)};
}

// ---- steps

template <class Item>
constexpr int kHeld = sizeof(Item) < 16 ? 16 : 8;

template <class Item>
DL_DEVICE void order(Item& a, Item& b) {
  const bool swapped = before(b, a);
  const Item first = pick(swapped, b, a);
  b = pick(swapped, a, b);
  a = first;
}

// Items of a thread that are `reach` apart, half of that, and so on down to neighbours.
template <class Item>
DL_DEVICE void within_thread(Item (&held)[kHeld<Item>], unsigned reach) {
  DL_UNROLL
  for (int step = kHeld<Item> / 2; step > 0; step /= 2) {
    if (step > int(reach)) continue;
    DL_UNROLL
    for (int i = 0; i < kHeld<Item>; ++i)
      if ((i & step) == 0) order(held[i], held[i + step]);
  }
}

// Items of two lanes, the first with the first; MIRRORED: with the last.
template <bool MIRRORED, class Item>
DL_DEVICE void across_lanes(Item (&held)[kHeld<Item>], int mask) {
  const int lane = threadIdx.x % kWarp;
  const bool upper = lane > (lane ^ mask);
  DL_UNROLL
  for (int i = 0; i < kHeld<Item> / 2; ++i) {
    Item &a = held[i], &b = held[kHeld<Item> - 1 - i];
    const Item for_a = lane_xor(MIRRORED ? b : a, mask), for_b = lane_xor(MIRRORED ? a : b, mask);
    a = pick(before(for_a, a) == upper, a, for_a);
    b = pick(before(for_b, b) == upper, b, for_b);
  }
}

// Where item i of the tile is: one place of 128 bytes is left free, so that neither neighbours nor the items of
// neighbouring threads share a bank.
template <class Item>
DL_DEVICE unsigned padded(unsigned i) {
  return i + i / unsigned(128 / sizeof(Item));
}

// Lays a thread's items down side by side, as those of some thread.
template <class Item>
DL_DEVICE void lay(const Item (&held)[kHeld<Item>], Item* tile, unsigned thread, bool backwards = false) {
  const unsigned begin = padded<Item>(thread * kHeld<Item>);
  DL_UNROLL
  for (int i = 0; i < kHeld<Item>; ++i) tile[begin + (backwards ? kHeld<Item> - 1 - i : i)] = held[i];
}

// Items that are `reach` x blockDim apart, half of that, and so on down to blockDim: a thread begins with items a block
// apart. It ends with neighbours.
template <class Item>
DL_DEVICE void across_warps(Item (&held)[kHeld<Item>], Item* tile, unsigned reach) {
  const unsigned first = padded<Item>(threadIdx.x), apart = padded<Item>(blockDim.x);
  within_thread(held, reach);
  DL_UNROLL
  for (int i = 0; i < kHeld<Item>; ++i) tile[first + i * apart] = held[i];
  __syncthreads();
  const unsigned own = padded<Item>(threadIdx.x * kHeld<Item>);
  DL_UNROLL
  for (int i = 0; i < kHeld<Item>; ++i) held[i] = tile[own + i];
}

// All steps that are left from items `reach` threads apart on.
template <class Item>
DL_DEVICE void finish(Item (&held)[kHeld<Item>], unsigned reach) {
  DL_ROLLED
  for (; reach > 0; reach /= 2) across_lanes<false>(held, reach);
  within_thread(held, kHeld<Item> / 2);
}

// ---- sorts and merges

template <int RUN = 1, class Item>  // a thread's items, in sorted runs of RUN
DL_DEVICE void sort_held(Item (&held)[kHeld<Item>]) {
  DL_UNROLL
  for (int i = 0; i < kHeld<Item>; ++i)
    if ((i & RUN) == 0) order(held[i], held[i ^ (2 * RUN - 1)]);
  within_thread(held, RUN / 2);
  if constexpr (2 * RUN < kHeld<Item>) sort_held<2 * RUN>(held);
}

// Sorts the items of so many threads, a power of two.
template <class Item>
DL_DEVICE void sort_threads(Item (&held)[kHeld<Item>], Item* tile, unsigned threads) {
  sort_held(held);
  DL_ROLLED
  for (unsigned run = 1; run < threads; run *= 2) {
    unsigned left = run / 2;
    if (run < kWarp) {
      across_lanes<true>(held, 2 * run - 1);
    } else {
      const bool second = threadIdx.x & run;
      lay(held, tile, second ? threadIdx.x ^ (run - 1) : threadIdx.x, second);
      __syncthreads();
      DL_UNROLL
      for (int i = 0; i < kHeld<Item>; ++i) held[i] = tile[padded<Item>(threadIdx.x) + i * padded<Item>(blockDim.x)];
      across_warps(held, tile, run * kHeld<Item> / blockDim.x);
      __syncthreads();
      left = blockDim.x / (2 * kHeld<Item>);
    }
    finish(held, left);
  }
}

// Merges a bitonic sequence, of which a thread has items a block apart.
template <class Item>
DL_DEVICE void merge_block(Item (&held)[kHeld<Item>], Item* tile) {
  across_warps(held, tile, kHeld<Item> / 2);
  finish(held, blockDim.x / (2 * kHeld<Item>));
}
