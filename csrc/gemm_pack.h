// Packing of plain strided matrices for gemm_loops.h.
#pragma once
#include "gemm_loops.h"

namespace dlcore {
namespace DL_ISA {

// Whether a whole vector may be stored for a slice of a panel, as what it puts behind is overwritten by the slices
// after it; left: how many there are, this one included.
template <class T>
DL_INLINE bool spills_into_later(int width, Index left) {
  return width < lanes<T> && left * width >= lanes<T>;
}

// out[k*width + i] = p[i*stride + k], n <= width lines contiguous in k; zero for n <= i < width.
template <class T>
DL_INLINE void pack_lines(const T* p, Index stride, int n, Index kc, T* out, int width) {
  constexpr int W = lanes<T>;
  for (int i0 = 0; i0 < width; i0 += W) {
    Index k = 0;
    const int some = larger(0, smaller(W, n - i0)), fit = smaller(W, width - i0);
    for (; some > 0 && k + W <= kc; k += W) {
      vec<T> square[W];
      static_for<W>([&](auto j)
                        DL_INLINE_LAMBDA { square[j] = j < some ? load(p + (i0 + j) * stride + k) : vec<T>{}; });
      transpose<T>(square);
      T* to = out + k * width + i0;
      const bool overwritten = spills_into_later<T>(width, kc - k - W + 1);
      if (fit == W || overwritten) static_for<W>([&](auto j) DL_INLINE_LAMBDA { store(to + j * width, square[j]); });
      else static_for<W>([&](auto j) DL_INLINE_LAMBDA { store(to + j * width, square[j], fit); });
    }
    const T* lines = p + i0 * stride;
    for (; k < kc; ++k)
      for (int i = 0; i < fit; ++i) out[k * width + i0 + i] = i < some ? lines[i * stride + k] : T(0);
  }
}

// out[k*N + i] = p[k*stride + i], i < N contiguous.
template <int N, class T>
DL_INLINE void copy_slices(const T* p, Index stride, Index kc, T* out) {
  for (Index k = 0; k < kc; ++k) __builtin_memcpy(out + k * N, p + k * stride, N * sizeof(T));
}

// out[k*width + i] = p[k*stride + i], i < n contiguous; zero for n <= i < width.
template <class T>
DL_INLINE void pack_slices(const T* p, Index stride, int n, Index kc, T* out, int width) {
  constexpr int W = lanes<T>, MR = Tiling<T>::MR, NR = Tiling<T>::NR;
  if (n == NR && width == NR) return copy_slices<NR>(p, stride, kc, out);
  if (n == MR && width == MR) return copy_slices<MR>(p, stride, kc, out);
  for (Index k = 0; k < kc; ++k)
    for (int i0 = 0; i0 < width; i0 += W) {
      const vec<T> x = i0 + W <= n ? load(p + k * stride + i0) : load(p + k * stride + i0, larger(0, n - i0));
      if (i0 + W <= width || spills_into_later<T>(width, kc - k)) store(out + k * width + i0, x);
      else store(out + k * width + i0, x, width - i0);
    }
}

// out[k*width + i] = p[i*line_stride + k*k_stride]
template <class T>
DL_INLINE void pack_panel(const T* p, Index line_stride, Index k_stride, int n, Index kc, T* out, int width) {
  if (k_stride == 1) return pack_lines(p, line_stride, n, kc, out, width);
  if (line_stride == 1) return pack_slices(p, k_stride, n, kc, out, width);
  for (Index k = 0; k < kc; ++k)
    for (int i = 0; i < width; ++i) out[k * width + i] = i < n ? p[i * line_stride + k * k_stride] : T(0);
}

template <class T>
struct PackRows {                          // a matrix as operand A
  static constexpr Index kNear = 2 << 20;  // bytes of B that are read from L2: reading A in place takes no longer
  const T* p;
  Index row, col;
  bool here;
  DL_INLINE PackRows(const T* p, Index row, Index col, Index b_elements)
      : p(p), row(row), col(col), here(col == 1 && b_elements * Index(sizeof(T)) <= kNear) {}
  DL_INLINE Index depth() const { return col == 1 ? Tiling<T>::KC : 16; }
  DL_INLINE bool in_place() const { return here; }
  DL_INLINE const T* at(Index m0, Index k0) const { return p + m0 * row + k0; }
  __attribute__((noinline)) void pack(Index m0, int rows, Index k0, Index kc, T* out) const {
    pack_panel(p + m0 * row + k0 * col, row, col, rows, kc, out, rows);
  }
};

template <class T>
struct PackColumns {  // a matrix as operand B
  static constexpr bool in_place = false;
  const T* p;
  Index row, col;
  __attribute__((noinline)) void pack(Index n0, int cols, Index k0, Index kc, T* out) const {
    pack_panel(p + k0 * row + n0 * col, col, row, cols, kc, out, Tiling<T>::NR);
  }
};

template <class T>
struct ReadColumns {  // a matrix with contiguous rows as operand B, where few rows of A make packing it a waste
  static constexpr bool in_place = true;
  const T* p;
  Index row;
  DL_INLINE const T* at(Index n0, Index k0) const { return p + k0 * row + n0; }
  void pack(Index n0, int cols, Index k0, Index kc, T* out) const {
    pack_slices(at(n0, k0), row, cols, kc, out, Tiling<T>::NR);
  }
};

}  // namespace DL_ISA
}  // namespace dlcore
