// Correlations with kernels of 3 x 3 and stride 1 by tiles of 4 x 4 results (winograd.h): 36 multiplications where
// direct sums take 144.
//   y = At M A, M[k][feature, tile] = the sum over channels c of U[k][feature, c] V[k][c, tile] for k < 36,
//   U = G w Gt, V = Bt x B, of 6 x 6 source elements a tile.
// A block is some rows of tiles. For each a thread makes V, then for a few features at a time M and results, so that
// both stay in L2. The micro-kernels are those of the matrix product. Vectors run over tiles, from one row of them to
// the next and from one image to the next.
#include <cstring>

#include "conv_pass.h"
#include "isa.h"
#include "winograd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kBlockElements = 1 << 16;  // of V, in L2
constexpr Index kTermsAtOnce = 32;         // of a sum: longer ones round more
constexpr Index kPanelsAtOnce = 4;         // whose M is in L2

template <class T>
struct Blocks {
  Index rows_of_image, tiles_of_row, rows;  // rows: of tiles, in a block
  Index count, columns, line;               // columns: of V and M, a block's tiles; line: between their rows
  Index v_point, m_point;                   // between their matrices; not a power of two, or they share cache sets
  Index piece;                              // results of a row in one piece: whole tiles, a vector at most
  Index pitch, planes;                      // of a padded row of the source; elements of a block's

  DL_INLINE Blocks(const Correlation<T>& p, int nt)
      : rows_of_image((p.ys.results + kTile - 1) / kTile), tiles_of_row((p.xs.results + kTile - 1) / kTile) {
    constexpr Index W = lanes<T>, NR = Tiling<T>::NR, kLine = 64 / sizeof(T);
    const Index all = p.batch * rows_of_image;
    const Index tiles = larger<Index>(NR, kBlockElements / (kPoints * p.channels) / NR * NR);
    const Index most = larger<Index>(1, tiles / tiles_of_row);
    count = smaller(all, round_up((all + most - 1) / most, nt));
    rows = (all + count - 1) / count;
    count = (all + rows - 1) / rows;
    columns = round_up(rows * tiles_of_row, W);
    line = columns + W;  // whole vectors are stored
    v_point = p.channels * line + kLine;
    m_point = kPanelsAtOnce * Tiling<T>::MR * line + kLine;
    piece = W;
    while (kTile * tiles_of_row % piece != 0) piece /= 2;
    pitch = kTile * tiles_of_row + kPatch - kTile;
    planes = kPatch * rows * pitch + 3 * W;  // pieces are read as whole vectors, some of which begin before them
  }
};

// Consecutive rows of tiles of one image.
struct TileRows {
  Index image, first, count;
};

// f(rows) of the parts of a block that lie in one image.
template <class T, class F>
DL_INLINE void each_image(const Correlation<T>& p, const Blocks<T>& blocks, Index block, const F& f) {
  const Index begin = block * blocks.rows;
  const Index end = smaller(begin + blocks.rows, p.batch * blocks.rows_of_image);
  for (Index row = begin; row < end;) {
    const Index image = row / blocks.rows_of_image, first = row % blocks.rows_of_image;
    const Index n = smaller(end - row, blocks.rows_of_image - first);
    f(TileRows{image, first, n});
    row += n;
  }
}

// Neighbouring tiles of a row: where the first one's source elements are in the block's planes and its results in those
// of feature 0, and how many results there are.
struct Piece {
  Index source, result;
  int rows, cols;
};

// Elements that a thread works on. Rows of the source have zeros beside them, which stay there.
template <class T>
struct Memory {
  T *planes, *v, *m;
  Piece* pieces;  // of a block, then zeros to a whole number of vectors of tiles

  static DL_INLINE Index size(const Blocks<T>& blocks) {
    return round_up(blocks.planes, lanes<T>) + kPoints * (blocks.v_point + blocks.m_point) +
           pieces_of(blocks) * Index(sizeof(Piece) / sizeof(T));
  }
  DL_INLINE Memory(T* memory, const Blocks<T>& blocks)
      : planes(memory + lanes<T>),
        v(memory + round_up(blocks.planes, lanes<T>)),
        m(v + kPoints * blocks.v_point),
        pieces(reinterpret_cast<Piece*>(m + kPoints * blocks.m_point)) {
    std::memset(memory, 0, sizeof(T) * size_t(v - memory));
  }
  static DL_INLINE Index pieces_of(const Blocks<T>& blocks) { return kTile * blocks.columns / blocks.piece; }
};

// The tiles of a block; writes its pieces.
template <class T>
DL_INLINE Index find_pieces(const Correlation<T>& p, const Blocks<T>& blocks, Index block, const Memory<T>& memory) {
  Piece* next = memory.pieces;
  Index first_row = 0, tiles = 0;  // of the image's part of the planes
  each_image(p, blocks, block, [&](const TileRows& rows) {
    tiles += rows.count * blocks.tiles_of_row;
    for (Index r = 0; r < rows.count; ++r, first_row += kTile)
      for (Index y = kTile * (rows.first + r), x = 0; x < kTile * blocks.tiles_of_row; x += blocks.piece)
        *next++ = {first_row * blocks.pitch + x, rows.image * p.features * p.result_image() + y * p.xs.results + x,
                   int(smaller<Index>(kTile, p.ys.results - y)), int(smaller(blocks.piece, p.xs.results - x))};
    first_row += kPatch - kTile;
  });
  while (next < memory.pieces + Memory<T>::pieces_of(blocks)) *next++ = {};
  return tiles;
}

// f(I<results of a piece>())
template <class T, int Size = lanes<T>, class F>
DL_INLINE void with_piece(const Blocks<T>& blocks, const F& f) {
  if constexpr (Size > kTile)
    if (blocks.piece != Size) return with_piece<T, Size / 2>(blocks, f);
  f(I<Size>());
}

// ---- U[k][panel][channel][row]

// A panel of features, as the micro-kernels read it.
template <class T>
void transform_weights(const Correlation<T>& p, Index first, int rows, T* u, Index u_point) {
  constexpr Index W = lanes<T>, kChannels = 16;
  alignas(64) T packed[kChannels * 9 * Tiling<T>::MR + W];
  Index tap[9];  // by place in the patch
  for (Index r = 0; r < 3; ++r)
    for (Index s = 0; s < 3; ++s) tap[p.ys.tap(0, r).shift * 3 + p.xs.tap(0, s).shift] = r * 3 + s;
  for (Index c0 = 0; c0 < p.channels; c0 += kChannels) {
    const Index channels = smaller(kChannels, p.channels - c0);
    pack_terms(p, p.w + first * p.w_feature + c0 * p.w_channel, channels, rows, packed);
    for (Index c = 0; c < channels; ++c)
      for (Index row = 0; row < rows; row += W) {
        vec<T> g[9], half[3 * kPatch], points[kPoints];
        for (int i = 0; i < 9; ++i) g[i] = load(packed + (c * 9 + tap[i]) * rows + row);
        for (int s = 0; s < 3; ++s) Winograd<T>::weights(g + s, 3, half + s, 3);
        for (int i = 0; i < kPatch; ++i) Winograd<T>::weights(half + 3 * i, 1, points + kPatch * i, 1);
        T* const to = u + (c0 + c) * rows + row;
        const bool overwritten = (p.channels - c0 - c) * rows - row >= W;  // what a whole vector puts behind
        for (int k = 0; k < kPoints; ++k)
          overwritten ? store(to + k * u_point, points[k]) : store(to + k * u_point, points[k], smaller(W, rows - row));
      }
  }
}

// ---- V[k][channel][tile]

// A vector of pieces of Size elements.
template <int Size, class T>
DL_INLINE vec<T> gather(const T* from, const Piece* pieces) {
  vec<T> x = load(from + pieces[0].source);
  static_for<lanes<T> / Size - 1>([&](auto i) DL_INLINE_LAMBDA {
    constexpr int begin = (decltype(i)() + 1) * Size;
    x = merge(x, from + pieces[i + 1].source - begin, lane_mask<T>(begin, begin + Size));
  });
  return x;
}

// V of `tiles` tiles of one channel. Rows of patches, then columns: one after the other, for few registers.
template <int Size, class T>
void transform_source(I<Size>, const T* planes, Index pitch, const Piece* pieces, Index tiles, T* v, Index v_point) {
  constexpr int W = lanes<T>, kPieces = W / Size;
  for (Index x = 0; x < tiles; x += W, pieces += kTile * kPieces) {
    vec<T> rows[kPoints];
#pragma GCC unroll 1
    for (int i = 0; i < kPatch; ++i) {
      vec<T> near[kTile], far[kTile], d[kPatch];  // columns 0 to 3 and 4 to 7 of the patches
      static_for<kTile>([&](auto k) DL_INLINE_LAMBDA {
        near[k] = gather<Size>(planes + i * pitch, pieces + k * kPieces);
        far[k] = gather<Size>(planes + i * pitch + kTile, pieces + k * kPieces);
      });
      const vec<T> even[2] = {even_of<T>(near[0], near[1]), even_of<T>(near[2], near[3])};
      const vec<T> odd[2] = {odd_of<T>(near[0], near[1]), odd_of<T>(near[2], near[3])};
      d[0] = even_of<T>(even[0], even[1]), d[1] = even_of<T>(odd[0], odd[1]);
      d[2] = odd_of<T>(even[0], even[1]), d[3] = odd_of<T>(odd[0], odd[1]);
      d[4] = even_of<T>(even_of<T>(far[0], far[1]), even_of<T>(far[2], far[3]));
      d[5] = even_of<T>(odd_of<T>(far[0], far[1]), odd_of<T>(far[2], far[3]));
      Winograd<T>::source(d, 1, rows + kPatch * i, 1);
    }
#pragma GCC unroll 1
    for (int j = 0; j < kPatch; ++j) {
      vec<T> points[kPatch];
      Winograd<T>::source(rows + j, kPatch, points, 1);
      static_for<kPatch>([&](auto i) DL_INLINE_LAMBDA { store(v + x + (kPatch * i + j) * v_point, points[i]); });
    }
  }
}

// to[i] = from[i] for i < n, and no other element.
template <class T>
DL_INLINE void copy_line(const T* from, Index n, T* to) {
  constexpr Index W = lanes<T>;
  if (n < W) return store(to, load(from, n), n);
  for (Index i = 0; i + W < n; i += W) store(to + i, load(from + i));
  store(to + n - W, load(from + n - W));
}

// `rows` rows of the source from row y and column -pad on; what is beside it stays as it is, zero. `fill_plane` would
// write that as well, a vector more for each row of whole vectors: 5 to 7 % of a convolution.
template <class T>
DL_INLINE void copy_rows(const Axis& ys, const Axis& xs, const T* source, Index y, Index rows, Index pitch, T* to) {
  const Inside x(xs.source, xs.pad, pitch);
  if (x.n <= 0) return;
  to += x.left, source += x.first;
  for (const Index end = y + rows; y < end; ++y, to += pitch)
    if (y >= 0 && y < ys.source) copy_line(source + y * xs.source, x.n, to);
    else std::memset(to, 0, sizeof(T) * size_t(x.n));
}

// ---- results

// Row i of the results of pieces.
template <int Size, class T>
DL_INLINE void scatter(vec<T> x, const Piece* pieces, int i, T* to) {
  static_for<lanes<T> / Size>([&](auto k) DL_INLINE_LAMBDA {
    const Piece& piece = pieces[k];
    if (i >= piece.rows) return;
    T* const at = to + piece.result;
    if constexpr (Size == lanes<T>) piece.cols == Size ? store(at, x) : store(at, x, piece.cols);
    else {
      T part[lanes<T>];
      store(part, x);
      if (piece.cols == Size) __builtin_memcpy(at, part + k * Size, Size * sizeof(T));
      else
        for (int j = 0; j < piece.cols; ++j) at[j] = part[k * Size + j];
    }
  });
}

// M of `tiles` tiles of one feature to results.
template <int Size, class T>
void transform_results(I<Size>, const T* m, Index m_point, const Piece* pieces, Index tiles, vec<T> bias, Index n,
                       T* results) {
  constexpr int W = lanes<T>, kPieces = W / Size;
  for (Index x = 0; x < tiles; x += W, pieces += kTile * kPieces) {
    vec<T> columns[kTile * kPatch];
#pragma GCC unroll 1
    for (int j = 0; j < kPatch; ++j) {
      vec<T> points[kPatch];
      static_for<kPatch>([&](auto i) DL_INLINE_LAMBDA { points[i] = load(m + x + (kPatch * i + j) * m_point); });
      Winograd<T>::results(points, 1, columns + j, kPatch);
    }
#pragma GCC unroll 1
    for (int i = 0; i < kTile; ++i) {
      vec<T> y[kTile];
      Winograd<T>::results(columns + i * kPatch, 1, y, 1);
      static_for<kTile>([&](auto j) DL_INLINE_LAMBDA { y[j] += bias; });
      const vec<T> even[2] = {zip_low<T>(y[0], y[2]), zip_high<T>(y[0], y[2])};
      const vec<T> odd[2] = {zip_low<T>(y[1], y[3]), zip_high<T>(y[1], y[3])};
      static_for<2>([&](auto k) DL_INLINE_LAMBDA {
        scatter<Size>(zip_low<T>(even[k], odd[k]), pieces + 2 * k * kPieces, i, results + i * n);
        scatter<Size>(zip_high<T>(even[k], odd[k]), pieces + (2 * k + 1) * kPieces, i, results + i * n);
      });
    }
  }
}

// ---- blocks

template <class T>
DL_INLINE void make_v(const Correlation<T>& p, const Blocks<T>& blocks, Index block, Index tiles,
                      const Memory<T>& memory) {
  for (Index c = 0; c < p.channels; ++c) {
    T* to = memory.planes;
    each_image(p, blocks, block, [&](const TileRows& rows) {
      const T* source = p.source + (rows.image * p.channels + c) * p.source_image();
      const Index count = kTile * (rows.count - 1) + kPatch;
      copy_rows(p.ys, p.xs, source, kTile * rows.first - p.ys.pad, count, blocks.pitch, to);
      to += count * blocks.pitch;
    });
    with_piece(blocks, [&](auto size) DL_INLINE_LAMBDA {
      transform_source(size, memory.planes, blocks.pitch, memory.pieces, tiles, memory.v + c * blocks.line,
                       blocks.v_point);
    });
  }
}

// M of the panels [begin, end).
template <class T>
void multiply(const Panels& panels, Index begin, Index end, Index channels, Index tiles, const T* u, Index u_point,
              const Blocks<T>& blocks, const Memory<T>& memory) {
  constexpr Index W = lanes<T>, NR = Tiling<T>::NR;
  const Index step = k_step(channels, kTermsAtOnce), columns = round_up(tiles, W);
  for (Index k = 0; k < kPoints; ++k)
    for (Index n = 0; n < columns; n += NR)
      for (Index c = 0; c < channels; c += step) {
        const Index vectors = smaller(NR, columns - n) / W, some = smaller(step, channels - c);
        const T* v = memory.v + k * blocks.v_point + c * blocks.line + n;
        T* m = memory.m + k * blocks.m_point + n;
        for (Index i = begin; i < end; ++i) {
          const int rows = panels.size(i);
          const T* a = u + k * u_point + panels.begin(i) * channels + c * rows;
          micro_kernels<T>().run[vectors][rows]({some,
                                                 {a, 1, rows, rows},
                                                 {v, blocks.line, int(vectors * W), a + rows * channels, rows},
                                                 m,
                                                 blocks.line,
                                                 c > 0,
                                                 nullptr});
          m += rows * blocks.line;
        }
      }
}

template <class T>
DL_INLINE void make_results(const Correlation<T>& p, const Blocks<T>& blocks, Index first, Index features, Index tiles,
                            const Memory<T>& memory) {
  for (Index m = 0; m < features; ++m) {
    const vec<T> bias = broadcast(p.bias == nullptr ? T(0) : p.bias[first + m]);
    with_piece(blocks, [&](auto size) DL_INLINE_LAMBDA {
      transform_results(size, memory.m + m * blocks.line, blocks.m_point, memory.pieces, tiles, bias, p.xs.results,
                        p.results + (first + m) * p.result_image());
    });
  }
}

// Of some features in some rows.
template <class T>
void run_tail(const Correlation<T>& p, const TileRows& rows, const Range& features) {
  const Index first = kTile * rows.first, last = smaller(p.ys.results, first + kTile * rows.count);
  const bool whole = last - first == p.ys.results;
  const Index all = features.end - features.begin, at_once = whole ? all : 1;
  for (Index m = features.begin; m < features.end; m += at_once)
    p.tail.run(p.tail.self, (rows.image * p.features + m) * p.result_image() + first * p.xs.results,
               at_once * (last - first) * p.xs.results);
}

// The features of some panels.
template <class T>
void run_block(const Correlation<T>& p, const Blocks<T>& blocks, Index block, const Panels& panels, const Range& some,
               const T* u, Index u_point, const Memory<T>& memory) {
  const Index tiles = find_pieces(p, blocks, block, memory);
  make_v(p, blocks, block, tiles, memory);
  for (Index i = some.begin; i < some.end; i += kPanelsAtOnce) {
    const Index end = smaller(some.end, i + kPanelsAtOnce), first = panels.begin(i);
    multiply(panels, i, end, p.channels, tiles, u, u_point, blocks, memory);
    make_results(p, blocks, first, panels.begin(end) - first, tiles, memory);
  }
  const Range features{panels.begin(some.begin), panels.begin(some.end)};
  if (p.tail.run != nullptr) each_image(p, blocks, block, [&](const TileRows& rows) { run_tail(p, rows, features); });
}

// Threads divide the blocks, or the features where there are fewer blocks than threads: then each makes V for itself,
// but only the weights that it multiplies.
template <class T>
void winograd(const Correlation<T>& p) {
  if (p.batch * p.features * p.result_image() == 0) return;
  const double work = double(p.batch * p.features * p.result_image()) * double(p.channels * p.taps());
  const int width = work < kConvWorthATeam ? 1 : num_threads();
  const bool by_features = Blocks<T>(p, 1).count < width;
  const Blocks<T> blocks(p, by_features ? 1 : width);
  const Panels panels(p.features, Tiling<T>::MR);
  const Index u_point = p.features * p.channels + 64 / Index(sizeof(T)), size = Memory<T>::size(blocks);
  const Scratch weights(sizeof(T) * size_t(kPoints * u_point)), memory(sizeof(T) * size_t(size * width));
  T* const u = static_cast<T*>(weights.data());
  Shares shares(width);
  team().run(
      [&](int tid, int nt) {
        const Range mine = part_of(panels.count, 1, tid, nt);
        for (Index i = mine.begin; i < mine.end; ++i)
          transform_weights(p, panels.begin(i), panels.size(i), u + panels.begin(i) * p.channels, u_point);
        if (!by_features) team().barrier();
        const Memory<T> own(static_cast<T*>(memory.data()) + size * tid, blocks);
        if (by_features)
          for (Index i = 0; i < blocks.count; ++i) run_block(p, blocks, i, panels, mine, u, u_point, own);
        else
          shares.each(tid, nt, blocks.count,
                      [&](Index i) { run_block(p, blocks, i, panels, {0, panels.count}, u, u_point, own); });
      },
      width);
}

}  // namespace

void conv_winograd(const Conv2d& c, const float* x, const float* w, const float* b, float* y) {
  winograd(forward_correlation(c, x, w, b, y));
}

void conv_dx_winograd(const Conv2d& c, const float* dy, const float* w, float* dx) {
  winograd(backward_correlation(c, dy, w, dx));
}

}  // namespace DL_ISA
}  // namespace dlcore
