// Copies between images and the planes of conv_axis.h.
#pragma once
#include "conv_axis.h"
#include "shuffles.h"

namespace dlcore {
namespace DL_ISA {

// from[0], from[step], ...: n of them, the other lanes zero.
template <class T>
DL_INLINE vec<T> load_every(const T* from, Index step, int n) {
  constexpr int W = lanes<T>;
  if (step == 1) return n == W ? load(from) : load(from, n);
  if (step == 2) {
    const int both = 2 * n - 1;  // elements, up to the last one wanted
    return even_of<T>(both < W ? load(from, both) : load(from), load(from + W, larger(both - W, 0)));
  }
  vec<T> v = {};
  for (int i = 0; i < n; ++i) v[i] = from[i * step];
  return v;
}

template <class T>
DL_INLINE void store_zeros(T* to, Index n) {
  for (Index i = 0; i < n; i += lanes<T>) store(to + i, vec<T>{});
}

// to[i] = from[i*step] for begin <= i < end, else 0, for i < n. Writes whole vectors: up to one beyond n.
template <class T>
DL_INLINE void copy_every(const T* from, Index step, Index begin, Index end, Index n, T* to) {
  constexpr Index W = lanes<T>;
  store_zeros(to, begin);
  for (Index i = begin; i < end; i += W) store(to + i, load_every(from + i * step, step, int(smaller(W, end - i))));
  store_zeros(to + end, n - end);
}

// W places from `to` on of rows [row, row + rows) of a plane, the first of which is source element (y0, x0), for steps
// of 1 and 2 along x: what is beside the source is the same lanes in every row.
template <class T, int Step>
void fill_vectors(const Axis& ys, Index source, const T* image, Index y0, Index x0, Index row, Index rows, T* to,
                  Index places) {
  constexpr Index W = lanes<T>;
  int begin[Step], end[Step];
  bool whole = true;
  for (int h = 0; h < Step; ++h) {
    const Index x = x0 + h * W;
    begin[h] = int(smaller(W, larger<Index>(0, -x)));
    end[h] = int(larger<Index>(begin[h], smaller(W, source - x)));
    whole = whole && end[h] - begin[h] == W;
  }
  const auto fill = [&](auto read) DL_INLINE_LAMBDA {
    for (Index j = row; j < row + rows; ++j, to += places) {
      const Index y = j * ys.step + y0;
      const T* from = image + y * source + x0;
      if (y < 0 || y >= ys.source) store(to, vec<T>{});
      else if constexpr (Step == 1) store(to, read(from, 0));
      else store(to, even_of<T>(read(from, 0), read(from + W, 1)));
    }
  };
  whole ? fill([](const T* p, int) DL_INLINE_LAMBDA { return load(p); })
        : fill([&](const T* p, int h) DL_INLINE_LAMBDA { return load(p, begin[h], end[h]); });
}

// The rows [row, row + rows) of the plane whose place (0, 0) is source element (y0, x0).
template <class T>
void fill_plane(const Axis& ys, const Axis& xs, const T* image, Index y0, Index x0, Index row, Index rows, T* plane) {
  constexpr Index W = lanes<T>;
  if (xs.step <= 2) {  // from right to left, as whole vectors go beyond the ends of rows
    for (Index i = (xs.places - 1) / W * W; i >= 0; i -= W)
      (xs.step == 1 ? fill_vectors<T, 1> : fill_vectors<T, 2>)(ys, xs.source, image, y0, x0 + i * xs.step, row, rows,
                                                               plane + i, xs.places);
    return;
  }
  const auto place = [&](Index at) {  // the first one whose source element is at or after `at`
    const Index j = at - x0 + xs.step - 1;
    return j < 0 ? Index(0) : smaller(xs.places, j / xs.step);
  };
  const Index begin = place(0), end = place(xs.source);
  for (Index j = row; j < row + rows; ++j, plane += xs.places) {
    const Index y = j * ys.step + y0;
    const bool inside = y >= 0 && y < ys.source;
    if (inside) copy_every(image + y * xs.source + x0, xs.step, begin, end, xs.places, plane);
    else store_zeros(plane, xs.places);
  }
}

// Rows [row, row + rows) of every plane of one source image: planes[channel][row plane][column plane][row][place].
template <class T>
void fill_planes(const Axis& ys, const Axis& xs, const T* image, Index channels, Index row, Index rows, T* planes) {
  for (Index c = 0; c < channels; ++c, image += ys.source * xs.source)
    for (Index i = 0; i < ys.planes; ++i)
      for (Index j = 0; j < xs.planes; ++j, planes += rows * xs.places)
        fill_plane(ys, xs, image, ys.phase(i) - ys.pad, xs.phase(j) - xs.pad, row, rows, planes);
}

// One row of results from its `xs.grids` grids: grid(a) is this row of grid a.
template <class T, class Grid>
DL_INLINE void join_row(const Axis& xs, T* row, const Grid& grid) {
  constexpr int W = lanes<T>;
  Index done = 0;
  if (xs.grids == 2) {
    const T *even = grid(0), *odd = grid(1);
    for (; done + 2 * W <= xs.results; done += 2 * W) {
      const vec<T> a = load(even + done / 2), b = load(odd + done / 2);
      store(row + done, zip_low<T>(a, b));
      store(row + done + W, zip_high<T>(a, b));
    }
  }
  for (Index a = 0; a < xs.grids; ++a) {
    const T* from = grid(a);
    for (Index i = done / xs.grids; i < xs.grid(a); ++i) row[i * xs.grids + a] = from[i];
  }
}

}  // namespace DL_ISA
}  // namespace dlcore
