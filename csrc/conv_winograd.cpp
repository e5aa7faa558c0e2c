// Correlations with kernels of 3 x 3 and stride 1 by tiles of 2 x 2 results (Winograd's minimal filtering, after Lavin
// and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016): 16 multiplications where direct sums take
// 36.
//   y = At M A, M[k][feature, tile] = the sum over channels c of U[k][feature, c] V[k][c, tile] for k < 16,
//   U = G w Gt, V = Bt x B, of 4 x 4 source elements a tile.
// A block is some rows of tiles. For each a thread makes V, then for a few features at a time M and results, so that
// both stay in L2. The micro-kernels are those of the matrix product.
#include <cstring>

#include "conv_pass.h"
#include "isa.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kPoints = 16;              // of a tile, transformed
constexpr Index kBlockElements = 1 << 16;  // of V, in L2
constexpr Index kTermsAtOnce = 96;         // of a sum: longer ones round more
constexpr Index kPanelsAtOnce = 4;         // whose M is in L2

template <class T>
struct Blocks {
  Index rows_of_image, tiles_of_row, rows;  // rows: of tiles, in a block
  Index count, columns, line;               // columns: of V and M, a block's tiles; line: between their rows
  Index v_point, m_point;                   // between their 16 matrices; not a power of two, or they share cache sets
  Index lines;                              // elements of rows of source elements or results
  bool whole;                               // rows of results are whole vectors, so that nothing is put in lines

  DL_INLINE Blocks(const Correlation<T>& p, int nt)
      : rows_of_image((p.ys.results + 1) / 2), tiles_of_row((p.xs.results + 1) / 2) {
    constexpr Index W = lanes<T>, kLine = 64 / sizeof(T);
    const Index all = p.batch * rows_of_image;
    const Index tiles = larger(kBlockElements / (kPoints * p.channels), 2 * Index(Tiling<T>::NR));
    const Index most = larger<Index>(1, tiles / tiles_of_row);
    count = smaller(all, round_up((all + most - 1) / most, nt));
    rows = (all + count - 1) / count;
    count = (all + rows - 1) / rows;
    columns = round_up(rows * tiles_of_row, W);
    line = columns + W;  // whole vectors are stored
    v_point = p.channels * line + kLine;
    m_point = kPanelsAtOnce * Tiling<T>::MR * line + kLine;
    lines = round_up((rows + 1) * 2 * tiles_of_row + 3 * W, W);
    whole = p.xs.results % W == 0 && p.ys.results % 2 == 0;
  }
};

// Consecutive rows of tiles of one image.
struct TileRows {
  Index image, first, count;
};

// f(rows, tile) of the parts of a block that lie in one image; tile: the block's number of their first.
template <class T, class F>
DL_INLINE void each_image(const Correlation<T>& p, const Blocks<T>& blocks, Index block, const F& f) {
  const Index begin = block * blocks.rows;
  const Index end = smaller(begin + blocks.rows, p.batch * blocks.rows_of_image);
  for (Index row = begin; row < end;) {
    const Index image = row / blocks.rows_of_image, first = row % blocks.rows_of_image;
    const Index n = smaller(end - row, blocks.rows_of_image - first);
    f(TileRows{image, first, n}, (row - begin) * blocks.tiles_of_row);
    row += n;
  }
}

// ---- U[k][panel][channel][row]

// G g of three numbers.
template <class T>
DL_INLINE void kernel_points(vec<T> a, vec<T> b, vec<T> c, vec<T>* out, int step) {
  const vec<T> half = broadcast(T(0.5)), sum = (a + c) * half, middle = b * half;
  out[0] = a, out[step] = sum + middle, out[2 * step] = sum - middle, out[3 * step] = c;
}

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
        vec<T> g[9], half[12], points[kPoints];
        for (int i = 0; i < 9; ++i) g[i] = load(packed + (c * 9 + tap[i]) * rows + row);
        for (int s = 0; s < 3; ++s) kernel_points<T>(g[s], g[3 + s], g[6 + s], half + s, 3);
        for (int i = 0; i < 4; ++i) kernel_points<T>(half[3 * i], half[3 * i + 1], half[3 * i + 2], points + 4 * i, 1);
        T* const to = u + (c0 + c) * rows + row;
        const bool overwritten = (p.channels - c0 - c) * rows - row >= W;  // what a whole vector puts behind
        for (int k = 0; k < kPoints; ++k)
          overwritten ? store(to + k * u_point, points[k]) : store(to + k * u_point, points[k], smaller(W, rows - row));
      }
  }
}

// ---- V[k][channel][tile]

// V of the `tiles` tiles of one channel. part(x, i, j, half): that half of the elements in row i and columns 2 j and
// 2 j + 1 of a vector of patches, which tile x is the first of.
template <class T, class Part>
DL_INLINE void transform_source(const Part& part, Index tiles, T* v, Index v_point) {
  for (Index x = 0; x < tiles; x += lanes<T>) {
    vec<T> t[4][4];  // [row of the patch][its column]
    static_for<4>([&](auto i) DL_INLINE_LAMBDA {
      static_for<2>([&](auto j) DL_INLINE_LAMBDA {
        const vec<T> a = part(x, i, j, I<0>()), b = part(x, i, j, I<1>());
        t[i][2 * j] = even_of<T>(a, b), t[i][2 * j + 1] = odd_of<T>(a, b);
      });
    });
    static_for<4>([&](auto j) DL_INLINE_LAMBDA {
      const vec<T> a = t[0][j], b = t[1][j], c = t[2][j], d = t[3][j];
      t[0][j] = a - c, t[1][j] = b + c, t[2][j] = c - b, t[3][j] = b - d;
    });
    static_for<4>([&](auto i) DL_INLINE_LAMBDA {
      T* to = v + x + 4 * i * v_point;
      store(to, t[i][0] - t[i][2]), store(to + v_point, t[i][1] + t[i][2]);
      store(to + 2 * v_point, t[i][2] - t[i][1]), store(to + 3 * v_point, t[i][1] - t[i][3]);
    });
  }
}

// Rows of whole vectors of one channel, read where they are.
template <class T>
DL_INLINE void transform_whole(const Correlation<T>& p, const T* source, const TileRows& rows, T* v, Index v_point) {
  constexpr int W = lanes<T>;
  static constexpr T zeros[W + 2] = {};
  const Index vectors = p.xs.results / W;  // of a row
  const T* at[4][2];                       // [row of the patch][half], of columns 0 and 1
  int begin[2][2], end[2][2];              // [half][columns]: the lanes that are source elements
  const auto move_to = [&](Index x) DL_INLINE_LAMBDA {
    for (int half = 0; half < 2; ++half) {
      const Index chunk = 2 * x / W + half, col = chunk % vectors * W - p.xs.pad;
      const Index y = 2 * (rows.first + chunk / vectors) - p.ys.pad;
      for (int i = 0; i < 4; ++i) {
        const bool inside = y + i >= 0 && y + i < p.ys.source && chunk < rows.count * vectors;
        at[i][half] = inside ? source + (y + i) * p.xs.source + col : zeros;
      }
      for (int j = 0; j < 2; ++j) {
        begin[half][j] = int(larger<Index>(0, smaller<Index>(W, -col - 2 * j)));
        end[half][j] = int(larger<Index>(begin[half][j], smaller<Index>(W, p.xs.source - col - 2 * j)));
      }
    }
  };
  transform_source<T>(
      [&](Index x, auto i, auto j, auto half) DL_INLINE_LAMBDA {
        if (i + j + half == 0) move_to(x);
        return load(at[i][half] + 2 * j, begin[half][j], end[half][j]);
      },
      rows.count * p.xs.results / 2, v, v_point);
}

// to[i] = from[i] for i < n, and no other element.
template <class T>
DL_INLINE void copy_line(const T* from, Index n, T* to) {
  constexpr Index W = lanes<T>;
  if (n < W) return store(to, load(from, n), n);
  for (Index i = 0; i + W < n; i += W) store(to + i, load(from + i));
  store(to + n - W, load(from + n - W));
}

// Row y of the source from place -pad on, `size` elements. Those beside the source are not written: they stay zero.
template <class T>
DL_INLINE void copy_row(const Axis& ys, const Axis& xs, const T* source, Index y, Index pad, Index size, T* to) {
  const Inside x(xs.source, pad, size);
  if (x.n <= 0) return;
  if (y >= 0 && y < ys.source) copy_line(source + y * xs.source + x.first, x.n, to + x.left);
  else std::memset(to + x.left, 0, sizeof(T) * size_t(x.n));
}

// ---- results

// M of `tiles` tiles of one feature to results. put(x, i, low, high): vectors of row i of 2 x 2 results, of which tile
// x has the first.
template <class T, class Put>
DL_INLINE void transform_results(const T* m, Index m_point, Index tiles, vec<T> bias, const Put& put) {
  for (Index x = 0; x < tiles; x += lanes<T>) {
    vec<T> s[2][4];  // At of the columns
    static_for<4>([&](auto j) DL_INLINE_LAMBDA {
      const T* at = m + x + j * m_point;
      const vec<T> a = load(at), b = load(at + 4 * m_point), c = load(at + 8 * m_point), d = load(at + 12 * m_point);
      s[0][j] = a + b + c, s[1][j] = b - c - d;
    });
    static_for<2>([&](auto i) DL_INLINE_LAMBDA {
      const vec<T> even = s[i][0] + s[i][1] + s[i][2] + bias, odd = s[i][1] - s[i][2] - s[i][3] + bias;
      put(x, i, zip_low<T>(even, odd), zip_high<T>(even, odd));
    });
  }
}

// Rows of whole vectors, to where they belong. y: their first.
template <class T>
DL_INLINE void whole_results(const T* m, Index m_point, Index rows, Index n, vec<T> bias, T* y) {
  constexpr Index W = lanes<T>;
  const Index vectors = n / W, all = rows * vectors;
  const auto place = [&](Index chunk, Index i)
                         DL_INLINE_LAMBDA { return y + (2 * (chunk / vectors) + i) * n + chunk % vectors * W; };
  transform_results(m, m_point, rows * n / 2, bias, [&](Index x, Index i, vec<T> low, vec<T> high) DL_INLINE_LAMBDA {
    const Index chunk = 2 * x / W;
    store(place(chunk, i), low);
    if (chunk + 1 < all) store(place(chunk + 1, i), high);
  });
}

// `rows` rows of n results to their places, one after the other, from lines whose rows are `step` elements apart.
template <class T>
DL_INLINE void copy_results(const T* even_rows, const T* odd_rows, Index step, Index rows, Index n, T* y) {
  constexpr Index W = lanes<T>;
  for (Index row = 0; row < rows; ++row, y += n) {
    const T* from = (row % 2 == 0 ? even_rows : odd_rows) + row / 2 * step;
    const Index left = (rows - row) * n;  // whole vectors go where the next rows will be
    for (Index i = 0; i < n; i += W) i + W <= left ? store(y + i, load(from + i)) : store(y + i, load(from + i), n - i);
  }
}

// Elements that a thread works on; all but m begin as zeros, as lanes of no tile are computed as well.
template <class T>
struct Memory {
  T *lines, *results, *v, *m;  // lines: four of them, results: two
  Index size_of_lines;
  static DL_INLINE Index size(const Blocks<T>& blocks) {
    return 6 * blocks.lines + kPoints * (blocks.v_point + blocks.m_point);
  }
  DL_INLINE Memory(T* memory, const Blocks<T>& blocks)
      : lines(memory),
        results(lines + 4 * blocks.lines),
        v(results + 2 * blocks.lines),
        m(v + kPoints * blocks.v_point),
        size_of_lines(blocks.lines) {
    std::memset(lines, 0, sizeof(T) * size_t(m - lines));
  }
  DL_INLINE T* line(Index odd, Index right) const { return lines + (2 * right + odd) * size_of_lines; }
};

template <class T>
DL_INLINE void make_v(const Correlation<T>& p, const Blocks<T>& blocks, Index block, const Memory<T>& memory) {
  const Index row = 2 * blocks.tiles_of_row;
  each_image(p, blocks, block, [&](const TileRows& rows, Index tile) {
    for (Index c = 0; c < p.channels; ++c) {
      const T* source = p.source + (rows.image * p.channels + c) * p.source_image();
      T* const v = memory.v + c * blocks.line + tile;
      if (blocks.whole) {
        transform_whole(p, source, rows, v, blocks.v_point);
        continue;
      }
      for (Index i = 0; i < 2 * rows.count + 2; ++i)
        for (Index right = 0; right < 2; ++right)
          copy_row(p.ys, p.xs, source, 2 * rows.first + i - p.ys.pad, p.xs.pad - 2 * right, row,
                   memory.line(i % 2, right) + i / 2 * row);
      transform_source<T>(
          [&](Index x, Index i, Index j, Index half)
              DL_INLINE_LAMBDA { return load(memory.line(i % 2, j) + i / 2 * row + 2 * x + half * lanes<T>); },
          rows.count * blocks.tiles_of_row, v, blocks.v_point);
    }
  });
}

// M of the panels [begin, end).
template <class T>
void multiply(const Panels& panels, Index begin, Index end, Index channels, const T* u, Index u_point,
              const Blocks<T>& blocks, const Memory<T>& memory) {
  constexpr Index W = lanes<T>, NR = Tiling<T>::NR;
  const Index step = k_step(channels, kTermsAtOnce);
  for (Index k = 0; k < kPoints; ++k)
    for (Index n = 0; n < blocks.columns; n += NR)
      for (Index c = 0; c < channels; c += step) {
        const Index vectors = smaller(NR, blocks.columns - n) / W, some = smaller(step, channels - c);
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
DL_INLINE void make_results(const Correlation<T>& p, const Blocks<T>& blocks, Index block, Index first, Index features,
                            const Memory<T>& memory) {
  T *const even_rows = memory.results, *const odd_rows = even_rows + blocks.lines;
  each_image(p, blocks, block, [&](const TileRows& rows, Index tile) {
    const Index y = 2 * rows.first, count = smaller(p.ys.results - y, 2 * rows.count);
    for (Index m = 0; m < features; ++m) {
      const vec<T> bias = broadcast(p.bias == nullptr ? T(0) : p.bias[first + m]);
      const T* const from = memory.m + m * blocks.line + tile;
      T* const to = p.results + (rows.image * p.features + first + m) * p.result_image() + y * p.xs.results;
      if (blocks.whole) {
        whole_results(from, blocks.m_point, rows.count, p.xs.results, bias, to);
        continue;
      }
      transform_results(from, blocks.m_point, rows.count * blocks.tiles_of_row, bias,
                        [&](Index x, Index i, vec<T> low, vec<T> high) DL_INLINE_LAMBDA {
                          T* const line = (i == 0 ? even_rows : odd_rows) + 2 * x;
                          store(line, low), store(line + lanes<T>, high);
                        });
      copy_results(even_rows, odd_rows, 2 * blocks.tiles_of_row, count, p.xs.results, to);
    }
  });
}

// Of some features in some rows.
template <class T>
void run_tail(const Correlation<T>& p, const TileRows& rows, const Range& features) {
  const Index first = 2 * rows.first, last = smaller(p.ys.results, first + 2 * rows.count);
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
  make_v(p, blocks, block, memory);
  for (Index i = some.begin; i < some.end; i += kPanelsAtOnce) {
    const Index end = smaller(some.end, i + kPanelsAtOnce), first = panels.begin(i);
    multiply(panels, i, end, p.channels, u, u_point, blocks, memory);
    make_results(p, blocks, block, first, panels.begin(end) - first, memory);
  }
  const Range features{panels.begin(some.begin), panels.begin(some.end)};
  if (p.tail.run != nullptr)
    each_image(p, blocks, block, [&](const TileRows& rows, Index) { run_tail(p, rows, features); });
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
