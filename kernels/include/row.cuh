// Rows that the lanes of a warp or of a block share, and what they compute together.
//
// A row is cut in tiles of LANES x kPerVector elements. Which of them a lane has, and in which order, depends on the
// row's length and type alone, so that sums have the same bits wherever an array begins in memory.
#pragma once
#include "warp.cuh"

constexpr int kBlock = 256, kWarpsPerBlock = kBlock / kWarp;
template <class T>  // tiles of a row that is held in registers: 16 elements a lane, 8 of double
constexpr int kTiles = sizeof(T) < 4 ? 2 : 4;

template <class T, int LANES>
constexpr unsigned kTile = LANES * kPerVector<T>;

// What a lane has of a tile, as the host says of all arrays of a call.
enum Vectors {
  kSingles,  // elements LANES apart: rows are not whole vectors of 16 bytes
  kLoose,    // a vector, moved element by element: some array does not begin at a multiple of 16 bytes
  kAligned,  // a vector, moved at once
};

// Position in the row of the lane's element j of the tile at `base`.
template <class T, int LANES>
DL_DEVICE unsigned place(unsigned base, int lane, int j, int vectors) {
  return base + (vectors ? lane * kPerVector<T> + j : j * LANES + lane);
}

// The lane's elements of the tile at `base`; `fill` past the end of the row.
template <int LANES, class T>
DL_DEVICE void load_tile(const T* row, unsigned base, unsigned n, int lane, int vectors, wide<T> fill,
                         wide<T> (&x)[kPerVector<T>]) {
  constexpr int V = kPerVector<T>;
  Vec<T, V> chunk{};
  if (vectors == kAligned) {
    const unsigned at = base + lane * V;
    if (at < n) chunk = *reinterpret_cast<const Vec<T, V>*>(row + at);
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      const unsigned at = place<T, LANES>(base, lane, j, vectors);
      if (at < n) chunk.at[j] = row[at];
    }
  }
  DL_UNROLL
  for (int j = 0; j < V; ++j) x[j] = place<T, LANES>(base, lane, j, vectors) < n ? widen(chunk.at[j]) : fill;
}

template <int LANES, class T>
DL_DEVICE void store_tile(T* row, unsigned base, unsigned n, int lane, int vectors, const wide<T> (&x)[kPerVector<T>]) {
  constexpr int V = kPerVector<T>;
  if (vectors == kAligned) {
    const unsigned at = base + lane * V;
    Vec<T, V> chunk;
    DL_UNROLL
    for (int j = 0; j < V; ++j) chunk.at[j] = narrow<T>(x[j]);
    if (at < n) *reinterpret_cast<Vec<T, V>*>(row + at) = chunk;
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      const unsigned at = place<T, LANES>(base, lane, j, vectors);
      if (at < n) row[at] = narrow<T>(x[j]);
    }
  }
}

// f(tile, base) of each tile of a row that kTiles<T> tiles hold.
template <class T, int LANES, class F>
DL_DEVICE void each_held(unsigned n, F f) {
  DL_UNROLL
  for (int tile = 0; tile < kTiles<T>; ++tile)
    if (tile * kTile<T, LANES> < n) f(tile, tile * kTile<T, LANES>);
}

// f(base) of each tile of a row of any length.
template <class T, int LANES, class F>
DL_DEVICE void each_tile(unsigned n, F f) {
  DL_TWICE
  for (unsigned base = 0; base < n; base += kTile<T, LANES>) f(base);
}

// f(row, lane) of each row, one warp (LANES = kWarp) or one block (LANES = kBlock) a row.
template <int LANES, class F>
DL_DEVICE void each_row(unsigned rows, F f) {
  constexpr unsigned kPerBlock = kBlock / LANES;
  DL_ROLLED
  for (unsigned row = blockIdx.x * kPerBlock + threadIdx.x / LANES; row < rows; row += gridDim.x * kPerBlock)
    f(row, int(threadIdx.x % LANES));
}

struct Add {
  template <class R>
  DL_DEVICE R operator()(R a, R b) const {
    return a + b;
  }
};
struct Larger {
  template <class R>
  DL_DEVICE R operator()(R a, R b) const {
    return a > b ? a : b;
  }
};

// The values of all lanes put together, the same bits in each of them. A block's warps meet in shared memory.
template <int LANES, class R, class F>
DL_DEVICE R join(R value, F f) {
  DL_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = f(value, lane_xor(value, mask));
  if constexpr (LANES > kWarp) {
    __shared__ R of_warp[kWarpsPerBlock];
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = of_warp[0];
    DL_UNROLL
    for (int warp = 1; warp < kWarpsPerBlock; ++warp) value = f(value, of_warp[warp]);
    __syncthreads();
  }
  return value;
}
