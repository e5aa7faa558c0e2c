#include "pool.h"

#include <type_traits>

#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "shuffles.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 1 << 14;  // elements that are worth a thread

template <class F>
void each_plane(const Pool2d& p, const F& f) {
  parallel_for(0, p.planes, kGrain / (p.H * p.W + p.P * p.Q) + 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) f(i);
  });
}

// The taps of window `o` of an axis that are inside an image of n elements: the first, and the end of those after it.
struct Inside {
  Index first, end;
  DL_INLINE Inside(const Pool2d& p, int axis, Index o, Index n) {
    const Index start = o * p.stride[axis] - p.padding[axis], d = p.dilation[axis];
    first = start < 0 ? (-start + d - 1) / d : 0;
    end = n <= start ? 0 : smaller(p.kernel[axis], (n - start + d - 1) / d);
  }
};

// ---- max

DL_INLINE bool positions_fit(const Pool2d& p) { return p.H * p.W < Index(1) << 30; }  // into any lane

DL_INLINE bool is_halving(const Pool2d& p) {
  bool halving = positions_fit(p);
  for (int i = 0; i < 2; ++i) halving = halving && p.kernel[i] == 2 && p.stride[i] == 2 && p.dilation[i] == 1;
  return halving && p.padding[0] == 0 && p.padding[1] == 0 && 2 * p.P <= p.H && 2 * p.Q <= p.W;
}

template <class T>
DL_INLINE void max_of_window(const Pool2d& p, const T* x, Index row, Index col, T* y, int64_t* i) {
  const Inside rows(p, 0, row, p.H), cols(p, 1, col, p.W);
  const Index y0 = row * p.stride[0] - p.padding[0], x0 = col * p.stride[1] - p.padding[1];
  T best = 0;
  int64_t at = -1;
  for (Index r = rows.first; r < rows.end; ++r)
    for (Index s = cols.first; s < cols.end; ++s) {
      const Index position = (y0 + r * p.dilation[0]) * p.W + x0 + s * p.dilation[1];
      const T value = x[position];
      if (at < 0 || value > best || value != value) best = value, at = position;
    }
  *y = best, *i = at;
}

// The first n elements at p, of two vectors.
template <class T>
DL_INLINE void load_two(const T* p, int n, vec<T>* a, vec<T>* b) {
  constexpr int W = lanes<T>;
  *a = n >= W ? load(p) : load(p, n);
  *b = n == 2 * W ? load(p + W) : load(p + W, larger(0, n - W));
}
template <class T>
DL_INLINE void store_two(T* p, int n, vec<T> a, vec<T> b) {
  constexpr int W = lanes<T>;
  n >= W ? store(p, a) : store(p, a, n);
  n == 2 * W ? store(p + W, b) : store(p + W, b, larger(0, n - W));
}

template <class Mask, int... N>
DL_INLINE Mask counted_by_two(Indices<N...>) {
  return Mask{2 * N...};
}

// Whether from window (row, col) on a plane has room for a vector of windows of 2 x 2, in x and in y.
template <class T>
DL_INLINE bool room_in_plane(const Pool2d& p, Index row, Index col) {
  return (2 * row + 1) * p.W + 2 * (col + lanes<T>) <= p.H * p.W && row * p.Q + col + lanes<T> <= p.P * p.Q;
}

// n <= lanes windows of 2 x 2, from both rows of x on; `first` is the position of x. whole: there is room for reading
// and writing as many as lanes.
template <class T>
DL_INLINE void max_of_squares(const T* x, Index width, int64_t first, int n, bool whole, T* y, int64_t* i) {
  constexpr int W = lanes<T>;
  using Mask = decltype(vec<T>{} < vec<T>{});
  using Lane = decltype(Mask{}[0] + 0);
  vec<T> a, b, c, d;
  load_two(x, whole ? 2 * W : 2 * n, &a, &b);
  load_two(x + width, whole ? 2 * W : 2 * n, &c, &d);
  const vec<T> corner[4] = {even_of<T>(a, b), odd_of<T>(a, b), even_of<T>(c, d), odd_of<T>(c, d)};
  const Lane distance[4] = {0, 1, Lane(width), Lane(width + 1)};
  vec<T> best = corner[0];
  Mask at = {};
  static_for<3>([&](auto k) DL_INLINE_LAMBDA {
    const vec<T> value = corner[k + 1];
    const Mask wins = (value > best) | (value != value);
    best = wins ? value : best;
    at = wins ? Mask{} + distance[k + 1] : at;
  });
  Lane from[W];
  at += counted_by_two<Mask>(Lanes<T>());
  __builtin_memcpy(from, &at, sizeof at);
  if (whole) {
    store(y, best);
    for (int j = 0; j < W; ++j) i[j] = first + from[j];
  } else {
    store(y, best, n);
    for (int j = 0; j < n; ++j) i[j] = first + from[j];
  }
}

// x[0], x[stride], ...: n <= lanes of them.
template <class T, int Stride>
DL_INLINE vec<T> every(const T* x, int n, Index stride) {
  if constexpr (Stride == 1) return n == lanes<T> ? load(x) : load(x, n);
  vec<T> a = {}, b;
  if constexpr (Stride == 2) {
    load_two(x, 2 * n - 1, &a, &b);
    return even_of<T>(a, b);
  }
  for (int j = 0; j < n; ++j) a[j] = x[j * stride];
  return a;
}

// n <= lanes windows from `col` on, all of whose columns are inside the image.
template <class T, int Stride>
DL_INLINE void max_of_windows(const Pool2d& p, const T* x, Index row, Index col, int n, T* y, int64_t* i) {
  using Mask = decltype(vec<T>{} < vec<T>{});
  using Lane = decltype(Mask{}[0] + 0);
  const Inside rows(p, 0, row, p.H);
  const Index y0 = row * p.stride[0] - p.padding[0], x0 = col * p.stride[1] - p.padding[1];
  const Index first = (y0 + rows.first * p.dilation[0]) * p.W + x0;
  vec<T> best = every<T, Stride>(x + first, n, p.stride[1]);
  Mask at = {};  // from `first`
  for (Index r = rows.first; r < rows.end; ++r)
    for (Index s = 0; s < p.kernel[1]; ++s) {
      const Index distance = (r - rows.first) * p.dilation[0] * p.W + s * p.dilation[1];
      const vec<T> value = every<T, Stride>(x + first + distance, n, p.stride[1]);
      const Mask wins = (value > best) | (value != value);
      best = wins ? value : best;
      at = wins ? Mask{} + Lane(distance) : at;
    }
  n == lanes<T> ? store(y, best) : store(y, best, n);
  Lane from[lanes<T>];
  __builtin_memcpy(from, &at, sizeof at);
  for (int j = 0; j < n; ++j) i[j] = first + j * p.stride[1] + from[j];
}

// The columns whose windows are inside the image from left to right.
DL_INLINE Range whole_columns(const Pool2d& p) {
  const Index left = p.padding[1], reach = (p.kernel[1] - 1) * p.dilation[1], stride = p.stride[1];
  const Index begin = smaller(p.Q, (left + stride - 1) / stride), last = p.W - 1 + left - reach;
  return {begin, last < 0 ? begin : larger(begin, smaller(p.Q, last / stride + 1))};
}

template <class T>
DL_INLINE void max_of_row(const Pool2d& p, const T* x, Index row, T* y, int64_t* i) {
  const Inside rows(p, 0, row, p.H);
  const Range whole = positions_fit(p) && rows.first < rows.end ? whole_columns(p) : Range{0, 0};
  for (Index col = 0; col < whole.begin; ++col) max_of_window(p, x, row, col, y + col, i + col);
  for (Index col = whole.begin; col < whole.end; col += lanes<T>) {
    const int n = int(smaller<Index>(lanes<T>, whole.end - col));
    if (p.stride[1] == 1) max_of_windows<T, 1>(p, x, row, col, n, y + col, i + col);
    else if (p.stride[1] == 2) max_of_windows<T, 2>(p, x, row, col, n, y + col, i + col);
    else max_of_windows<T, 0>(p, x, row, col, n, y + col, i + col);
  }
  for (Index col = whole.end; col < p.Q; ++col) max_of_window(p, x, row, col, y + col, i + col);
}

template <class T>
void max_plane(const Pool2d& p, const T* x, T* y, int64_t* i) {
  const bool halving = is_halving(p);
  for (Index row = 0; row < p.P; ++row, y += p.Q, i += p.Q) {
    if (!halving) max_of_row(p, x, row, y, i);
    else
      for (Index col = 0; col < p.Q; col += lanes<T>) {  // what a vector puts behind a row, the next overwrites
        const Index at = 2 * row * p.W + 2 * col;
        max_of_squares(x + at, p.W, at, int(smaller<Index>(lanes<T>, p.Q - col)), room_in_plane<T>(p, row, col),
                       y + col, i + col);
      }
  }
}

template <class T>
void max_pool(const Pool2d& p, const T* x, T* y, int64_t* i) {
  each_plane(p, [&](Index n) { max_plane(p, x + n * p.H * p.W, y + n * p.P * p.Q, i + n * p.P * p.Q); });
}

// Unsigned numbers as wide as T.
template <class T>
struct Unsigned {
  using Lane = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  typedef Lane type __attribute__((vector_size(kVectorBytes)));
};

// The positions i[0], ..., n <= lanes of them, as far as they are from base, base + 2, ...: numbers without meaning for
// the other lanes, and all bits for positions that no lane can hold. Only vectors are loaded and stored: a vector
// loaded after stores of its lanes would wait until all stores before are in the cache.
template <class T>
DL_INLINE typename Unsigned<T>::type distances(const int64_t* i, int n, int64_t base) {
  using Vector = typename Unsigned<T>::type;
  constexpr int W = lanes<T>;
  Vector steps, found;
  for (int j = 0; j < W; ++j) steps[j] = typename Unsigned<T>::Lane(2 * j);
  const T* const words = reinterpret_cast<const T*>(i);
  if constexpr (sizeof(T) == 8) {
    const vec<T> all = n == W ? load(words) : load(words, n);
    __builtin_memcpy(&found, &all, sizeof found);
    return found - uint64_t(base) - steps;
  } else {  // the low halves, and the high ones, which must be 0
    const bool whole = n == W;
    const vec<T> a = whole ? load(words) : load(words, smaller(W, 2 * n));
    const vec<T> b = whole ? load(words + W) : load(words + W, larger(0, 2 * n - W));
    const vec<T> low = even_of<T>(a, b), high = odd_of<T>(a, b);
    Vector rest;
    __builtin_memcpy(&found, &low, sizeof found);
    __builtin_memcpy(&rest, &high, sizeof rest);
    return (found - uint32_t(base) - steps) | Vector(rest != Vector{});
  }
}

// The gradients of n <= lanes windows of 2 x 2, whose first element has position `first`, to both rows of dx. whole:
// there is room behind the second row for as many as lanes, which get zeros.
template <class T>
DL_INLINE void spread_squares(const T* dy, const int64_t* i, int64_t first, int n, bool whole, Index width, T* dx) {
  constexpr int W = lanes<T>;
  using Lane = typename Unsigned<T>::Lane;
  const auto at = distances<T>(i, whole ? W : n, first);
  const vec<T> g = n == W ? load(dy) : load(dy, n), zero = {};
  static_for<2>([&](auto r) DL_INLINE_LAMBDA {
    const auto left = typename Unsigned<T>::type{} + Lane(r * width);
    const vec<T> even = at == left ? g : zero, odd = at == left + 1 ? g : zero;
    store_two(dx + r * width, whole && r == 1 ? 2 * W : 2 * n, zip_low<T>(even, odd), zip_high<T>(even, odd));
  });
}

template <class T>
DL_INLINE void spread_window(const Pool2d& p, T dy, int64_t i, Index row, Index col, T* dx) {
  if (i < 0 || i >= p.H * p.W) return;
  const Index at = positions_fit(p) ? Index(uint32_t(i) / uint32_t(p.W)) : i / p.W;  // a quicker division
  const Index y = at - row * p.stride[0] + p.padding[0], x = i - at * p.W - col * p.stride[1] + p.padding[1];
  const auto tap = [&](int axis, Index distance) {
    const Index d = p.dilation[axis];
    return distance >= 0 && distance <= (p.kernel[axis] - 1) * d && (d == 1 || distance % d == 0);
  };
  if (tap(0, y) && tap(1, x)) dx[i] += dy;
}

template <class T>
void max_plane_grad(const Pool2d& p, const T* dy, const int64_t* i, T* dx) {
  const bool halving = is_halving(p);
  if (!halving || 2 * p.P < p.H || 2 * p.Q < p.W) __builtin_memset(dx, 0, sizeof(T) * size_t(p.H * p.W));
  for (Index row = 0; row < p.P; ++row, dy += p.Q, i += p.Q) {
    for (Index col = 0; halving && col < p.Q; col += lanes<T>) {
      const Index at = 2 * row * p.W + 2 * col;
      spread_squares(dy + col, i + col, at, int(smaller<Index>(lanes<T>, p.Q - col)), room_in_plane<T>(p, row, col),
                     p.W, dx + at);
    }
    for (Index col = 0; !halving && col < p.Q; ++col) spread_window(p, dy[col], i[col], row, col, dx);
  }
}

template <class T>
void max_pool_grad(const Pool2d& p, const T* dy, const int64_t* i, T* dx) {
  each_plane(p, [&](Index n) { max_plane_grad(p, dy + n * p.P * p.Q, i + n * p.P * p.Q, dx + n * p.H * p.W); });
}

// ---- averages: along columns of a window first, with vectors, then along its row

template <class T>
DL_INLINE T count(const Pool2d& p, int axis, Index o, Index n) {
  const Index start = o * p.stride[axis] - p.padding[axis], pad = p.count_padding ? p.padding[axis] : 0;
  return T(smaller(start + p.kernel[axis], n + pad) - larger(start, -pad));
}

template <class T>
DL_INLINE void add_row(const T* from, Index n, T* to) {
  constexpr int W = lanes<T>;
  Index i = 0;
  for (; i + W <= n; i += W) store(to + i, load(to + i) + load(from + i));
  for (; i < n; ++i) to[i] += from[i];
}

template <class T>
void avg_plane(const Pool2d& p, const T* x, T* y, T* sums) {
  for (Index row = 0; row < p.P; ++row) {
    const Inside rows(p, 0, row, p.H);
    const T height = count<T>(p, 0, row, p.H);
    __builtin_memset(sums, 0, sizeof(T) * size_t(p.W));
    for (Index r = rows.first; r < rows.end; ++r) add_row(x + (row * p.stride[0] - p.padding[0] + r) * p.W, p.W, sums);
    for (Index col = 0; col < p.Q; ++col) {
      const Inside cols(p, 1, col, p.W);
      T sum = 0;
      for (Index s = cols.first; s < cols.end; ++s) sum += sums[col * p.stride[1] - p.padding[1] + s];
      *y++ = sum / (height * count<T>(p, 1, col, p.W));
    }
  }
}

template <class T>
void avg_plane_grad(const Pool2d& p, const T* dy, T* dx, T* shares) {
  __builtin_memset(dx, 0, sizeof(T) * size_t(p.H * p.W));
  for (Index row = 0; row < p.P; ++row) {
    const Inside rows(p, 0, row, p.H);
    const T height = count<T>(p, 0, row, p.H);
    __builtin_memset(shares, 0, sizeof(T) * size_t(p.W));
    for (Index col = 0; col < p.Q; ++col) {
      const Inside cols(p, 1, col, p.W);
      const T share = *dy++ / (height * count<T>(p, 1, col, p.W));
      for (Index s = cols.first; s < cols.end; ++s) shares[col * p.stride[1] - p.padding[1] + s] += share;
    }
    for (Index r = rows.first; r < rows.end; ++r)
      add_row(shares, p.W, dx + (row * p.stride[0] - p.padding[0] + r) * p.W);
  }
}

// f(plane, a row's worth of the thread's working memory)
template <class T, class F>
void each_plane_with_row(const Pool2d& p, const F& f) {
  const int width = num_threads();
  const Index row = (p.W + 15) / 16 * 16;
  const Scratch memory(sizeof(T) * size_t(row * width));
  const int parts = int(smaller<Index>(width, larger<Index>(1, p.planes * (p.H * p.W + p.P * p.Q) / kGrain)));
  Shares shares(parts);
  team().run(
      [&](int tid, int nt) {
        T* const own = static_cast<T*>(memory.data()) + row * tid;
        shares.each(tid, nt, p.planes, [&](Index n) { f(n, own); });
      },
      parts);
}

template <class T>
void avg_pool(const Pool2d& p, const T* x, T* y) {
  each_plane_with_row<T>(p, [&](Index n, T* row) { avg_plane(p, x + n * p.H * p.W, y + n * p.P * p.Q, row); });
}

template <class T>
void avg_pool_grad(const Pool2d& p, const T* dy, T* dx) {
  each_plane_with_row<T>(p, [&](Index n, T* row) { avg_plane_grad(p, dy + n * p.P * p.Q, dx + n * p.H * p.W, row); });
}

template <class T>
constexpr PoolFunctions<T> functions = {max_pool<T>, max_pool_grad<T>, avg_pool<T>, avg_pool_grad<T>};

}  // namespace

void fill_pool(Kernels& kernels) { kernels.pool = {functions<float>, functions<double>}; }

}  // namespace DL_ISA
}  // namespace dlcore
