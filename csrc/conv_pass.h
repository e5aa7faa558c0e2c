// A convolution as matrix products, of the weights with patches: C[feature, pixel] = A[feature, term] B[term, pixel], a
// term being a channel and a tap. Patches are gathered while a panel of B is packed; no more of them than a panel ever
// lies in memory.
//
// Work is divided into units: a group of channels, of some images (if small) or some rows of one. For each unit a
// thread copies the source into planes (conv_axis.h), whose padding makes every patch alike, and then makes, panel by
// panel, each grid of results.
#pragma once
#include "conv.h"
#include "conv_micro.h"
#include "conv_planes.h"
#include "gemm_loops.h"

namespace dlcore {
namespace DL_ISA {

// Forward, or the gradient with respect to x: `source` to `results`, `channels` to `features` for each group.
template <class T>
struct Correlation {
  Axis ys, xs;
  Index batch, groups, channels, features;
  const T *source, *w, *bias;           // bias may be null
  Index w_group, w_feature, w_channel;  // strides
  T* results;
  Tail tail;

  DL_INLINE Index source_image() const { return ys.source * xs.source; }
  DL_INLINE Index result_image() const { return ys.results * xs.results; }
  DL_INLINE Index taps() const { return ys.kernel * xs.kernel; }
  DL_INLINE Index grids() const { return ys.grids * xs.grids; }
};

template <class T>
DL_INLINE Correlation<T> forward_correlation(const Conv2d& c, const T* x, const T* w, const T* b, T* y) {
  const Index channels = c.C / c.groups, features = c.O / c.groups, kernel = c.KH * c.KW;
  return {forward_axis(c.H, c.P, c.KH, c.stride[0], c.dilation[0], c.padding[0]),
          forward_axis(c.W, c.Q, c.KW, c.stride[1], c.dilation[1], c.padding[1]),
          c.N,
          c.groups,
          channels,
          features,
          x,
          w,
          b,
          features * channels * kernel,
          channels * kernel,
          kernel,
          y,
          c.tail};
}

template <class T>
DL_INLINE Correlation<T> backward_correlation(const Conv2d& c, const T* dy, const T* w, T* dx) {
  const Index channels = c.C / c.groups, features = c.O / c.groups, kernel = c.KH * c.KW;
  return {backward_axis(c.P, c.H, c.KH, c.stride[0], c.dilation[0], c.padding[0]),
          backward_axis(c.Q, c.W, c.KW, c.stride[1], c.dilation[1], c.padding[1]),
          c.N,
          c.groups,
          features,
          channels,
          dy,
          w,
          nullptr,
          features * channels * kernel,
          kernel,
          channels * kernel,
          dx,
          c.tail};
}

// out[(c*taps + t)*rows + m] = w[m*w_feature + c*w_channel + t]: some features' weights of some channels. A channel's
// are contiguous, or all are.
template <class T>
DL_INLINE void pack_terms(const Correlation<T>& p, const T* w, Index channels, Index rows, T* out) {
  const Index taps = p.taps(), run = p.w_channel == taps ? channels * taps : taps;
  for (Index t = 0; t < channels * taps; t += run)
    transpose_row(w + t / taps * p.w_channel, p.w_feature, rows, run, rows, out + t * rows);
}

// What a unit is, and the sizes of its working memory.
template <class T>
struct Division {
  static constexpr Index kPlaneElements = 64 * 1024;  // planes of a unit stay in L2
  Index images, rows;                                 // of a unit
  Index image_blocks, row_blocks, units;
  Index plane_rows, plane, image;  // elements of a plane, of the planes of an image
  Index grid, results;             // elements of a grid of one feature, of all grids of an image; 0 if not joined

  DL_INLINE Division(const Correlation<T>& p, int nt) {
    const Index rows_all = p.ys.grid(0), per_row = p.channels * p.ys.planes * p.xs.planes * p.xs.places;
    const Index whole = per_row * p.ys.places, independent = p.batch * p.groups;
    Index blocks = larger<Index>(1, (whole + kPlaneElements - 1) / kPlaneElements);
    if (independent * blocks < nt) blocks = (nt + independent - 1) / independent;
    blocks = smaller(blocks, rows_all);
    rows = (rows_all + blocks - 1) / blocks;
    row_blocks = (rows_all + rows - 1) / rows;
    images = row_blocks > 1 ? 1 : larger<Index>(1, smaller(kPlaneElements / whole, p.batch / (16 * nt)));
    image_blocks = (p.batch + images - 1) / images;
    units = image_blocks * row_blocks * p.groups;
    plane_rows = rows + p.ys.halo();
    plane = plane_rows * p.xs.places;
    image = p.channels * p.ys.planes * p.xs.planes * plane;
    grid = p.grids() > 1 ? rows * p.xs.grid(0) : 0;
    results = grid * p.grids() * p.features;
  }
};

struct Unit {
  Index group, image, images, row, rows;
};

template <class T>
DL_INLINE Unit unit_of(const Correlation<T>& p, const Division<T>& d, Index i) {
  const Index row = i % d.row_blocks * d.rows, block = i / d.row_blocks % d.image_blocks;
  return {i / d.row_blocks / d.image_blocks, block * d.images, smaller(d.images, p.batch - block * d.images), row,
          d.rows};
}

// One grid of results: the taps it uses and its packed weights.
struct Pass {
  Index a_row, a_col;  // which grid
  Index rows, cols;    // of it
  Index taps, first_tap, first_term;
  DL_INLINE Index terms(Index channels) const { return taps * channels; }
};

// The passes of a correlation, and where in the planes and in the kernel each tap of them is.
template <class T>
class Passes {
 public:
  DL_INLINE Passes(const Correlation<T>& p, const Division<T>& d)
      : memory_(size_t(p.grids()) * sizeof(Pass) + size_t(p.taps()) * 3 * sizeof(Index)), count_(p.grids()) {
    offset_ = reinterpret_cast<Index*>(pass_() + count_);
    weight_ = offset_ + p.taps();
    packed_ = weight_ + p.taps();
    for (Index t = 0; t < p.taps(); ++t) packed_[t] = t * kTileVectors * lanes<T>;
    Index tap = 0, i = 0;
    for (Index a = 0; a < p.ys.grids; ++a)
      for (Index b = 0; b < p.xs.grids; ++b, ++i) {
        const Index first = tap;
        for (Index r = 0; r < p.ys.kernel; ++r)
          for (Index s = 0; s < p.xs.kernel; ++s) {
            const Tap y = p.ys.tap(a, r), x = p.xs.tap(b, s);
            if (!y.used || !x.used) continue;
            offset_[tap] = offset_of(p.xs, y, x, d.plane);
            weight_[tap++] = r * p.xs.kernel + s;
          }
        pass_()[i] = {a, b, p.ys.grid(a), p.xs.grid(b), tap - first, first, first * p.channels};
      }
  }
  DL_INLINE Index count() const { return count_; }
  DL_INLINE const Pass& operator[](Index i) const { return pass_()[i]; }
  DL_INLINE const Index* offset(const Pass& pass) const { return offset_ + pass.first_tap; }
  DL_INLINE const Index* packed_offset() const { return packed_; }  // in a packed panel
  DL_INLINE const Index* weight(const Pass& pass) const { return weight_ + pass.first_tap; }

 private:
  DL_INLINE Pass* pass_() const { return static_cast<Pass*>(memory_.data()); }
  const Scratch memory_;
  const Index count_;
  Index *offset_, *weight_, *packed_;
};

// Where the results of a pass go: feature m of pixel (image, row, column) is at base + image*image_step +
// m*feature_step
// + row*cols + column, rows counted from the unit's first.
template <class T>
struct Target {
  T* base;
  Index image_step, feature_step;
};

template <class T>
inline constexpr int kPanelPixels = kTileVectors * lanes<T>;

// Consecutive pixels [begin, begin + count) of a unit's grid.
struct Pixels {
  Index begin;
  int count;
};

// A vector of pixels of a panel as pieces that are contiguous in the planes.
template <class T>
struct Pieces {
  int count;
  int begin[lanes<T>], end[lanes<T>];  // lanes
  Index from[lanes<T>];                // where lane 0 would lie in the planes
  Index image, pixel;                  // of lane 0
};

// Walks over the pixels of a unit's grid.
struct Walk {
  Index rows, cols, row_step, image_step;
  Index image = 0, row = 0, col = 0;

  DL_INLINE Walk(Index rows, Index cols, Index row_step, Index image_step)
      : rows(rows), cols(cols), row_step(row_step), image_step(image_step) {}

  // The next n pixels.
  template <class T>
  DL_INLINE void take(int n, Pieces<T>* pieces) {
    pieces->count = 0, pieces->image = image, pieces->pixel = row * cols + col;
    for (int i = 0; i < n;) {
      const int some = int(smaller<Index>(n - i, cols - col));
      pieces->begin[pieces->count] = i, pieces->end[pieces->count] = i + some;
      pieces->from[pieces->count++] = image * image_step + row * row_step + col - i;
      i += some, col += some;
      if (col == cols) col = 0, ++row;
      if (row == rows) row = 0, ++image;
    }
  }
};

// out[k*kPanelPixels] = the terms of one vector of pixels: `channels` channels of the taps at `offset`. Whole vectors
// are read, so the planes need as much room before and behind them.
template <class T, int Count>
void pack_pieces(const T* planes, Index channels, Index channel_step, const Index* offset, Index taps,
                 const Pieces<T>& pieces, T* out) {
  Index from[Count];
  LaneMask<T> mask[Count];
  static_for<Count>([&](auto i) DL_INLINE_LAMBDA {
    from[i] = pieces.from[i];
    mask[i] = lane_mask<T>(pieces.begin[i], pieces.end[i]);
  });
  for (Index c = 0; c < channels; ++c, planes += channel_step)
    for (Index t = 0; t < taps; ++t, out += kPanelPixels<T>) {
      const T* tap = planes + offset[t];
      vec<T> x = load(tap + from[0]);
      static_for<Count - 1>([&](auto i) DL_INLINE_LAMBDA { x = merge(x, tap + from[i + 1], mask[i + 1]); });
      store(out, x);
    }
}

template <class T>
void pack_patches(const T* planes, Index channels, Index channel_step, const Index* offset, Index taps,
                  const Pieces<T>& pieces, T* out) {
  switch (pieces.count) {
    case 1:
      return pack_pieces<T, 1>(planes, channels, channel_step, offset, taps, pieces, out);
    case 2:
      return pack_pieces<T, 2>(planes, channels, channel_step, offset, taps, pieces, out);
    case 3:
      return pack_pieces < T, lanes<T><3 ? 2 : 3>(planes, channels, channel_step, offset, taps, pieces, out);
  }
  for (Index c = 0; c < channels; ++c, planes += channel_step)
    for (Index t = 0; t < taps; ++t, out += kPanelPixels<T>)
      for (int i = 0; i < pieces.count; ++i)
        for (int j = pieces.begin[i]; j < pieces.end[i]; ++j) out[j] = planes[offset[t] + pieces.from[i] + j];
}

// Moves a tile of `rows` features between its places and a buffer, image by image; first: elements up to the first one.
template <class T, bool Out>
void move_tile(T* tile, int rows, Pixels pixels, Index pixels_per_image, const Target<T>& target, Index first) {
  constexpr int W = lanes<T>;
  for (int i = 0; i < pixels.count;) {
    const Index image = (pixels.begin + i) / pixels_per_image, pixel = (pixels.begin + i) % pixels_per_image;
    const int n = int(smaller<Index>(pixels.count - i, pixels_per_image - pixel));
    T* to = target.base + image * target.image_step + first + pixel;
    for (int m = 0; m < rows; ++m, to += target.feature_step)
      for (int j = 0; j < n; j += W) {
        const int some = smaller(W, n - j);
        T* at = tile + m * kPanelPixels<T> + i + j;
        Out ? store(to + j, load(at, some), some) : store(at, load(to + j, some), some);
      }
    i += n;
  }
}

}  // namespace DL_ISA
}  // namespace dlcore
