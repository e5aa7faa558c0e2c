// Gradient of a convolution with respect to its weights: dw[o, term] = the sum over pixels of dy[o, pixel] patch[pixel,
// term]. The image is transposed to channels last, so that one row of a patch is contiguous and vectors run over terms;
// a row of dy is read as it is. Sums are made in a number of chunks of the batch that the shape alone decides, then
// added.
#include "conv.h"
#include "conv_chunks.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "shuffles.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr int kRows = kVectorRegisters / 4, kVectors = 3;  // a register tile
constexpr Index kFewTaps = 32;                             // with more, vectors of terms are nearly full

// c[i, j] += the sum over pixels (y, x) of a[i*lda + y*a_row + x] b[y*b_row + x*ldb + j], for a tile of MR x NV
// vectors.
template <class T>
struct Tile {
  Index rows, cols;  // of pixels
  const T* a;
  Index lda, a_row;
  const T* b;
  Index ldb, b_row;
  T* c;
  Index ldc;
};

template <class T, int MR, int NV>
void accumulate(const Tile<T>& t) {
  constexpr int W = lanes<T>;
  vec<T> acc[MR][NV];
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    static_for<NV>([&](auto j) DL_INLINE_LAMBDA { acc[i][j] = load(t.c + i * t.ldc + j * W); });
  });
  const Index lda = t.lda, ldb = t.ldb;
  for (Index y = 0; y < t.rows; ++y) {
    const T *a = t.a + y * t.a_row, *b = t.b + y * t.b_row;
    for (const T* end = a + t.cols; a < end; ++a, b += ldb) {
      vec<T> row[NV];
      static_for<NV>([&](auto j) DL_INLINE_LAMBDA { row[j] = load(b + j * W); });
      static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
        const vec<T> x = broadcast(a[i * lda]);
        static_for<NV>([&](auto j) DL_INLINE_LAMBDA { acc[i][j] = fma(x, row[j], acc[i][j]); });
      });
    }
  }
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    static_for<NV>([&](auto j) DL_INLINE_LAMBDA { store(t.c + i * t.ldc + j * W, acc[i][j]); });
  });
}

template <class T>
struct Accumulators {
  void (*run[kRows + 1][kVectors + 1])(const Tile<T>&);
};
template <class T>
constexpr Accumulators<T> make() {
  Accumulators<T> table = {};
  static_for<kRows>([&](auto i) {
    static_for<kVectors>(
        [&](auto j) { table.run[i + 1][j + 1] = accumulate<T, decltype(i)() + 1, decltype(j)() + 1>; });
  });
  return table;
}
template <class T>
constexpr Accumulators<T> accumulators = make<T>();

// The channels-last image, and which of its runs of elements are terms. Few channels are first multiplied by the rows
// of the kernel, for longer runs.
template <class T>
struct Layout {
  static constexpr Index kElements = 64 * 1024;                    // of the transposed image: it stays in L2
  static constexpr Index kManyFeatures = 128, kCopied = 5 * 1024;  // copied elements stay in L1
  const Conv2d& p;
  Index channels, features;  // per group
  bool expanded;             // an element is (kernel row, channel), not (channel)
  Index pixel, width;        // elements of a pixel, pixels of a row
  Index segments, segment;   // contiguous runs of terms, and their length
  Index terms;               // of an accumulator's row: segments, each rounded up to vectors
  Index rows;                // of dy at a time
  Index chunks, parts;       // of the batch, of the features

  DL_INLINE Layout(const Conv2d& p, int nt) : p(p), channels(p.C / p.groups), features(p.O / p.groups) {
    const bool runs = p.dilation[1] == 1;
    expanded = runs && channels * p.KW <= lanes<T>;
    pixel = expanded ? p.KH * channels : channels;
    width = (p.Q - 1) * p.stride[1] + (p.KW - 1) * p.dilation[1] + 1;
    segments = expanded ? 1 : runs ? p.KH : p.KH * p.KW;
    segment = runs ? p.KW * pixel : pixel;
    terms = segments * round_up(segment, lanes<T>);
    rows = smaller(p.P, larger<Index>(1, kElements / (width * pixel * row_step())));
    chunks = chunks_of(p.N, p.O * terms, 16, 1 << 19);
    parts = parts_of((features + kRows - 1) / kRows, chunks * p.groups, nt);
  }
  DL_INLINE Index row_step() const { return expanded ? 1 : p.stride[0]; }  // rows of the image from one row of dy on
  DL_INLINE Index image_rows() const {
    return expanded ? rows : (rows - 1) * p.stride[0] + (p.KH - 1) * p.dilation[0] + 1;
  }
  DL_INLINE Index image() const { return image_rows() * width * pixel + kVectors * lanes<T>; }
  // Rows of dy whose patches, of one tile of terms, are copied for all features; 0: none, they are read in the image.
  DL_INLINE Index copied_rows() const {
    return features < kManyFeatures ? 0 : larger<Index>(1, kCopied / (p.Q * kVectors * lanes<T>));
  }
  DL_INLINE Index copy() const { return smaller(copied_rows(), rows) * p.Q * kVectors * lanes<T>; }
  DL_INLINE Index offset(Index i) const {  // of segment i, from a pixel's first element
    if (expanded) return 0;
    if (p.dilation[1] == 1) return i * p.dilation[0] * width * pixel;
    return (i / p.KW * p.dilation[0] * width + i % p.KW * p.dilation[1]) * pixel;
  }
  DL_INLINE Index term(Index c, Index r, Index s) const {  // its place in an accumulator's row
    if (expanded) return s * pixel + r * channels + c;
    const Index padded = round_up(segment, lanes<T>);
    return p.dilation[1] == 1 ? r * padded + s * channels + c : (r * p.KW + s) * padded + c;
  }
};

template <class T>
DL_INLINE void fill_zero(const Layout<T>& l, Index pixels, T* out) {
  for (Index x = 0; x < pixels; ++x, out += l.pixel)
    for (Index c = 0; c < l.channels; ++c) out[c] = T(0);
}

// Row y of one channel group of the image, zero outside it, into the first `channels` elements of each pixel.
template <class T>
void fill_row(const Layout<T>& l, const T* image, Index y, T* out) {
  const Conv2d& p = l.p;
  const Index pad = p.padding[1], begin = smaller(pad, l.width), end = smaller(l.width, p.W + pad);
  if (y < 0 || y >= p.H || begin >= end) return fill_zero(l, l.width, out);
  fill_zero(l, begin, out);
  transpose_row(image + y * p.W + begin - pad, p.H * p.W, l.channels, end - begin, l.pixel, out + begin * l.pixel);
  fill_zero(l, l.width - end, out + end * l.pixel);
}

template <class T>
void fill_image(const Layout<T>& l, const T* image, Index row, Index rows, T* out) {
  const Conv2d& p = l.p;
  const Index first = row * p.stride[0] - p.padding[0];
  if (l.expanded) {
    for (Index y = 0; y < rows; ++y)
      for (Index r = 0; r < p.KH; ++r)
        fill_row(l, image, first + y * p.stride[0] + r * p.dilation[0], out + y * l.width * l.pixel + r * l.channels);
  } else {
    for (Index y = 0; y < (rows - 1) * p.stride[0] + (p.KH - 1) * p.dilation[0] + 1; ++y)
      fill_row(l, image, first + y, out + y * l.width * l.pixel);
  }
}

// The patches of some rows as [pixel][vector].
template <class T>
void copy_patches(const Layout<T>& l, const T* from, Index rows, int vectors, T* to) {
  constexpr int W = lanes<T>;
  for (Index y = 0; y < rows; ++y, from += l.row_step() * l.width * l.pixel)
    for (Index x = 0; x < l.p.Q; ++x, to += vectors * W)
      for (int v = 0; v < vectors; ++v) store(to + v * W, load(from + x * l.p.stride[1] * l.pixel + v * W));
}

// Adds one tile of terms to sums[feature, term], for the features [begin, end).
template <class T>
void add_terms(Tile<T> tile, int vectors, const T* dy, Index begin, Index end, T* sums) {
  for (Index m = begin; m < end; m += kRows) {
    tile.a = dy + m * tile.lda, tile.c = sums + m * tile.ldc;
    accumulators<T>.run[int(smaller<Index>(kRows, end - m))][vectors](tile);
  }
}

// Adds the terms of some rows of one image; `copy` is working memory.
template <class T>
void add_image(const Layout<T>& l, const T* dy, Index rows, Index begin, Index end, const T* image, T* copy, T* sums) {
  constexpr int W = lanes<T>;
  const Conv2d& p = l.p;
  const Index padded = round_up(l.segment, W), step = smaller(l.copied_rows() > 0 ? l.copied_rows() : rows, rows);
  const Index ldb = p.stride[1] * l.pixel, b_row = l.row_step() * l.width * l.pixel;
  for (Index i = 0; i < l.segments; ++i)
    for (Index j = 0; j < padded; j += kVectors * W)
      for (Index row = 0; row < rows; row += step) {
        const int vectors = int(smaller<Index>(kVectors, (padded - j) / W));
        const T* b = image + row * b_row + l.offset(i) + j;
        Tile<T> tile{smaller(step, rows - row), p.Q, nullptr, p.P * p.Q, p.Q, b, ldb, b_row, nullptr, l.terms};
        if (l.copied_rows() > 0) {
          copy_patches(l, b, tile.rows, vectors, copy);
          tile.b = copy, tile.ldb = vectors * W, tile.b_row = p.Q * tile.ldb;
        }
        add_terms(tile, vectors, dy + row * p.Q, begin, end, sums + i * padded + j);
      }
}

// The sums of one chunk of the batch for one part of a group's features.
template <class T>
void add_chunk(const Layout<T>& l, const T* x, const T* dy, Index chunk, Index group, Index part, T* image, T* copy,
               T* sums) {
  const Conv2d& p = l.p;
  const Index begin = l.features * part / l.parts, end = l.features * (part + 1) / l.parts;
  for (Index i = begin * l.terms; i < end * l.terms; ++i) sums[i] = T(0);
  for (Index n = p.N * chunk / l.chunks; n < p.N * (chunk + 1) / l.chunks; ++n)
    for (Index row = 0; row < p.P; row += l.rows) {
      const Index rows = smaller(l.rows, p.P - row);
      fill_image(l, x + (n * p.groups + group) * l.channels * p.H * p.W, row, rows, image);
      add_image(l, dy + (n * p.groups + group) * l.features * p.P * p.Q + row * p.Q, rows, begin, end, image, copy,
                sums);
    }
}

// dw of one feature, from its sums of all chunks, which it adds in order.
template <class T>
void finish(const Layout<T>& l, T* sums, T* dw) {
  const Conv2d& p = l.p;
  for (Index chunk = 1; chunk < l.chunks; ++chunk)
    for (Index i = 0; i < l.terms; ++i) sums[i] += sums[chunk * p.O * l.terms + i];
  for (Index c = 0; c < l.channels; ++c)
    for (Index r = 0; r < p.KH; ++r)
      for (Index s = 0; s < p.KW; ++s) *dw++ = sums[l.term(c, r, s)];
}

}  // namespace

template <class T>
void conv_dw_taps(const Conv2d& p, const T* x, const T* dy, T* dw);

template <class T>
void conv_dw(const Conv2d& p, const T* x, const T* dy, T* dw) {
  if (p.C == p.groups && (p.O == p.groups || p.KH * p.KW <= kFewTaps)) return conv_dw_taps(p, x, dy, dw);
  const double work = double(p.N * p.O * p.P * p.Q) * double(p.C / p.groups * p.KH * p.KW);
  const int width = work < kConvWorthATeam ? 1 : num_threads();
  const Layout<T> l(p, width);
  const Scratch memory(sizeof(T) * size_t(l.chunks * p.O * l.terms + width * (l.image() + l.copy())));
  T* const sums = static_cast<T*>(memory.data());
  T* const images = sums + l.chunks * p.O * l.terms;
  Shares shares(width);
  team().run(
      [&](int tid, int nt) {
        shares.each(tid, nt, l.chunks * p.groups * l.parts, [&](Index i) {
          const Index part = i % l.parts, group = i / l.parts % p.groups, chunk = i / l.parts / p.groups;
          add_chunk(l, x, dy, chunk, group, part, images + tid * (l.image() + l.copy()),
                    images + tid * (l.image() + l.copy()) + l.image(),
                    sums + (chunk * p.O + group * l.features) * l.terms);
        });
        team().barrier();
        for (Index o = p.O * tid / nt; o < p.O * (tid + 1) / nt; ++o)
          finish(l, sums + o * l.terms, dw + o * l.channels * p.KH * p.KW);
      },
      width);
}

template void conv_dw<float>(const Conv2d&, const float*, const float*, float*);
template void conv_dw<double>(const Conv2d&, const double*, const double*, double*);

}  // namespace DL_ISA
}  // namespace dlcore
