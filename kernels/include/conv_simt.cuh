// Loaders of gathered operands for the loop of gemm_simt.cuh.
#pragma once
#include "conv.cuh"
#include "gemm_simt.cuh"

// Neighbouring lanes bring neighbouring lines; every warp has its own k's of a slab.
template <class Tile, int LINES>
struct GatherLines {
  using T = typename Tile::Element;
  static constexpr int kWarps = Tile::kThreads / 32, kLines = LINES / 32, kKs = Tile::kSlab / kWarps;
  const T* x;
  const Gather& g;
  Position line[kLines];
  int k;

  DL_DEVICE GatherLines(const T* x, const Gather& g, int first, int lines, int k) : x(x + g.origin), g(g), k(k) {
    DL_UNROLL
    for (int i = 0; i < kLines; ++i) {
      line[i] = position_of(g.line, least(first + threadIdx.x % 32 + 32 * i, lines - 1));
      DL_UNROLL
      for (int axis = 0; axis < 3; ++axis) line[i].at[axis] += g.start[axis];
    }
  }
  DL_DEVICE void fetch(T* slab, int left) {
    DL_UNROLL
    for (int j = 0; j < kKs; ++j) {
      const int own = threadIdx.x / 32 + j * kWarps;
      const Position tap = position_of(g.k, k + own);
      DL_UNROLL
      for (int i = 0; i < kLines; ++i) {
        bool inside = left > own;
        DL_UNROLL
        for (int axis = 0; axis < 3; ++axis)
          inside = inside && unsigned(line[i].at[axis] + tap.at[axis]) < unsigned(g.limit[axis]);
        dl::cp_async<sizeof(T)>(slab + own * (LINES + Tile::kPad) + threadIdx.x % 32 + 32 * i,
                                x + (line[i].offset + tap.offset), inside);
      }
    }
    k += Tile::kSlab;
  }
};

// Neighbouring lanes bring neighbouring k's of a line; every element exists.
template <class Tile, int LINES>
struct GatherAlongK {
  using T = typename Tile::Element;
  static constexpr int kCopies = LINES * Tile::kSlab / Tile::kThreads, kStep = Tile::kThreads / Tile::kSlab;
  const T* x;
  const Digits& digits;
  unsigned offset[kCopies];
  int k;

  DL_DEVICE GatherAlongK(const T* x, const Digits& digits, unsigned ld, int line, int lines, int k)
      : x(x), digits(digits), k(k + own()) {
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) offset[i] = least(line + threadIdx.x / Tile::kSlab + i * kStep, lines - 1) * ld;
  }
  DL_DEVICE static int own() { return threadIdx.x % Tile::kSlab; }
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + own() * (LINES + Tile::kPad) + threadIdx.x / Tile::kSlab;
    const T* from = x + offset_of(digits, k);
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) dl::cp_async<sizeof(T)>(to + i * kStep, from + offset[i], left > own());
    k += Tile::kSlab;
  }
};
