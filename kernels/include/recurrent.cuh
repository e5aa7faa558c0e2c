// Recurrent networks: each block multiplies the states of some rows by the weights of some units, all gates of a unit
// in the same block, and then finishes its (row, unit) pairs. One launch takes one step, or all of them.
//
// A family (LstmForward of lstm.cu, ...) says what is multiplied and how a pair is finished:
//   kGates: sums of a pair; kInner: lines of states and weights are kInner * hidden long
//   weights: [kGates * hidden, kInner * hidden]
//   states(q, s): [rows, kInner * hidden], or null for zeros
//   finish(q, s, row, unit, sum[kGates])
#pragma once
#include "warp.cuh"

// Time of a step and of those taken before and after it, -1 where there is none.
struct Step {
  int now, before, after;
};

struct Sequence {
  int rows, hidden, steps;  // N, H and T
  int reverse;              // whether steps are taken from the last to the first
  int vectors;              // whether lines of weights and states are whole 16-byte vectors
  DL_DEVICE int time(int step) const { return step < 0 || step >= steps ? -1 : reverse ? steps - 1 - step : step; }
  DL_DEVICE Step at(int step) const { return {time(step), time(step - 1), time(step + 1)}; }
  DL_DEVICE long long states() const { return (long long)rows * hidden; }
};

// A block's tile of sum[row][gate][unit]. Warps stand side by side, ROW_WARPS x UNIT_WARPS, and SPLIT of them share the
// sum of each place; a lane owns 4 SIDE rows of SIDE units and their GATES gates. Sums pass through shared memory in
// SIDE parts.
template <class T, int GATES, int ROW_WARPS, int UNIT_WARPS, int SPLIT, int SIDE = 1>
struct StepTile {
  using Element = T;
  using R = wide<T>;
  static constexpr int kGates = GATES, kUnitWarps = UNIT_WARPS, kPlaces = ROW_WARPS * UNIT_WARPS, kSplit = SPLIT;
  static constexpr int kThreads = kWarp * kPlaces * SPLIT, kSide = SIDE, kLaneRows = 4 * SIDE, kLane = GATES * SIDE;
  static constexpr int kRows = 16 * SIDE * ROW_WARPS, kUnits = 8 * SIDE * UNIT_WARPS, kColumns = GATES * kUnits;
  static constexpr int kSlice = (SPLIT > 1 ? 64 : 128) / int(sizeof(R));  // of the sum, for one warp between barriers
  static constexpr int kSlab = SPLIT * kSlice;
  static constexpr int kPitch = kSlab + 4, kSumPitch = kColumns + (kColumns % 16 == 0 ? 8 : 0);  // without conflicts
  static constexpr int kSumRows = kRows / SIDE, kSums = SPLIT * kSumRows * kSumPitch;
  static constexpr int kStates = kRows * kPitch, kOperands = kStates + kColumns * kPitch;
  static constexpr int kShared = kOperands > kSums ? kOperands : kSums;
  static constexpr int kBesideWeights = kStates > kSums ? kStates : kSums;  // when weights stay
};

// Few rows: many small tiles. More: tiles of 64 x 64 (of 4 gates). Many: of 128 x 128, with 8 x 8 sums a lane.
template <class T, int GATES>
using NarrowStep = StepTile<T, GATES, 1, 1, 8>;
template <class T, int GATES>
using WideStep = StepTile<T, GATES, 4, 2, 1>;
template <class T, int GATES>
using LargeStep = StepTile<T, GATES, 4, 2, 1, 2>;

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

  DL_DEVICE void store(R* lines, int pitch) const {
    DL_UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const int i = threadIdx.x + j * Tile::kThreads, row = i / kPerLine, k = (i - row * kPerLine) * V;
      if (i < kChunks) {
        DL_UNROLL
        for (int v = 0; v < V; v += 4 < V ? 4 : V) {
          Vec<R, 4 < V ? 4 : V> out;
          DL_UNROLL
          for (int e = 0; e < (4 < V ? 4 : V); ++e) out.at[e] = widen(chunk[j].at[v + e]);
          *reinterpret_cast<decltype(out)*>(lines + row * pitch + k + v) = out;
        }
      }
    }
  }
};

// Where a lane stands in its warp: lanes n and n ^ 1 read the same weights, n and n ^ 2 the same states.
DL_DEVICE int lane_group() { return (threadIdx.x & 1) | (threadIdx.x >> 3 & 2); }
DL_DEVICE int lane_unit() { return threadIdx.x >> 1 & 7; }

// Where a family's tile stands, and the lines that it multiplies. The tile's gates are the family's, of as many groups
// of units as there are more.
template <class Tile, class Family>
struct Place {
  using T = typename Tile::Element;
  using R = typename Tile::R;
  static constexpr int G = Family::kGates, kUnits = Tile::kGates / G * Tile::kUnits;
  const Family& family;
  const Sequence& q;
  int row0, unit0;

  DL_DEVICE const T* state(const T* states, int row) const {
    return row0 + row < q.rows ? states + (long long)(row0 + row) * length() : nullptr;
  }
  DL_DEVICE const T* weight(int column) const {
    const int group = column / Tile::kUnits, unit = unit0 + group / G * Tile::kUnits + column % Tile::kUnits;
    return unit < q.hidden ? family.weights + ((long long)(group % G) * q.hidden + unit) * length() : nullptr;
  }
  DL_DEVICE int length() const { return Family::kInner * q.hidden; }
};

// A lane's sums.
template <class Tile>
struct Products {
  using R = typename Tile::R;
  static constexpr int kSide = Tile::kSide;
  R sum[Tile::kLaneRows][Tile::kLane] = {};

  DL_DEVICE static int place() { return threadIdx.x / kWarp % Tile::kPlaces; }
  DL_DEVICE static int split() { return threadIdx.x / kWarp / Tile::kPlaces; }
  DL_DEVICE static int unit() { return place() % Tile::kUnitWarps * 8 * kSide + lane_unit(); }
  DL_DEVICE static int row_warp() { return place() / Tile::kUnitWarps; }

  // Over a slab in shared memory, of lines [row][k] of states and [column][k] of weights.
  DL_DEVICE void add(const R* states, const R* weights, int weights_pitch) {
    const R* a = states + (row_warp() * 16 * kSide + lane_group()) * Tile::kPitch + split() * Tile::kSlice;
    const R* b = weights + unit() * weights_pitch + split() * Tile::kSlice;
    DL_ROLLED
    for (int k = 0; k < Tile::kSlice; k += 4) {
      Vec<R, 4> x[Tile::kLaneRows], w[Tile::kLane];
      DL_UNROLL
      for (int i = 0; i < Tile::kLaneRows; ++i)
        x[i] = *reinterpret_cast<const Vec<R, 4>*>(a + 4 * i * Tile::kPitch + k);
      DL_UNROLL
      for (int c = 0; c < Tile::kLane; ++c)
        w[c] = *reinterpret_cast<const Vec<R, 4>*>(b + (c / kSide * Tile::kUnits + c % kSide * 8) * weights_pitch + k);
      DL_UNROLL
      for (int e = 0; e < 4; ++e) DL_UNROLL
      for (int i = 0; i < Tile::kLaneRows; ++i) DL_UNROLL
      for (int c = 0; c < Tile::kLane; ++c) sum[i][c] = fma(x[i].at[e], w[c].at[e], sum[i][c]);
    }
  }

  // Part `part` of the sums to shared memory, as [split][row][gate][unit].
  DL_DEVICE void store(R* shared, int part) const {
    R* own = shared + (split() * Tile::kSumRows + row_warp() * 16 + lane_group()) * Tile::kSumPitch + unit();
    DL_UNROLL
    for (int i = 0; i < 4; ++i) DL_UNROLL
    for (int c = 0; c < Tile::kLane; ++c)
      own[4 * i * Tile::kSumPitch + c / kSide * Tile::kUnits + c % kSide * 8] = sum[4 * part + i][c];
  }
};

// The total of one place of a part, in the order of the splits.
template <class Tile>
DL_DEVICE wide<typename Tile::Element> total(const wide<typename Tile::Element>* shared, int row, int column) {
  wide<typename Tile::Element> sum = shared[row * Tile::kSumPitch + column];
  DL_UNROLL
  for (int split = 1; split < Tile::kSplit; ++split)
    sum += shared[(split * Tile::kSumRows + row) * Tile::kSumPitch + column];
  return sum;
}

// Finishes the pairs of a tile, 4 rows of 8 units to a warp.
template <class Tile, class Family>
DL_DEVICE void finish_pairs(const Products<Tile>& products, const Place<Tile, Family>& at, const Step& s,
                            wide<typename Tile::Element>* shared) {
  constexpr int kGates = Family::kGates, kUnits = Place<Tile, Family>::kUnits;
  DL_UNROLL
  for (int part = 0; part < Tile::kSide; ++part) {
    products.store(shared, part);
    __syncthreads();
    DL_ROLLED
    for (int pair = threadIdx.x; pair < Tile::kSumRows * kUnits; pair += Tile::kThreads) {
      const int r = pair / 8 % Tile::kSumRows, u = pair / (8 * Tile::kSumRows) * 8 + pair % 8;
      const int row = at.row0 + (r / 16 * Tile::kSide + part) * 16 + r % 16, unit = at.unit0 + u;
      if (row >= at.q.rows || unit >= at.q.hidden) continue;
      typename Tile::R sum[kGates];
      DL_UNROLL
      for (int g = 0; g < kGates; ++g)
        sum[g] = total<Tile>(shared, r, (u / Tile::kUnits * kGates + g) * Tile::kUnits + u % Tile::kUnits);
      at.family.finish(at.q, s, row, unit, sum);
    }
    __syncthreads();
  }
}

// One step of a tile for each block: row tiles x unit tiles.
template <class Tile, class Family>
DL_DEVICE void one_step(const Family& family, const Sequence& q, int step) {
  using T = typename Tile::Element;
  __shared__ __align__(16) typename Tile::R shared[Tile::kShared];
  const int unit_blocks = (q.hidden + Place<Tile, Family>::kUnits - 1) / Place<Tile, Family>::kUnits;
  const Place<Tile, Family> at{family, q, int(blockIdx.x) / unit_blocks * Tile::kRows,
                               int(blockIdx.x) % unit_blocks * Place<Tile, Family>::kUnits};
  const Step s = q.at(step);
  const T* states = family.states(q, s);
  const int length = states == nullptr ? 0 : at.length();
  const auto state = [&](int row) { return at.state(states, row); };
  const auto weight = [&](int column) { return at.weight(column); };
  SlabOfLines<Tile, Tile::kRows> a;
  SlabOfLines<Tile, Tile::kColumns> b;
  Products<Tile> products;
  a.fetch(state, 0, length, q.vectors), b.fetch(weight, 0, length, q.vectors);
  DL_ROLLED
  for (int from = 0; from < length; from += Tile::kSlab) {
    a.store(shared, Tile::kPitch), b.store(shared + Tile::kStates, Tile::kPitch);
    __syncthreads();
    const int next = from + Tile::kSlab;
    if (next < length) a.fetch(state, next, length, q.vectors), b.fetch(weight, next, length, q.vectors);
    products.add(shared, shared + Tile::kStates, Tile::kPitch);
    __syncthreads();
  }
  finish_pairs(products, at, s, shared);
}

// Steps from, ..., to (without it, up or down) in one cooperative launch. A block keeps the weights of its units in
// dynamic shared memory, kColumns lines of whole slabs and 4 more, and takes row tiles in turn with the others of these
// units; a grid barrier ends each step. Sums are those of `one_step`, bit for bit.
template <class Tile, class Family>
DL_DEVICE void all_steps(const Family& family, const Sequence& q, int from, int to, unsigned* barrier) {
  using T = typename Tile::Element;
  DL_SHARED(typename Tile::R, shared);
  typename Tile::R* weights = shared + Tile::kBesideWeights;
  const int unit_blocks = (q.hidden + Tile::kUnits - 1) / Tile::kUnits, groups = gridDim.x / unit_blocks;
  Place<Tile, Family> at{family, q, 0, int(blockIdx.x) % unit_blocks * Tile::kUnits};
  const int length = at.length(), pitch = (length + Tile::kSlab - 1) / Tile::kSlab * Tile::kSlab + 4;
  DL_ROLLED
  for (int k = 0; k < length; k += Tile::kSlab) {
    SlabOfLines<Tile, Tile::kColumns> b;
    b.fetch([&](int column) { return at.weight(column); }, k, length, q.vectors);
    b.store(weights + k, pitch);
  }
  DL_ROLLED
  for (int step = from; step != to; step += from < to ? 1 : -1) {
    if (step != from) dl::grid_sync(barrier);
    const Step s = q.at(step);
    const T* states = family.states(q, s);
    const int known = states == nullptr ? 0 : length;
    DL_ROLLED
    for (int tile = blockIdx.x / unit_blocks; tile * Tile::kRows < q.rows; tile += groups) {
      at.row0 = tile * Tile::kRows;
      const auto state = [&](int row) { return at.state(states, row); };
      SlabOfLines<Tile, Tile::kRows> a;
      Products<Tile> products;
      a.fetch(state, 0, known, q.vectors);
      DL_ROLLED
      for (int k = 0; k < known; k += Tile::kSlab) {
        a.store(shared, Tile::kPitch);
        __syncthreads();
        if (k + Tile::kSlab < known) a.fetch(state, k + Tile::kSlab, known, q.vectors);
        products.add(shared, weights + k, pitch);
        __syncthreads();
      }
      finish_pairs(products, at, s, shared);
    }
  }
}

DL_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DL_DEVICE double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Whether a row still has a step at this time; `lengths` null: always.
DL_DEVICE bool taken(const long long* lengths, int row, int time) { return lengths == nullptr || lengths[row] > time; }

// X(type, suffix) for the types that compute in float, the only ones with large tiles and resident weights.
#define DL_FOR_FLOAT_SUMS(X) X(float, f32) X(__half, f16) X(__nv_bfloat16, bf16)
