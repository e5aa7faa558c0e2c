// The packed matrix product (loops and packing after BLIS: Van Zee and van de Geijn, ACM TOMS 41(3), 2015), with its
// operands' packers and its epilogue as parameters; convolution and recurrent layers are this loop with other ones.
//
//   packer of A  void pack(Index m0, int rows, Index k0, Index kc, T* out) const     out[k*rows + i] = A[m0+i, k0+k]
//                Index depth() const: how many k at a time; few where neighbouring panels share cache lines
//                bool in_place() const; if true, A[m0+i, k0+k] = at(m0, k0)[i*row + k], and pack is not called
//   packer of B  void pack(Index n0, int cols, Index k0, Index kc, T* out) const     out[k*NR + j]   = B[k0+k, n0+j],
//                zero for cols <= j < NR
//                static constexpr bool in_place; if true, `const T* at(Index n0, Index k0) const` and `Index row`
//                give B[k0+k, n0+j] = at(n0, k0)[k*row + j], and pack is called for the last few columns only
//   epilogue     const T* start(Index n0) const what the sums of columns n0 on begin with, or null for zeros
//                T* place(Index m0, Index n0, bool last, Index* ld, bool* add) const where the micro-kernel may store
//                (or add) a tile of whole vectors itself, or null to get it by
//                void tile(Index m0, Index n0, int rows, int cols, const T* acc, bool first, bool last) const
//                with acc[i*NR + j]: the part of C from one block of K. A sum over K arrives in blocks, `first` to
//                `last`, always in that order; the epilogue adds them up in C.
//
// Sums over K are never divided among threads, so the bits of C do not depend on their number.
#pragma once
#include <algorithm>

#include "memory.h"
#include "parallel.h"
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

template <class T>
struct Tiling {
  // A register tile: MR rows of some vectors. Three vectors need fewer instructions for a multiply-add than two.
  static constexpr int MR = kVectorRegisters == 32 ? 8 : 6;
  static constexpr int kVectors = kVectorRegisters == 32 ? 3 : 2;
  static constexpr int NR = kVectors * lanes<T>;
  static constexpr Index KC = 800;      // long: every further block of K reads and writes all of C
  static constexpr Index MC = 16 * MR;  // MC x KC of A stays in L2, and KC x NR of B
  static constexpr Index NC = 2048;
};

// Rows of A: a[i*row + k*col].
template <class T>
struct PanelOfA {
  const T* data;
  Index row, col;
  int rows;
};

// Columns of B, b[k*ld + j], and what should be fetched meanwhile.
template <class T>
struct PanelOfB {
  const T* data;
  Index ld;
  int cols;
  const T* ahead;
  Index pace;
};

// c[i*ldc + j] = (add ? c : 0) + start[j] (null: 0) + sum over kc of a[i, k] b[k, j], of all rows of a and some vectors
// of columns. Meanwhile b.ahead[k*pace] is fetched into L2.
template <class T>
struct MicroTile {
  Index kc;
  PanelOfA<T> a;
  PanelOfB<T> b;
  T* c;
  Index ldc;
  bool add;
  const T* start;
};
template <class T>
using MicroKernel = void (*)(const MicroTile<T>&);
template <class T>
struct MicroKernels {
  MicroKernel<T> run[Tiling<T>::kVectors + 1][Tiling<T>::MR + 1];  // by vectors and height
};
template <class T>
const MicroKernels<T>& micro_kernels();

// n rows in panels of at most `tallest`, all of nearly one height: no panel is so low that it waits for its latencies.
struct Panels {
  Index count;
  DL_INLINE Panels(Index n, Index tallest)
      : count((n + tallest - 1) / tallest), low_(n / larger<Index>(1, count)), taller_(n - low_ * count) {}
  DL_INLINE Index begin(Index p) const { return p * low_ + smaller(p, taller_); }
  DL_INLINE int size(Index p) const { return int(low_) + (p < taller_); }

 private:
  Index low_, taller_;  // the height of the last ones, and how many before them have a row more
};

// The size of all blocks of K but the last, none larger than `largest`.
DL_INLINE Index k_step(Index K, Index largest) {
  const Index blocks = (K + largest - 1) / largest;
  return blocks <= 1 ? K : round_up((K + blocks - 1) / blocks, 16);
}

inline constexpr Index kShortK = 160;
inline constexpr Index kFewRows = 256;  // up to these, C stays in L2, and shorter blocks let B stay there too

// The tid-th of nt equal parts of [0, n), in whole units.
DL_INLINE Range part_of(Index n, Index unit, int tid, int nt) {
  const Index units = (n + unit - 1) / unit;
  return {smaller(n, units * tid / nt * unit), smaller(n, units * (tid + 1) / nt * unit)};
}

// One tile: by the micro-kernel's own store where the epilogue allows it, else by way of a buffer.
template <class T, class E>
DL_INLINE void run_tile(Index kc, const PanelOfA<T>& a, const PanelOfB<T>& b, const E& epilogue, Index m0, Index n0,
                        bool first, bool last) {
  constexpr int W = lanes<T>, NR = Tiling<T>::NR;
  const int vectors = (b.cols + W - 1) / W;
  const MicroKernel<T> kernel = micro_kernels<T>().run[vectors][a.rows];
  const bool whole = b.cols == vectors * W;
  alignas(64) T acc[Tiling<T>::MR * NR], padded[NR];
  const T* start = first ? epilogue.start(n0) : nullptr;
  if (start != nullptr && !whole) {
    std::fill(std::copy(start, start + b.cols, padded), padded + NR, T(0));
    start = padded;
  }
  Index ld = 0;
  bool add = !first;
  T* const c = whole ? epilogue.place(m0, n0, last, &ld, &add) : nullptr;
  if (c != nullptr) return kernel({kc, a, b, c, ld, add, start});
  kernel({kc, a, b, acc, NR, false, start});
  epilogue.tile(m0, n0, a.rows, b.cols, acc, first, last);
}

// How gemm_in_team divides a product among at most nt threads, its working memory, and what they have taken: made
// before team().run, which is given nt as its limit. Of an operand that is read in place nothing is packed but the last
// columns of B.
template <class T>
class GemmSpace {
  using Tile = Tiling<T>;

 public:
  const bool by_columns;              // threads take columns, and each packs its own of B
  const Index step;                   // of K
  const Index columns;                // that a thread takes at most
  Shares to_pack[2], to_multiply[2];  // of blocks of B, in turn

  DL_INLINE GemmSpace(int nt, Index M, Index N, Index K, bool a_in_place, bool b_in_place)
      : by_columns(nt > 1 && N > M && (b_in_place || M * nt <= N)),
        step(k_step(K, M <= kFewRows ? Tile::KC / 2 : Tile::KC)),
        columns(by_columns ? round_up((N + nt - 1) / nt, lanes<T>) : N),
        to_pack{Shares(nt), Shares(nt)},
        to_multiply{Shares(nt), Shares(nt)},
        b_size_(round_up(step, 16) * (b_in_place ? Tile::NR : round_up(smaller(Tile::NC, columns), Tile::NR))),
        a_size_(a_in_place ? 0 : round_up(step, 16) * smaller(Tile::MC, round_up(M, Tile::MR))),
        b_count_(by_columns || b_in_place     ? nt
                 : N <= Tile::NC && K <= step ? 1
                                              : 2),
        scratch_(sizeof(T) * size_t(b_count_ * b_size_ + nt * a_size_)) {}
  DL_INLINE T* b(Index i) const { return static_cast<T*>(scratch_.data()) + i * b_size_; }
  DL_INLINE T* a(int tid) const { return b(b_count_) + tid * a_size_; }

 private:
  const Index b_size_, a_size_, b_count_;
  const Scratch scratch_;
};

// A block of B that is packed, or where it can be read in place the columns that could not.
template <class T>
struct BlockOfB {
  Index n0, k0, nc, kc;
  T* data;
  Index panels, to_pack;  // the first panel that is packed

  template <class PackB>
  DL_INLINE BlockOfB(const PackB&, Index n0, Index k0, Index nc, Index kc, T* data)
      : n0(n0),
        k0(k0),
        nc(nc),
        kc(kc),
        data(data),
        panels((nc + Tiling<T>::NR - 1) / Tiling<T>::NR),
        to_pack(PackB::in_place ? nc / Tiling<T>::NR : 0) {}
  DL_INLINE T* packed(Index p) const { return data + (p - to_pack) * Tiling<T>::NR * kc; }
  DL_INLINE int cols(Index p) const { return int(smaller<Index>(Tiling<T>::NR, nc - p * Tiling<T>::NR)); }
  template <class PackB>
  DL_INLINE void pack(const PackB& B, const Range& some) const {
    for (Index p = some.begin; p < some.end; ++p) B.pack(n0 + p * Tiling<T>::NR, cols(p), k0, kc, packed(p));
  }
};

// Rows of C, in panels: adds what a block of B gives, or for the first k stores it.
template <class T, class PackA, class PackB, class E>
__attribute__((noinline)) void multiply_rows(const Panels& panels, const Range& rows, Index K, const PackA& A,
                                             const PackB& B, const BlockOfB<T>& b, const E& epilogue, T* a_block) {
  constexpr Index NR = Tiling<T>::NR;
  const Index m_block = panels.begin(rows.begin), count = rows.end - rows.begin, kc = b.kc;
  for (Index k = 0; !A.in_place() && k < kc; k += A.depth())
    for (Index i = rows.begin; i < rows.end; ++i)
      A.pack(panels.begin(i), panels.size(i), b.k0 + k, smaller(A.depth(), kc - k),
             a_block + (panels.begin(i) - m_block) * kc + k * panels.size(i));
  const auto tile = [&](Index i, Index p) DL_INLINE_LAMBDA {
    const T* next = b.packed(p + 1 < b.panels ? p + 1 : b.to_pack);
    PanelOfB<T> columns{b.packed(p), NR, b.cols(p), next + (i - rows.begin) * NR * kc / count,
                        (NR + count - 1) / count};
    if constexpr (PackB::in_place)
      if (p < b.to_pack) {
        const T* here = B.at(b.n0 + p * NR, b.k0);
        columns = {here, B.row, NR, here + 8 * B.row, B.row};
      }
    const Index m0 = panels.begin(i);
    const int height = panels.size(i);
    const PanelOfA<T> a = A.in_place() ? PanelOfA<T>{A.at(m0, b.k0), A.row, 1, height}
                                       : PanelOfA<T>{a_block + (m0 - m_block) * kc, 1, height, height};
    run_tile(kc, a, columns, epilogue, m0, b.n0 + p * NR, b.k0 == 0, b.k0 + kc == K);
  };
  if (kc > kShortK)  // a panel of B stays near for all rows
    for (Index p = 0; p < b.panels; ++p)
      for (Index i = rows.begin; i < rows.end; ++i) tile(i, p);
  else  // storing C is most of the work: along its rows
    for (Index i = rows.begin; i < rows.end; ++i)
      for (Index p = 0; p < b.panels; ++p) tile(i, p);
}

// C = A B, called by all threads of a team's job. B is packed by all together (two buffers, so one barrier a block) and
// they take rows of C; where these are too few, they take columns, and each packs its own of B.
// Returns when nothing is left to take; the next use of `space`, and of C by others, needs a barrier.
template <class T, class PackA, class PackB, class E>
void gemm_in_team(int tid, int nt, Index M, Index N, Index K, const PackA& A, const PackB& B, const E& epilogue,
                  GemmSpace<T>& space) {
  using Tile = Tiling<T>;
  constexpr Index kRows = Tile::MC / Tile::MR, kFewPanels = 4;  // taken at a time
  constexpr Index kSomeColumns = 4 * Tile::kVectors;            // vectors
  const Index step = space.step;
  const Panels panels(M, Tile::MR);
  T* const a_block = space.a(tid);
  const auto block_of = [&](Index n0, Index n_end, Index k0, T* data) DL_INLINE_LAMBDA {
    return BlockOfB<T>(B, n0, k0, smaller(Tile::NC, n_end - n0), smaller(step, K - k0), data);
  };
  const auto multiply = [&](const Range& rows, const BlockOfB<T>& b) {
    for (Index i = rows.begin; i < rows.end; i += kRows)
      multiply_rows(panels, {i, smaller(rows.end, i + kRows)}, K, A, B, b, epilogue, a_block);
  };
  const auto alone = [&](const Range& rows, const Range& columns) {
    for (Index n0 = columns.begin; n0 < columns.end; n0 += Tile::NC)
      for (Index k0 = 0; k0 < K; k0 += step) {
        const BlockOfB<T> b = block_of(n0, columns.end, k0, space.b(tid));
        b.pack(B, {b.to_pack, b.panels});
        multiply(rows, b);
      }
  };
  Range some;
  if (nt > 1 && space.by_columns) {
    const Index vectors = (N + lanes<T> - 1) / lanes<T>, most = space.columns / lanes<T>;
    while (space.to_multiply[0].take(tid, nt, vectors, kSomeColumns, most, &some))
      alone({0, panels.count}, {some.begin * lanes<T>, smaller(N, some.end * lanes<T>)});
  } else if (nt == 1 || PackB::in_place) {
    while (space.to_multiply[0].take(tid, nt, panels.count, kFewPanels, panels.count, &some)) alone(some, {0, N});
  } else {
    int turn = 0;
    for (Index n0 = 0; n0 < N; n0 += Tile::NC)
      for (Index k0 = 0; k0 < K; k0 += step, turn ^= 1) {
        const BlockOfB<T> b = block_of(n0, N, k0, space.b(turn));
        while (space.to_pack[turn].take(tid, nt, b.panels, 1, 1, &some)) b.pack(B, some);
        team().barrier();
        space.to_pack[turn].restart(tid);
        space.to_multiply[turn ^ 1].restart(tid);  // the block before is done
        while (space.to_multiply[turn].take(tid, nt, panels.count, kFewPanels, kRows, &some)) multiply(some, b);
      }
  }
}

}  // namespace DL_ISA
}  // namespace dlcore
