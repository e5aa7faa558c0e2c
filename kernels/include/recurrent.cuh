// One step of a recurrent network: each block multiplies the states of some rows by the weights of some units, all
// gates of a unit in the same block, and then finishes its (row, unit) pairs.
#pragma once
#include "warp.cuh"

// A block's tile of sum[row][gate][unit]. Warps stand side by side, ROW_WARPS x UNIT_WARPS, and SPLIT of them share the
// sum of each place; a lane owns 4 rows of one unit and its GATES gates.
template <class T, int GATES, int ROW_WARPS, int UNIT_WARPS, int SPLIT>
struct StepTile {
  using Element = T;
  using R = wide<T>;
  static constexpr int kGates = GATES, kUnitWarps = UNIT_WARPS, kPlaces = ROW_WARPS * UNIT_WARPS, kSplit = SPLIT;
  static constexpr int kThreads = kWarp * kPlaces * SPLIT;
  static constexpr int kRows = 16 * ROW_WARPS, kUnits = 8 * UNIT_WARPS, kColumns = GATES * kUnits;
  static constexpr int kSlice = (SPLIT > 1 ? 64 : 128) / int(sizeof(R));  // of the sum, for one warp between barriers
  static constexpr int kSlab = SPLIT * kSlice;
  static constexpr int kPitch = kSlab + 4, kSumPitch = kColumns + (kColumns % 16 == 0 ? 8 : 0);  // without conflicts
  static constexpr int kOperands = (kRows + kColumns) * kPitch, kSums = SPLIT * kRows * kSumPitch;
  static constexpr int kShared = kOperands > kSums ? kOperands : kSums;
};

// Few rows: many small tiles. Many rows: tiles of 64 x 64 (of 4 gates).
template <class T, int GATES>
using NarrowStep = StepTile<T, GATES, 1, 1, 8>;
template <class T, int GATES>
using WideStep = StepTile<T, GATES, 4, 2, 1>;

struct Step {
  int rows, hidden;        // N and H
  int now, before, after;  // time of this step and of those taken before and after it, -1 where there is none
  int vectors;             // whether lines of weights and states are whole 16-byte vectors
};

// ROWS lines of a slab: fetched from global memory into registers, later stored as [row][k] in shared memory.
template <class Tile, int ROWS>
struct SlabOfLines {
  using T = typename Tile::Element;
  using R = wide<T>;
  static constexpr int V = kPerVector<T>, kPerLine = Tile::kSlab / V, kChunks = ROWS * kPerLine;
  static constexpr int kOwn = (kChunks + Tile::kThreads - 1) / Tile::kThreads;
  Vec<T, V> chunk[kOwn];

  // line(row): the beginning of a line of `length` elements, or null for zeros.
  template <class Line>
  DL_DEVICE void fetch(const Line& line, int from, int length, bool vectors) {
    DL_UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const int i = threadIdx.x + j * Tile::kThreads, row = i / kPerLine, k = from + (i - row * kPerLine) * V;
      const T* x = i < kChunks ? line(row) : nullptr;
      if (vectors && x != nullptr && k < length) {
        chunk[j] = *reinterpret_cast<const Vec<T, V>*>(x + k);
      } else {
        DL_UNROLL
        for (int v = 0; v < V; ++v) chunk[j].at[v] = !vectors && x != nullptr && k + v < length ? x[k + v] : T{};
      }
    }
  }

  DL_DEVICE void store(R* lines) const {
    DL_UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const int i = threadIdx.x + j * Tile::kThreads, row = i / kPerLine, k = (i - row * kPerLine) * V;
      if (i < kChunks) {
        DL_UNROLL
        for (int v = 0; v < V; v += 4 < V ? 4 : V) {
          Vec<R, 4 < V ? 4 : V> out;
          DL_UNROLL
          for (int e = 0; e < (4 < V ? 4 : V); ++e) out.at[e] = widen(chunk[j].at[v + e]);
          *reinterpret_cast<decltype(out)*>(lines + row * Tile::kPitch + k + v) = out;
        }
      }
    }
  }
};

// Where a lane stands in its warp: lanes n and n ^ 1 read the same weights, n and n ^ 2 the same states.
DL_DEVICE int lane_group() { return (threadIdx.x & 1) | (threadIdx.x >> 3 & 2); }
DL_DEVICE int lane_unit() { return threadIdx.x >> 1 & 7; }

// The sums over `length` of states and weights, in shared memory as [split][row][gate][unit].
// state(row) and weight(gate, unit) give the lines, null for zeros.
template <class Tile, class State, class Weight>
DL_DEVICE void multiply_step(const State& state, const Weight& weight, int length, bool vectors,
                             wide<typename Tile::Element>* shared) {
  using R = typename Tile::R;
  constexpr int G = Tile::kGates;
  const int warp = threadIdx.x / kWarp, place = warp % Tile::kPlaces, split = warp / Tile::kPlaces;
  const int row = place / Tile::kUnitWarps * 16 + lane_group(), unit = place % Tile::kUnitWarps * 8 + lane_unit();
  R* weights = shared + Tile::kRows * Tile::kPitch;
  const auto column = [&](int c) { return weight(c / Tile::kUnits, c % Tile::kUnits); };
  SlabOfLines<Tile, Tile::kRows> a;
  SlabOfLines<Tile, Tile::kColumns> b;
  R sum[4][G] = {};
  a.fetch(state, 0, length, vectors), b.fetch(column, 0, length, vectors);
  DL_ROLLED
  for (int from = 0; from < length; from += Tile::kSlab) {
    a.store(shared), b.store(weights);
    __syncthreads();
    const int next = from + Tile::kSlab;
    if (next < length) a.fetch(state, next, length, vectors), b.fetch(column, next, length, vectors);
    const R* own_a = shared + row * Tile::kPitch + split * Tile::kSlice;
    const R* own_b = weights + unit * Tile::kPitch + split * Tile::kSlice;
    DL_ROLLED
    for (int k = 0; k < Tile::kSlice; k += 4) {
      Vec<R, 4> x[4], w[G];
      DL_UNROLL
      for (int i = 0; i < 4; ++i) x[i] = *reinterpret_cast<const Vec<R, 4>*>(own_a + 4 * i * Tile::kPitch + k);
      DL_UNROLL
      for (int g = 0; g < G; ++g)
        w[g] = *reinterpret_cast<const Vec<R, 4>*>(own_b + g * Tile::kUnits * Tile::kPitch + k);
      DL_UNROLL
      for (int e = 0; e < 4; ++e) DL_UNROLL
      for (int i = 0; i < 4; ++i) DL_UNROLL
      for (int g = 0; g < G; ++g) sum[i][g] = fma(x[i].at[e], w[g].at[e], sum[i][g]);
    }
    __syncthreads();
  }
  R* own = shared + (split * Tile::kRows + row) * Tile::kSumPitch + unit;
  DL_UNROLL
  for (int i = 0; i < 4; ++i) DL_UNROLL
  for (int g = 0; g < G; ++g) own[4 * i * Tile::kSumPitch + g * Tile::kUnits] = sum[i][g];
  __syncthreads();
}

// The total of one place of the tile, in the order of the splits.
template <class Tile>
DL_DEVICE wide<typename Tile::Element> total(const wide<typename Tile::Element>* shared, int row, int column) {
  wide<typename Tile::Element> sum = shared[row * Tile::kSumPitch + column];
  DL_UNROLL
  for (int split = 1; split < Tile::kSplit; ++split)
    sum += shared[(split * Tile::kRows + row) * Tile::kSumPitch + column];
  return sum;
}

// finish(row, unit, sums of the gates) for each (row, unit) pair of the block, after
// sum[g] = states[row] . weights[g * hidden + unit], both `hidden` long.
template <class Tile, class F>
DL_DEVICE void step_of_gates(const typename Tile::Element* states, const typename Tile::Element* weights, const Step& s,
                             const F& finish) {
  using T = typename Tile::Element;
  using R = typename Tile::R;
  __shared__ __align__(16) R shared[Tile::kShared];
  const int unit_blocks = (s.hidden + Tile::kUnits - 1) / Tile::kUnits;
  const int row0 = blockIdx.x / unit_blocks * Tile::kRows, unit0 = blockIdx.x % unit_blocks * Tile::kUnits;
  multiply_step<Tile>(
      [&](int row) -> const T* { return row0 + row < s.rows ? states + (long long)(row0 + row) * s.hidden : nullptr; },
      [&](int gate, int unit) -> const T* {
        return unit0 + unit < s.hidden ? weights + ((long long)gate * s.hidden + unit0 + unit) * s.hidden : nullptr;
      },
      s.hidden, s.vectors, shared);
  DL_ROLLED
  for (int pair = threadIdx.x; pair < Tile::kRows * Tile::kUnits; pair += Tile::kThreads) {
    const int row = pair / Tile::kUnits, unit = pair % Tile::kUnits;
    if (row0 + row >= s.rows || unit0 + unit >= s.hidden) continue;
    R sum[Tile::kGates];
    DL_UNROLL
    for (int g = 0; g < Tile::kGates; ++g) sum[g] = total<Tile>(shared, row, g * Tile::kUnits + unit);
    finish(row0 + row, unit0 + unit, sum);
  }
}

// finish(row, unit, sum) for each pair, after sum = states[row] . weights[unit], both `length` long; states null: 0.
// The tile's gates are groups of units here.
template <class Tile, class F>
DL_DEVICE void step_of_units(const typename Tile::Element* states, const typename Tile::Element* weights, int length,
                             const Step& s, const F& finish) {
  using T = typename Tile::Element;
  __shared__ __align__(16) typename Tile::R shared[Tile::kShared];
  const int unit_blocks = (s.hidden + Tile::kColumns - 1) / Tile::kColumns;
  const int row0 = blockIdx.x / unit_blocks * Tile::kRows, unit0 = blockIdx.x % unit_blocks * Tile::kColumns;
  multiply_step<Tile>(
      [&](int row) -> const T* { return row0 + row < s.rows ? states + (long long)(row0 + row) * length : nullptr; },
      [&](int group, int unit) -> const T* {
        const int u = unit0 + group * Tile::kUnits + unit;
        return u < s.hidden ? weights + (long long)u * length : nullptr;
      },
      states == nullptr ? 0 : length, s.vectors, shared);
  DL_ROLLED
  for (int pair = threadIdx.x; pair < Tile::kRows * Tile::kColumns; pair += Tile::kThreads) {
    const int row = pair / Tile::kColumns, unit = pair % Tile::kColumns;
    if (row0 + row < s.rows && unit0 + unit < s.hidden)
      finish(row0 + row, unit0 + unit, total<Tile>(shared, row, unit));
  }
}

DL_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DL_DEVICE double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Whether a row still has a step at this time; `lengths` null: always.
DL_DEVICE bool taken(const long long* lengths, int row, int time) { return lengths == nullptr || lengths[row] > time; }
