// The loop of a product by multiply-adds: f32 and f64.
//
// Slabs of kSlab k's of A and B pass through three stages of shared memory, filled by cp.async two slabs ahead. There
// an operand lies k by k, its other axis contiguous. A warp owns 64 x 4 COLUMNS of the tile, a thread 8 x COLUMNS of
// that: lane bits 0 and 2 choose its columns, bits 1, 3 and 4 its rows, so that neighbouring lanes read the same 16
// bytes of A or of B and a vector load takes two passes instead of four.
#pragma once
#include "gemm.cuh"

template <class T, int M, int N, int PER_THREAD>
struct SimtTile {
  using Element = T;
  static constexpr int kM = M, kN = N, kRows = 8, kColumns = PER_THREAD;
  static constexpr int kSlab = 8, kStages = 3;
  static constexpr int kPad = kPerVector<T>;  // lets the transposing copies of 8 k's x 4 lines hit all banks
  static constexpr int kAcross = kN / (4 * kColumns), kThreads = 32 * (kM / 64) * kAcross;
  static constexpr int kSizeA = kSlab * (kM + kPad), kSizeB = kSlab * (kN + kPad);
};

// ---- loaders: bring slab after slab of one operand; its lines are rows of A, columns of B

// Lines along which k is contiguous: copied element by element, transposed on the way.
template <class Tile, int LINES>
struct AlongK {
  using T = typename Tile::Element;
  static constexpr int kCopies = LINES * Tile::kSlab / Tile::kThreads, kStep = Tile::kThreads / Tile::kSlab;
  const T* x;
  unsigned offset[kCopies];

  DL_DEVICE AlongK(const T* x, unsigned ld, int line, int lines, int k) {
    const int last = lines - 1, first = least(line + threadIdx.x / Tile::kSlab, last);
    this->x = x + (long long)first * ld + k + own();
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)  // lines past the end repeat the last one; nobody stores what they give
      offset[i] = (least(line + threadIdx.x / Tile::kSlab + i * kStep, last) - first) * ld;
  }
  DL_DEVICE static int own() { return threadIdx.x % Tile::kSlab; }  // of a slab's k's
  // left: how many k's there are from this slab on
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + own() * (LINES + Tile::kPad) + threadIdx.x / Tile::kSlab;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) dl::cp_async<sizeof(T)>(to + i * kStep, x + offset[i], left > own());
    x += Tile::kSlab;
  }
};

// Lines that lie side by side: VECTOR of them are copied at once.
template <class Tile, int LINES, int VECTOR>
struct AlongLines {
  using T = typename Tile::Element;
  static constexpr int kPerK = LINES / VECTOR, kCopies = kPerK * Tile::kSlab / Tile::kThreads;
  static constexpr int kStep = Tile::kThreads / kPerK;  // k's that the block copies at once
  const T* x;
  long long step;  // from one copy to the next

  DL_DEVICE AlongLines(const T* x, unsigned ld, int line, int lines, int k) : step((long long)kStep * ld) {
    this->x = x + (long long)(k + own()) * ld + least(line + threadIdx.x % kPerK * VECTOR, lines - VECTOR);
  }
  DL_DEVICE static int own() { return threadIdx.x / kPerK; }
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + own() * (LINES + Tile::kPad) + threadIdx.x % kPerK * VECTOR;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i, x += step)
      dl::cp_async<VECTOR * sizeof(T)>(to + i * kStep * (LINES + Tile::kPad), x, left > own() + i * kStep);
  }
};

// ---- the loop

template <class Tile>
struct Place {
  int row, column;  // of a thread's first element within the tile
  DL_DEVICE Place() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    constexpr int V = kPerVector<typename Tile::Element>;
    row = warp / Tile::kAcross * 64 + ((lane >> 1 & 1) | (lane >> 2 & 6)) * V;
    column = warp % Tile::kAcross * 4 * Tile::kColumns + ((lane & 1) | (lane >> 1 & 2)) * V;
  }
};

// Reads COUNT numbers of a line of shared memory, a vector in every STEP of them.
template <int COUNT, int STEP, class T>
DL_DEVICE void read_fragment(const T* from, T (&fragment)[COUNT]) {
  constexpr int V = kPerVector<T>;
  DL_UNROLL
  for (int i = 0; i < COUNT; i += V) {
    const Vec<T, V> v = *reinterpret_cast<const Vec<T, V>*>(from + i / V * STEP);
    DL_UNROLL
    for (int j = 0; j < V; ++j) fragment[i + j] = v.at[j];
  }
}

template <class Tile, class A, class B, class T>
DL_DEVICE void multiply_simt(A& a, B& b, int left, T* shared, T (&sum)[Tile::kRows][Tile::kColumns]) {
  constexpr int kSlab = Tile::kSlab, kStages = Tile::kStages, V = kPerVector<T>;
  constexpr int kStage = Tile::kSizeA + Tile::kSizeB, kEnd = kStages * kStage;
  const Place<Tile> place;
  auto fetch = [&](int stage) {  // stages by their first element
    a.fetch(shared + stage, left);
    b.fetch(shared + stage + Tile::kSizeA, left);
    dl::cp_async_commit();
    left -= kSlab;
  };
  DL_UNROLL
  for (int stage = 0; stage < kStages - 1; ++stage) fetch(stage * kStage);
  DL_UNROLL
  for (int i = 0; i < Tile::kRows; ++i) DL_UNROLL
  for (int j = 0; j < Tile::kColumns; ++j) sum[i][j] = T(0);
  dl::cp_async_wait<kStages - 2>();
  __syncthreads();

  T rows[2][Tile::kRows], columns[2][Tile::kColumns];  // fragments of this k and of the next
  auto read = [&](int stage, int k) {
    const T* of_a = shared + stage + k * (Tile::kM + Tile::kPad) + place.row;
    const T* of_b = shared + stage + Tile::kSizeA + k * (Tile::kN + Tile::kPad) + place.column;
    read_fragment<Tile::kRows, 8 * V>(of_a, rows[k & 1]);
    read_fragment<Tile::kColumns, 4 * V>(of_b, columns[k & 1]);
  };
  read(0, 0);
  int current = 0, next = kEnd - kStage;
  DL_ROLLED
  while (left > (1 - kStages) * kSlab) {
    DL_UNROLL
    for (int k = 0; k < kSlab; ++k) {
      if (k == kSlab - 1) {
        dl::cp_async_wait<kStages - 2>();
        __syncthreads();
        current = current + kStage == kEnd ? 0 : current + kStage;
      }
      read(current, (k + 1) % kSlab);
      if (k == 0) {
        fetch(next);
        next = next + kStage == kEnd ? 0 : next + kStage;
      }
      DL_UNROLL
      for (int i = 0; i < Tile::kRows; ++i) DL_UNROLL
      for (int j = 0; j < Tile::kColumns; ++j) sum[i][j] = multiply_add(rows[k & 1][i], columns[k & 1][j], sum[i][j]);
    }
  }
  dl::cp_async_wait<0>();
}

// Hands the sums on, two rows of every thread at a time, through shared memory: whole rows are stored together.
template <class Tile, class Out, class T>
DL_DEVICE void finish_simt(const Product& p, const Share& s, const Out& out, T* partial, T* shared,
                           const T (&sum)[Tile::kRows][Tile::kColumns]) {
  constexpr int V = kPerVector<T>, kLines = Tile::kM / 4, kStride = Tile::kN + 2 * V;
  static_assert(kLines * kStride <= Tile::kStages * (Tile::kSizeA + Tile::kSizeB), "two rows a thread fit the stages");
  const Place<Tile> place;
  const int line = place.row / 64 * 8 + place.row % 64 / V;
  DL_ROLLED
  for (int piece = 0; piece < Tile::kRows / 2; ++piece) {
    __syncthreads();
    DL_UNROLL
    for (int i = 0; i < Tile::kRows; ++i) {
      if (i / 2 != piece) continue;
      DL_UNROLL
      for (int j = 0; j < Tile::kColumns; j += V) {
        Vec<T, V> v;
        DL_UNROLL
        for (int e = 0; e < V; ++e) v.at[e] = sum[i][j + e];
        *reinterpret_cast<Vec<T, V>*>(shared + (line * 2 + i % 2) * kStride + place.column + j / V * 4 * V) = v;
      }
    }
    __syncthreads();
    emit_rows<Tile::kThreads, kLines, Tile::kN, kStride>(p, s, out, partial, shared, [=](int own) {
      const int i = piece * 2 + own % 2, lane = own / 2 % 8;
      return own / 16 * 64 + lane * V + i / V * 8 * V + i % V;
    });
  }
}
