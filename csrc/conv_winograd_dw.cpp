// Gradient of a 3 x 3 convolution of stride 1 with respect to its weights, by the tiles of conv_winograd.cpp:
//   dw = Gt S G, S[k][feature, channel] = the sum over tiles of Z[k][tile, feature] V[k][tile, channel] for k < 36,
//   V = Bt x B of 6 x 6 elements of the image, Z = A dy At of 4 x 4 elements of dy.
// The image and dy are transposed to channels last, so that vectors run over channels. Sums are made in a number of
// chunks of the batch that the shape alone decides, then added.
#include <cstring>

#include "conv.h"
#include "conv_axis.h"
#include "conv_chunks.h"
#include "gemm_loops.h"
#include "isa.h"
#include "shuffles.h"
#include "winograd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kFewestTiles = 32, kBlockElements = Index(1) << 17;  // of a block, V and Z of which are in L2
constexpr Index kSums = Index(1) << 20, kMostChunks = 8;             // elements of S of all chunks, at most
constexpr Index kTilesOfChunk = 64;                                  // at least, for S to be worth its memory
template <class T>
constexpr int kHeight = lanes<T> >= 16 ? 8 : 4;  // features of a panel of Z; divides a vector

template <class T>
struct Layout {
  const Conv2d& p;
  Index channels, features;          // in whole vectors
  Index tile_rows, tile_cols, rows;  // of an image; rows of tiles in a block
  Index chunks, parts;               // of the batch, of the features
  Index tiles, v_point, z_point;     // of a block; between the matrices of V and Z

  DL_INLINE Layout(const Conv2d& p, int nt)
      : p(p),
        channels(round_up(p.C, lanes<T>)),
        features(round_up(p.O, lanes<T>)),
        tile_rows((p.P + kTile - 1) / kTile),
        tile_cols((p.Q + kTile - 1) / kTile),
        rows(larger<Index>(1, larger(kFewestTiles, kBlockElements / (kPoints * (channels + features))) / tile_cols)),
        chunks(chunks_of(p.N, sums(), kMostChunks, smaller(kSums, sums() * tiles_of_batch() / kTilesOfChunk))) {
    parts = parts_of(features / lanes<T>, chunks, nt);
    tiles = rows * tile_cols;
    v_point = tiles * channels + 64 / sizeof(T);  // not a power of two, or the matrices share cache sets
    z_point = tiles * features + 64 / sizeof(T);
  }
  DL_INLINE Index sums() const { return kPoints * features * channels; }
  DL_INLINE Index tiles_of_batch() const { return p.N * tile_rows * tile_cols; }
  DL_INLINE Index width() const { return kTile * tile_cols + kPatch - kTile; }  // of a row of the image
  DL_INLINE Index image() const { return (kTile * rows + kPatch - kTile) * width() * channels; }
  DL_INLINE Index dy() const { return kTile * kTile * tile_cols * features; }
  DL_INLINE Index space() const { return image() + dy() + kPoints * (v_point + z_point); }
};

// Working memory of one thread; image and dy are zero at first, as what lies beside an image is never written.
template <class T>
struct Memory {
  T *image, *dy, *v, *z;
  DL_INLINE Memory(T* memory, const Layout<T>& l)
      : image(memory), dy(image + l.image()), v(dy + l.dy()), z(v + kPoints * l.v_point) {
    std::memset(memory, 0, sizeof(T) * size_t(v - memory));
  }
};

// Row y of `lines` lines of an image, channels last, from column -pad on: `size` pixels of `pixel` elements.
template <class T>
DL_INLINE void fill_row(const T* image, Index y, Index height, Index width, Index lines, Index pad, Index size,
                        Index pixel, T* out) {
  const Inside x(width, pad, size);
  if (x.n <= 0) return;
  T* const to = out + x.left * pixel;
  if (y >= 0 && y < height) transpose_row(image + y * width + x.first, height * width, lines, x.n, pixel, to);
  else
    for (Index i = 0; i < x.n; ++i) std::memset(to + i * pixel, 0, sizeof(T) * size_t(lines));
}

// V[k][tile][channel] of one row of tiles, from its six rows of the image.
template <class T>
DL_INLINE void make_v(const Layout<T>& l, const T* image, T* v) {
  constexpr Index kRing = 2 * kTile;  // columns that are kept, a power of two: Bt of them
  const Index C = l.channels, row = l.width() * C;
  for (Index c = 0; c < C; c += lanes<T>) {
    vec<T> ring[kRing * kPatch];
    const auto columns = [&](Index begin, Index end) DL_INLINE_LAMBDA {
      for (Index x = begin; x < end; ++x) {
        vec<T> d[kPatch];
        static_for<kPatch>([&](auto i) DL_INLINE_LAMBDA { d[i] = load(image + i * row + x * C + c); });
        Winograd<T>::source(d, 1, ring + x % kRing, kRing);
      }
    };
    columns(0, kPatch - kTile);
    for (Index tile = 0; tile < l.tile_cols; ++tile) {
      columns(kTile * tile + kPatch - kTile, kTile * tile + kPatch);
      T* const to = v + tile * C + c;
#pragma GCC unroll 1
      for (Index i = 0; i < kPatch; ++i) {
        vec<T> d[kPatch], points[kPatch];
        static_for<kPatch>([&](auto j) DL_INLINE_LAMBDA { d[j] = ring[i * kRing + (kTile * tile + j) % kRing]; });
        Winograd<T>::source(d, 1, points, 1);
        static_for<kPatch>([&](auto j) DL_INLINE_LAMBDA { store(to + (kPatch * i + j) * l.v_point, points[j]); });
      }
    }
  }
}

// Z[k][panel][tile][feature of it] of one row of tiles, from its four rows of dy.
template <class T>
DL_INLINE void make_z(const Layout<T>& l, const T* dy, Index begin, Index end, T* z) {
  constexpr int W = lanes<T>, H = kHeight<T>;
  const Index O = l.features, row = kTile * l.tile_cols * O;
  for (Index m = begin; m < end; m += W)
    for (Index tile = 0; tile < l.tile_cols; ++tile) {
      vec<T> columns[kPatch * kTile];
      static_for<kTile>([&](auto j) DL_INLINE_LAMBDA {
        vec<T> d[kTile];
        static_for<kTile>([&](auto i) DL_INLINE_LAMBDA { d[i] = load(dy + i * row + (kTile * tile + j) * O + m); });
        Winograd<T>::results_gradient(d, 1, columns + j, kTile);
      });
      T* const to = z + m * l.tiles + tile * H;
#pragma GCC unroll 1
      for (Index i = 0; i < kPatch; ++i) {
        vec<T> points[kPatch];
        Winograd<T>::results_gradient(columns + i * kTile, 1, points, 1);
        static_for<kPatch>([&](auto j) DL_INLINE_LAMBDA {
          alignas(64) T features[W];
          store(features, points[j]);
          for (int panel = 0; panel < W / H; ++panel)
            __builtin_memcpy(to + (kPatch * i + j) * l.z_point + panel * H * l.tiles, features + panel * H,
                             H * sizeof(T));
        });
      }
    }
}

// Adds the sums over `tiles` tiles of the features [begin, end) to S.
template <class T>
void add_tiles(const Layout<T>& l, Index tiles, Index begin, Index end, const Memory<T>& memory, T* sums) {
  constexpr int W = lanes<T>, H = kHeight<T>, NR = Tiling<T>::NR;
  for (Index k = 0; k < kPoints; ++k)
    for (Index c = 0; c < l.channels; c += NR)
      for (Index m = begin; m < end; m += H) {
        const T *z = memory.z + k * l.z_point + m * l.tiles, *v = memory.v + k * l.v_point + c;
        T* to = sums + (k * l.features + m) * l.channels + c;
        const Index vectors = smaller<Index>(NR, l.channels - c) / W;
        micro_kernels<T>().run[vectors][H]({tiles,
                                            {z, 1, H, H},
                                            {v, l.channels, int(vectors * W), z + H * l.tiles, H},
                                            to,
                                            l.channels,
                                            true,
                                            nullptr});
      }
}

// S of one chunk of the batch, of one part of the features.
template <class T>
void add_chunk(const Layout<T>& l, const T* x, const T* dy, Index chunk, Index part, const Memory<T>& memory, T* sums) {
  constexpr int W = lanes<T>;
  const Conv2d& p = l.p;
  const Index vectors = l.features / W, begin = vectors * part / l.parts * W, end = vectors * (part + 1) / l.parts * W;
  const Index first = p.N * chunk / l.chunks * l.tile_rows, last = p.N * (chunk + 1) / l.chunks * l.tile_rows;
  const Index width = l.width();
  for (Index k = 0; k < kPoints; ++k)
    std::memset(sums + (k * l.features + begin) * l.channels, 0, sizeof(T) * size_t((end - begin) * l.channels));
  for (Index block = first; block < last; block += l.rows) {
    const Index rows = smaller(l.rows, last - block);
    for (Index row = 0; row < rows; ++row) {
      const Index image = (block + row) / l.tile_rows, y = (block + row) % l.tile_rows * kTile;
      const bool next = row > 0 && y > 0;  // the first rows of the image are there
      T* const lines = memory.image + kTile * row * width * l.channels;
      for (Index i = next ? kPatch - kTile : 0; i < kPatch; ++i)
        fill_row(x + image * p.C * p.H * p.W, y + i - p.padding[0], p.H, p.W, p.C, p.padding[1], width, l.channels,
                 lines + i * width * l.channels);
      make_v(l, lines, memory.v + row * l.tile_cols * l.channels);
      for (Index i = 0; i < kTile; ++i)
        fill_row(dy + (image * p.O + begin) * p.P * p.Q, y + i, p.P, p.Q, smaller(p.O, end) - begin, 0,
                 kTile * l.tile_cols, l.features, memory.dy + i * kTile * l.tile_cols * l.features + begin);
      make_z(l, memory.dy, begin, end, memory.z + row * l.tile_cols * kHeight<T>);
    }
    add_tiles(l, rows * l.tile_cols, begin, end, memory, sums);
  }
}

// dw of one feature, from S of all chunks, which it adds in order.
template <class T>
void finish(const Layout<T>& l, const T* sums, Index feature, T* dw) {
  constexpr int W = lanes<T>;
  for (Index c = 0; c < l.p.C; c += W) {
    vec<T> s[kPoints], half[3 * kPatch], weights[9];
    for (int k = 0; k < kPoints; ++k) {
      const T* at = sums + (k * l.features + feature) * l.channels + c;
      s[k] = load(at);
      for (Index chunk = 1; chunk < l.chunks; ++chunk) s[k] += load(at + chunk * l.sums());
    }
    for (int j = 0; j < kPatch; ++j) Winograd<T>::weights_gradient(s + j, kPatch, half + j, kPatch);
    for (int r = 0; r < 3; ++r) Winograd<T>::weights_gradient(half + r * kPatch, 1, weights + 3 * r, 1);
    for (Index i = 0; i < smaller<Index>(W, l.p.C - c); ++i)
      for (int t = 0; t < 9; ++t) dw[(c + i) * 9 + t] = weights[t][i];
  }
}

template <class T>
void winograd_dw(const Conv2d& p, const T* x, const T* dy, T* dw) {
  const double work = double(p.N * p.O * p.P * p.Q) * double(p.C * 9);
  const int width = work < kConvWorthATeam ? 1 : num_threads();
  const Layout<T> l(p, width);
  const Scratch memory(sizeof(T) * size_t(l.chunks * l.sums() + width * l.space()));
  T* const sums = static_cast<T*>(memory.data());
  Shares shares(width);
  team().run(
      [&](int tid, int nt) {
        const Memory<T> own(sums + l.chunks * l.sums() + tid * l.space(), l);
        shares.each(tid, nt, l.chunks * l.parts, [&](Index i) {
          add_chunk(l, x, dy, i / l.parts, i % l.parts, own, sums + i / l.parts * l.sums());
        });
        team().barrier();
        for (Index o = p.O * tid / nt; o < p.O * (tid + 1) / nt; ++o) finish(l, sums, o, dw + o * p.C * 9);
      },
      width);
}

}  // namespace

void conv_dw_winograd(const Conv2d& c, const float* x, const float* dy, float* dw) { winograd_dw(c, x, dy, dw); }

}  // namespace DL_ISA
}  // namespace dlcore
