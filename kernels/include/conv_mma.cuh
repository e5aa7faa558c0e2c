// Loaders of windows for the loop of gemm_mma.cuh. The channels of a pixel lie side by side, whole chunks of 16 bytes.
#pragma once
#include "conv.cuh"
#include "gemm_mma.cuh"

// Lines are pixels, k's taps and channels.
template <class Tile, int LINES>
struct MmaPixels {
  using T = typename Tile::Element;
  static constexpr bool kByLine = true;
  static constexpr int kCopies = LINES * 4 / Tile::kThreads, kStep = Tile::kThreads / 4;
  const T* x;
  const Windows& v;
  const Tap* taps;
  unsigned offset[kCopies], outside[kCopies];
  unsigned k;
  const T* from;  // what the next slab's k sees
  unsigned bits;

  DL_DEVICE MmaPixels(const T* x, const Windows& v, const Tap* taps, int first, int lines, int k)
      : x(x + v.origin), v(v), taps(taps), k(k + threadIdx.x % 4 * Tile::kChunk) {
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const Position pixel = position_of(v.pixel, least(first + threadIdx.x / 4 + i * kStep, lines - 1));
      offset[i] = pixel.offset;
      outside[i] = outside_of(v, pixel);
    }
    look_up();
  }
  DL_DEVICE void look_up() {
    const unsigned number = quotient(k, v.inner);
    const Tap tap = taps[least(number, v.taps)];
    from = x + (tap.offset + int(k - number * v.inner.size));
    bits = tap.bits;
  }
  DL_DEVICE void fetch(T* slab, int) {
    T* to = slab + chunk_in_line<Tile>(threadIdx.x / 4, threadIdx.x % 4);
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)
      dl::cp_async<16>(to + i * kStep * Tile::kSlab, from + offset[i], !(bits & outside[i]));
    k += Tile::kSlab;
    look_up();
  }
};

// Lines are taps and channels, k's pixels. A thread brings every fourth chunk of one k.
template <class Tile, int LINES>
struct MmaTaps {
  using T = typename Tile::Element;
  static constexpr bool kByLine = false;
  static constexpr int kCopies = LINES / (4 * Tile::kChunk);
  static_assert(Tile::kThreads == 4 * Tile::kSlab, "four threads bring one k");
  const T* x;
  const Windows& v;
  unsigned offset[kCopies], bits[kCopies];
  int k;
  const T* from;     // the pixel of the next slab's k
  unsigned outside;  // its bits

  DL_DEVICE MmaTaps(const T* x, const Windows& v, int first, int lines, int k) : x(x + v.origin), v(v), k(k + own()) {
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const unsigned line = least(first + (chunk() + 4 * i) * Tile::kChunk, lines - Tile::kChunk);
      const unsigned number = quotient(line, v.inner);
      const Tap tap = tap_of(v, number);
      offset[i] = tap.offset + (line - number * v.inner.size);
      bits[i] = tap.bits;
    }
    look_up();
  }
  DL_DEVICE static int own() { return threadIdx.x % 8 + threadIdx.x / 32 * 8; }
  DL_DEVICE static int chunk() { return threadIdx.x / 8 % 4; }
  DL_DEVICE void look_up() {
    const Position pixel = position_of(v.pixel, k);
    from = x + pixel.offset;
    outside = outside_of(v, pixel);
  }
  DL_DEVICE void fetch(T* slab, int left) {
    const unsigned missing = left > own() ? outside : ~0u;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)
      dl::cp_async<16>(slab + chunk_in_k<Tile, LINES>(own(), chunk() + i % 2 * 4) + i / 2 * 8 * Tile::kChunk,
                       from + offset[i], !(bits[i] & missing));
    k += Tile::kSlab;
    look_up();
  }
};
