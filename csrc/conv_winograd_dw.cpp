// Gradient of a 3 x 3 convolution of stride 1 with respect to its weights, by the tiles of conv_winograd.cpp:
//   dw = Gt S G, S[k][feature, channel] = the sum over tiles of Z[k][tile, feature] V[k][tile, channel] for k < 16,
//   V = Bt x B of 4 x 4 elements of the image, Z = A dy At of 2 x 2 elements of dy.
// The image and dy are transposed to channels last, so that vectors run over channels. Sums are made in a number of
// chunks of the batch that the shape alone decides, then added.
#include <cstring>

#include "conv.h"
#include "conv_axis.h"
#include "conv_chunks.h"
#include "gemm_loops.h"
#include "isa.h"
#include "shuffles.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kPoints = 16, kTiles = 96;                // tiles: of a block, about
constexpr Index kSums = Index(1) << 20, kMostChunks = 8;  // elements of S of all chunks, at most
template <class T>
constexpr int kHeight = lanes<T> >= 16 ? 8 : 4;  // features of a panel of Z; divides a vector

template <class T>
struct Layout {
  const Conv2d& p;
  Index channels, features;          // in whole vectors
  Index tile_rows, tile_cols, rows;  // of an image; rows of tiles in a block
  Index chunks, parts;               // of the batch, of the features
  Index tiles, v_point, z_point;     // of a block; between the 16 matrices of V and Z

  DL_INLINE Layout(const Conv2d& p, int nt)
      : p(p),
        channels(round_up(p.C, lanes<T>)),
        features(round_up(p.O, lanes<T>)),
        tile_rows((p.P + 1) / 2),
        tile_cols((p.Q + 1) / 2),
        rows(larger<Index>(1, kTiles / tile_cols)),
        chunks(chunks_of(p.N, sums(), kMostChunks, kSums)) {
    parts = parts_of(features / lanes<T>, chunks, nt);
    tiles = rows * tile_cols;
    v_point = tiles * channels + 64 / sizeof(T);  // not a power of two, or the matrices share cache sets
    z_point = tiles * features + 64 / sizeof(T);
  }
  DL_INLINE Index sums() const { return kPoints * features * channels; }
  DL_INLINE Index image() const { return (2 * rows + 2) * (2 * tile_cols + 2) * channels; }
  DL_INLINE Index dy() const { return 2 * rows * 2 * tile_cols * features; }
  DL_INLINE Index space() const { return image() + dy() + kPoints * (v_point + z_point); }
};

// Working memory of one thread; zero at first, as what lies beside an image is never written.
template <class T>
struct Memory {
  T *image, *dy, *v, *z;
  DL_INLINE Memory(T* memory, const Layout<T>& l)
      : image(memory), dy(image + l.image()), v(dy + l.dy()), z(v + kPoints * l.v_point) {
    std::memset(memory, 0, sizeof(T) * size_t(l.space()));
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

// V[k][tile][channel] of one row of tiles, from its four rows of the image.
template <class T>
DL_INLINE void make_v(const Layout<T>& l, const T* image, T* v) {
  const Index C = l.channels, row = (2 * l.tile_cols + 2) * C;
  for (Index c = 0; c < C; c += lanes<T>) {
    vec<T> t[4][4];  // Bt of the patch's columns: [row][column]
    const auto columns = [&](const T* at, auto first) DL_INLINE_LAMBDA {
      static_for<2>([&](auto j) DL_INLINE_LAMBDA {
        const T* x = at + (first + j) * C;
        const vec<T> a = load(x), b = load(x + row), c = load(x + 2 * row), d = load(x + 3 * row);
        t[0][first + j] = a - c, t[1][first + j] = b + c, t[2][first + j] = c - b, t[3][first + j] = b - d;
      });
    };
    columns(image + c, I<0>());
    for (Index tile = 0; tile < l.tile_cols; ++tile) {
      columns(image + 2 * tile * C + c, I<2>());
      T* to = v + tile * C + c;
      static_for<4>([&](auto i) DL_INLINE_LAMBDA {
        T* point = to + 4 * i * l.v_point;
        store(point, t[i][0] - t[i][2]), store(point + l.v_point, t[i][1] + t[i][2]);
        store(point + 2 * l.v_point, t[i][2] - t[i][1]), store(point + 3 * l.v_point, t[i][1] - t[i][3]);
        t[i][0] = t[i][2], t[i][1] = t[i][3];
      });
    }
  }
}

// Z[k][panel][tile][feature of it] of one row of tiles, from its two rows of dy. Where k is in the last row or column
// of points it has the other sign, which `finish` knows.
template <class T>
DL_INLINE void make_z(const Layout<T>& l, const T* dy, Index begin, Index end, T* z) {
  constexpr int W = lanes<T>, H = kHeight<T>;
  const Index O = l.features, row = 2 * l.tile_cols * O;
  for (Index m = begin; m < end; m += W)
    for (Index tile = 0; tile < l.tile_cols; ++tile) {
      const T* at = dy + 2 * tile * O + m;
      const vec<T> a = load(at), b = load(at + O), c = load(at + row), d = load(at + row + O);
      const vec<T> left[4] = {a, a + c, a - c, c}, right[4] = {b, b + d, b - d, d};
      static_for<4>([&](auto i) DL_INLINE_LAMBDA {
        const vec<T> points[4] = {left[i], left[i] + right[i], left[i] - right[i], right[i]};
        static_for<4>([&](auto j) DL_INLINE_LAMBDA {
          alignas(64) T features[W];
          store(features, points[j]);
          for (int panel = 0; panel < W / H; ++panel)
            __builtin_memcpy(z + (4 * i + j) * l.z_point + (m + panel * H) * l.tiles + tile * H, features + panel * H,
                             H * sizeof(T));
        });
      });
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
  const Index width = 2 * l.tile_cols + 2;
  for (Index k = 0; k < kPoints; ++k)
    std::memset(sums + (k * l.features + begin) * l.channels, 0, sizeof(T) * size_t((end - begin) * l.channels));
  for (Index block = first; block < last; block += l.rows) {
    const Index rows = smaller(l.rows, last - block);
    for (Index row = 0; row < rows; ++row) {
      const Index image = (block + row) / l.tile_rows, y = (block + row) % l.tile_rows * 2;
      const bool next = row > 0 && y > 0;  // two of its four rows of the image are there
      T* const lines = memory.image + 2 * row * width * l.channels;
      for (Index i = next ? 2 : 0; i < 4; ++i)
        fill_row(x + image * p.C * p.H * p.W, y + i - p.padding[0], p.H, p.W, p.C, p.padding[1], width, l.channels,
                 lines + i * width * l.channels);
      make_v(l, lines, memory.v + row * l.tile_cols * l.channels);
      for (Index i = 0; i < 2; ++i)
        fill_row(dy + (image * p.O + begin) * p.P * p.Q, y + i, p.P, p.Q, smaller(p.O, end) - begin, 0, 2 * l.tile_cols,
                 l.features, memory.dy + i * 2 * l.tile_cols * l.features + begin);
      make_z(l, memory.dy, begin, end, memory.z + row * l.tile_cols * kHeight<T>);
    }
    add_tiles(l, rows * l.tile_cols, begin, end, memory, sums);
  }
}

// Gt s of four numbers, the last one of the other sign.
template <class T>
DL_INLINE void weights_of(vec<T> a, vec<T> b, vec<T> c, vec<T> d, vec<T>* out, int step) {
  const vec<T> half = broadcast(T(0.5)), sum = (b + c) * half;
  out[0] = a + sum, out[step] = (b - c) * half, out[2 * step] = sum - d;
}

// dw of one feature, from S of all chunks, which it adds in order.
template <class T>
void finish(const Layout<T>& l, const T* sums, Index feature, T* dw) {
  constexpr int W = lanes<T>;
  for (Index c = 0; c < l.p.C; c += W) {
    vec<T> s[kPoints], half[12], weights[9];
    for (int k = 0; k < kPoints; ++k) {
      const T* at = sums + (k * l.features + feature) * l.channels + c;
      s[k] = load(at);
      for (Index chunk = 1; chunk < l.chunks; ++chunk) s[k] += load(at + chunk * l.sums());
    }
    for (int j = 0; j < 4; ++j) weights_of<T>(s[j], s[4 + j], s[8 + j], s[12 + j], half + j, 4);
    for (int r = 0; r < 3; ++r)
      weights_of<T>(half[4 * r], half[4 * r + 1], half[4 * r + 2], half[4 * r + 3], weights + 3 * r, 1);
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
