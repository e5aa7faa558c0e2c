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
  Index n, count;
  DL_INLINE Panels(Index n, Index tallest) : n(n), count((n + tallest - 1) / tallest) {}
  DL_INLINE Index begin(Index p) const { return n * p / count; }
  DL_INLINE int size(Index p) const { return int(begin(p + 1) - begin(p)); }
};

// The size of all blocks of K but the last, none larger than `largest`.
DL_INLINE Index k_step(Index K, Index largest) {
  const Index blocks = (K + largest - 1) / largest;
  return blocks <= 1 ? K : round_up((K + blocks - 1) / blocks, 16);
}

inline constexpr Index kShortK = 160;
inline constexpr Index kFewRows = 256;  // up to these, C stays in L2, and shorter blocks let B stay there too

struct Range {
  Index begin, end;
};
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

// Working memory of gemm_in_team for at most nt threads: made before team().run, which is given nt as its limit. Of an
// operand that is read in place nothing is packed but the last columns of B.
template <class T>
class GemmSpace {
 public:
  using Tile = Tiling<T>;
  DL_INLINE GemmSpace(int nt, Index N, Index K, bool a_in_place, bool b_in_place)
      : b_size_(round_up(smaller(Tile::KC, K), 16) *
                (b_in_place ? Tile::NR : round_up(smaller(Tile::NC, N), Tile::NR))),
        a_size_(a_in_place ? 0 : round_up(smaller(Tile::KC, K), 16) * Tile::MC),
        scratch_(sizeof(T) * size_t(larger(2, nt) * b_size_ + nt * a_size_)),
        nt_(nt) {}
  DL_INLINE T* b(Index i) const { return static_cast<T*>(scratch_.data()) + i * b_size_; }
  DL_INLINE T* a(int tid) const { return b(larger(2, nt_)) + tid * a_size_; }

 private:
  const Index b_size_, a_size_;
  const Scratch scratch_;
  const int nt_;
};

// C = A B, called by all threads of a team's job. B is packed by all together (two buffers, so one barrier a block) and
// the rows of C are divided; where these are too few, the columns are, and each thread packs its own B.
// Returns when this thread is done; the next use of `space`, and of C by others, needs a barrier.
template <class T, class PackA, class PackB, class E>
void gemm_in_team(int tid, int nt, Index M, Index N, Index K, const PackA& A, const PackB& B, const E& epilogue,
                  const GemmSpace<T>& space) {
  using Tile = Tiling<T>;
  constexpr int NR = Tile::NR;
  const bool by_columns = nt > 1 && N > M && (PackB::in_place || M * nt <= N);
  const Range m = by_columns ? Range{0, M} : part_of(M, 1, tid, nt);
  const Range n = by_columns ? part_of(N, lanes<T>, tid, nt) : Range{0, N};
  const bool together = nt > 1 && !by_columns && !PackB::in_place;
  const Index step = k_step(K, M <= kFewRows ? Tile::KC / 2 : Tile::KC);
  T* const a_block = space.a(tid);
  int turn = 0;

  for (Index n_block = n.begin; n_block < n.end; n_block += Tile::NC) {
    const Index nc = smaller(Tile::NC, n.end - n_block), b_panels = (nc + NR - 1) / NR;
    const Index to_pack = PackB::in_place ? nc / NR : 0;  // the first panel to pack
    for (Index k0 = 0; k0 < K; k0 += step) {
      const Index kc = smaller(step, K - k0);
      T* const b_block = space.b(together ? turn++ % 2 : tid);
      const auto packed = [&](Index p) DL_INLINE_LAMBDA { return b_block + (p - to_pack) * NR * kc; };
      const Range mine = together ? part_of(b_panels, 1, tid, nt) : Range{to_pack, b_panels};
      for (Index p = mine.begin; p < mine.end; ++p)
        B.pack(n_block + p * NR, int(smaller<Index>(NR, nc - p * NR)), k0, kc, packed(p));
      if (together) team().barrier();

      for (Index m_block = m.begin; m_block < m.end; m_block += Tile::MC) {
        const Panels panels(smaller(Tile::MC, m.end - m_block), Tile::MR);
        for (Index k = 0; !A.in_place() && k < kc; k += A.depth())
          for (Index i = 0; i < panels.count; ++i)
            A.pack(m_block + panels.begin(i), panels.size(i), k0 + k, smaller(A.depth(), kc - k),
                   a_block + panels.begin(i) * kc + k * panels.size(i));
        const auto tile = [&](Index i, Index p) DL_INLINE_LAMBDA {
          const T* next = packed(p + 1 < b_panels ? p + 1 : to_pack);
          PanelOfB<T> b{packed(p), NR, int(smaller<Index>(NR, nc - p * NR)), next + i * NR * kc / panels.count,
                        (NR + panels.count - 1) / panels.count};
          if constexpr (PackB::in_place)
            if (p < to_pack) {
              const T* here = B.at(n_block + p * NR, k0);
              b = {here, B.row, NR, here + 8 * B.row, B.row};
            }
          const Index m0 = m_block + panels.begin(i);
          const int rows = panels.size(i);
          const PanelOfA<T> a = A.in_place() ? PanelOfA<T>{A.at(m0, k0), A.row, 1, rows}
                                             : PanelOfA<T>{a_block + panels.begin(i) * kc, 1, rows, rows};
          run_tile(kc, a, b, epilogue, m0, n_block + p * NR, k0 == 0, k0 + kc == K);
        };
        if (kc > kShortK)  // a panel of B stays near for all rows
          for (Index p = 0; p < b_panels; ++p)
            for (Index i = 0; i < panels.count; ++i) tile(i, p);
        else  // storing C is most of the work: along its rows
          for (Index i = 0; i < panels.count; ++i)
            for (Index p = 0; p < b_panels; ++p) tile(i, p);
      }
    }
  }
}

}  // namespace DL_ISA
}  // namespace dlcore
