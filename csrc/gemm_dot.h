// The matrix product where both operands are contiguous along K and one of them is thin: tiles of dot products, with
// nothing packed.
#pragma once
#include "gemm_loops.h"

namespace dlcore {
namespace DL_ISA {

template <class T>
struct DotTiling {
  static constexpr int MR = kVectorRegisters == 32 ? 6 : 3, NR = 4;  // a register tile: MR x NR sums
  static constexpr Index KC = 1024;                                  // MR x KC of A stays in L1
  static constexpr Index NC = 128;                                   // NC x KC of B stays in L2
};

// out[i*Tiling::NR + j] = sum over k of a[i*lda + k] b[j*ldb + k]
template <class T, int MR, int NR>
void dot_tile(Index kc, const T* a, Index lda, const T* b, Index ldb, T* out) {
  constexpr int W = lanes<T>, kSums = (MR * NR + W - 1) / W * W;
  vec<T> acc[kSums];
  static_for<kSums>([&](auto i) DL_INLINE_LAMBDA { acc[i] = vec<T>{}; });
  const auto step = [&](auto read, Index k) DL_INLINE_LAMBDA {
    vec<T> y[NR];
    static_for<NR>([&](auto j) DL_INLINE_LAMBDA { y[j] = read(b + j * ldb + k); });
    static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
      const vec<T> x = read(a + i * lda + k);
      static_for<NR>([&](auto j) DL_INLINE_LAMBDA { acc[i * NR + j] = fma(x, y[j], acc[i * NR + j]); });
    });
  };
  Index k = 0;
  for (; k + W <= kc; k += W) step([](const T* p) DL_INLINE_LAMBDA { return load(p); }, k);
  if (k < kc) step([n = kc - k](const T* p) DL_INLINE_LAMBDA { return load(p, n); }, k);
  T total[kSums];
  static_for<kSums / W>([&](auto s) DL_INLINE_LAMBDA { store(total + s * W, sums<T>(acc + s * W)); });
  static_for<MR * NR>([&](auto s) DL_INLINE_LAMBDA { out[s / NR * Tiling<T>::NR + s % NR] = total[s]; });
}

template <class T>
struct DotTiles {
  using Tile = void (*)(Index, const T*, Index, const T*, Index, T*);
  Tile by_size[DotTiling<T>::MR][DotTiling<T>::NR] = {};  // [rows - 1][columns - 1]
  constexpr DotTiles() {
    static_for<DotTiling<T>::MR>([&](auto i) {
      static_for<DotTiling<T>::NR>([&](auto j) { by_size[i][j] = dot_tile<T, decltype(i)() + 1, decltype(j)() + 1>; });
    });
  }
};
template <class T>
constexpr DotTiles<T> dot_tiles;

// Rows [m0, m0+rows) and columns [n0, n0+cols) of C, at most DotTiling::MR and Tiling::NR, for one block of K.
template <class T, class E>
void dot_strip(Index m0, int rows, Index n0, int cols, Index kc, const T* a, Index lda, const T* b, Index ldb,
               const E& epilogue, bool first, bool last) {
  alignas(64) T acc[DotTiling<T>::MR * Tiling<T>::NR];
  const Panels tiles(cols, DotTiling<T>::NR);
  for (Index j = 0; j < tiles.count; ++j)
    dot_tiles<T>.by_size[rows - 1][tiles.size(j) - 1](kc, a, lda, b + tiles.begin(j) * ldb, ldb, acc + tiles.begin(j));
  epilogue.tile(m0, n0, rows, cols, acc, first, last);
}

// C = A B with A[m,k] = a[m*lda + k], B[k,n] = b[n*ldb + k]; called by all threads of a team's job.
template <class T, class E>
void dot_in_team(int tid, int nt, Index M, Index N, Index K, const T* a, Index lda, const T* b, Index ldb,
                 const E& epilogue) {
  using Tile = DotTiling<T>;
  const Range m = N >= M ? Range{0, M} : part_of(M, 1, tid, nt);
  const Range n = N >= M ? part_of(N, Tile::NR, tid, nt) : Range{0, N};
  const Index step = k_step(K, Tile::KC);
  const Panels panels(m.end - m.begin, Tile::MR);
  for (Index k0 = 0; k0 < K; k0 += step)
    for (Index n_block = n.begin; n_block < n.end; n_block += Tile::NC)
      for (Index i = 0; i < panels.count; ++i)
        for (Index n0 = n_block; n0 < smaller(n_block + Tile::NC, n.end); n0 += Tiling<T>::NR) {
          const Index m0 = m.begin + panels.begin(i), kc = smaller(step, K - k0);
          dot_strip(m0, panels.size(i), n0, int(smaller<Index>(Tiling<T>::NR, n.end - n0)), kc, a + m0 * lda + k0, lda,
                    b + n0 * ldb + k0, ldb, epilogue, k0 == 0, k0 + kc == K);
        }
}

}  // namespace DL_ISA
}  // namespace dlcore
