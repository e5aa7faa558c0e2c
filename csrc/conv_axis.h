// One axis of a convolution, or of its gradient with respect to x, brought to one form:
//
// The source is copied into `planes`; place j of plane f holds source element j*step + phase(f) - pad, zero outside the
// source. Results come in `grids`; place i of grid a is result i*grids + a. Tap k of the kernel reads, for place i of a
// grid, place i + shift of one plane. So, for every stride, padding and dilation, neighbouring results read
// neighbouring places: the forward pass splits its source by the stride, the gradient interleaves its results.
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

struct Tap {
  bool used;  // by this grid
  Index plane, shift;
};

struct Axis {
  Index source, results;  // lengths
  Index kernel, stride, dilation, padding;
  bool backward;
  Index planes, step, grids, pad, places;  // places: of a plane
  bool apart = false;                      // each tap has a plane of its own, and no shift

  DL_INLINE Index grid(Index a) const { return (results - a + grids - 1) / grids; }  // its length
  DL_INLINE Index halo() const { return places - grid(0); }
  DL_INLINE Index phase(Index plane) const { return apart ? plane * dilation : plane * dilation % step; }

  DL_INLINE Tap tap(Index a, Index k) const {
    if (apart) return {true, k, 0};
    if (!backward) return {true, k % planes, k * dilation / stride};
    const Index distance = a + padding - k * dilation;
    return {distance % stride == 0, 0, distance / stride + pad};
  }
};

// Where the taps y and x of both axes begin in planes[row plane][column plane] of `plane` elements each.
DL_INLINE Index offset_of(const Axis& xs, const Tap& y, const Tap& x, Index plane) {
  return (y.plane * xs.planes + x.plane) * plane + y.shift * xs.places + x.shift;
}

DL_INLINE Axis forward_axis(Index source, Index results, Index kernel, Index stride, Index dilation, Index padding) {
  Index planes = 1;  // taps apart by this many see the same plane
  while (planes < kernel && planes * dilation % stride != 0) ++planes;
  const Index reach = (kernel - 1) * dilation / stride;
  return {source, results, kernel, stride, dilation, padding, false, planes, stride, 1, padding, results + reach};
}

// The same with a plane for each tap, whose places are the results.
DL_INLINE Axis axis_of_taps(Index source, Index results, Index kernel, Index stride, Index dilation, Index padding) {
  return {source, results, kernel, stride, dilation, padding, false, kernel, stride, 1, padding, results, true};
}

// Element i of the gradient is the sum over the taps k with stride*p == i + padding - k*dilation of source element p.
DL_INLINE Axis backward_axis(Index source, Index results, Index kernel, Index stride, Index dilation, Index padding) {
  Axis axis{source, results, kernel, stride, dilation, padding, true, 1, 1, stride, 0, 0};
  Index lowest = PTRDIFF_MAX, highest = PTRDIFF_MIN;
  for (Index a = 0; a < stride; ++a)
    for (Index k = 0; k < kernel; ++k) {
      const Tap tap = axis.tap(a, k);
      if (tap.used) lowest = smaller(lowest, tap.shift), highest = larger(highest, tap.shift);
    }
  axis.pad = -lowest;
  axis.places = axis.grid(0) + highest - lowest;
  return axis;
}

// Of a row of `size` places, the first of which is source element -pad: the places `left` to left + n that are elements
// of the source, from `first` on. n may be 0 or less.
struct Inside {
  Index left, first, n;
  DL_INLINE Inside(Index source, Index pad, Index size)
      : left(larger<Index>(0, pad)), first(left - pad), n(smaller(source - first, size - left)) {}
};

}  // namespace DL_ISA
}  // namespace dlcore
