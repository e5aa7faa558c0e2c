#include "reduce.h"

#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "wide.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kColumns = 256;  // columns whose results a unit holds
constexpr int kRows = 8;         // of which a column's elements are added one after the other
constexpr Index kChunk = 32768;  // elements worth a unit
constexpr Index kMaxChunks = 64;
constexpr int kAhead = 2048;  // bytes to what is fetched meanwhile: hardware does not look beyond a page

// ---- what is done with an element x (and y, where kPairs): the state before all, and after one more. States of sums
// are double, those of extremes as the elements are.

struct Sum {
  template <class T>
  using State = double;
  static constexpr bool kPairs = false;
  static constexpr double first = 0;
  DL_INLINE static Wide add(Wide s, Wide x, Wide, Wide) { return s + x; }
  DL_INLINE static Wide join(Wide s, Wide t) { return s + t; }
};
struct Deviations : Sum {
  DL_INLINE static Wide add(Wide s, Wide x, Wide, Wide shift) { return s + (x - shift) * (x - shift); }
};
struct Products : Sum {
  static constexpr bool kPairs = true;
  DL_INLINE static Wide add(Wide s, Wide x, Wide y, Wide shift) { return s + x * (y - shift); }
};
struct Max {
  template <class T>
  using State = T;
  static constexpr bool kPairs = false;
  static constexpr double first = -__builtin_inf();
  template <class V>
  DL_INLINE static V join(V s, V x) {
    return (s > x) | (s != s) ? s : x;
  }
  template <class V>
  DL_INLINE static V add(V s, V x, V, V) {
    return join(s, x);
  }
};
struct Min {
  template <class T>
  using State = T;
  static constexpr bool kPairs = false;
  static constexpr double first = __builtin_inf();
  template <class V>
  DL_INLINE static V join(V s, V x) {
    return (s < x) | (s != s) ? s : x;
  }
  template <class V>
  DL_INLINE static V add(V s, V x, V, V) {
    return join(s, x);
  }
};

template <class F, class S, int Half = lanes<S> / 2>
DL_INLINE S join_lanes(vec<S> v) {
  if constexpr (Half == 0) return v[0];
  else return join_lanes<F, S, Half / 2>(F::join(v, rotated<S, Half>(v)));
}

// A vector of states' worth of elements, perhaps fewer.
template <class S, class T, class... N>
DL_INLINE vec<S> elements(const T* x, N... n) {
  if constexpr (sizeof(S) == sizeof(T)) return load(x, n...);
  else return widen(x, n...);
}

// ---- units

struct Part {
  Index a0, a1, b0, b1;
};

// Chunk c of `chunks`: of A, or of B where A is 1.
Part part_of(const Reduction& r, Index c, Index chunks) {
  if (r.a > 1) return {r.a * c / chunks, r.a * (c + 1) / chunks, 0, r.b};
  return {0, r.a, r.b * c / chunks, r.b * (c + 1) / chunks};
}

// The second operand at the place of x, where there is one.
template <class S, class F, class T, class... N>
DL_INLINE vec<S> second(const Reduction& r, const T* x, N... n) {
  if constexpr (F::kPairs) return elements<S>(static_cast<const T*>(r.y) + (x - static_cast<const T*>(r.x)), n...);
  else return vec<S>{};
}

template <class T, class F>
double reduce_rows(const Reduction& r, const Part& part, Index k) {
  using S = typename F::template State<T>;
  constexpr int W = lanes<S>;
  const vec<S> shift = broadcast(S(r.shift == nullptr ? 0 : r.shift[k])), first = broadcast(S(F::first));
  vec<S> s[4] = {first, first, first, first};
  const auto add = [&](vec<S>& state, const T* x)
                       DL_INLINE_LAMBDA { state = F::add(state, elements<S>(x), second<S, F>(r, x), shift); };
  for (Index a = part.a0; a < part.a1; ++a) {
    const T* x = static_cast<const T*>(r.x) + (a * r.k + k) * r.b;
    Index i = part.b0;
    for (; i + 4 * W <= part.b1; i += 4 * W) {
      for (int line = 0; line < 4 * W * int(sizeof(T)); line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead + line);
      static_for<4>([&](auto u) DL_INLINE_LAMBDA { add(s[u], x + i + u * W); });
    }
    for (; i + W <= part.b1; i += W) add(s[0], x + i);
    if (i < part.b1) {
      const Index n = part.b1 - i;
      const vec<S> next = F::add(s[1], elements<S>(x + i, n), second<S, F>(r, x + i, n), shift);
      for (int lane = 0; lane < W; ++lane)
        if (lane < n) s[1][lane] = next[lane];
    }
  }
  return join_lanes<F, S>(F::join(F::join(s[0], s[1]), F::join(s[2], s[3])));
}

// Columns l0 to l0 + n: memory is read along rows, some of them at a time.
template <class T, class F>
void reduce_columns(const Reduction& r, const Part& part, Index k, Index l0, Index n, double* out) {
  using S = typename F::template State<T>;
  S states[kColumns];
  const Index outer = r.k * r.b * r.l, apart = part.a1 - part.a0, length = part.b1 - part.b0;
  const Index runs = length == 1 ? 1 : apart, rows = length == 1 ? apart : length, step = length == 1 ? outer : r.l;
  const double* shifts = r.shift == nullptr ? nullptr : r.shift + k * r.l + l0;
  const auto add = [&](const T* x, auto together) DL_INLINE_LAMBDA {
    const auto vector = [&](Index j, auto... count) DL_INLINE_LAMBDA {
      vec<S> s = load(states + j, count...), shift = {};
      if constexpr (sizeof(S) == sizeof(double))
        if (shifts != nullptr) shift = load(shifts + j, count...);
      constexpr int kTogether = decltype(together)();
      static_for<kTogether>([&](auto u) DL_INLINE_LAMBDA {
        const T* at = x + u * step + j;
        if (kTogether > 1 && j % (64 / int(sizeof(T))) == 0) __builtin_prefetch(at + kRows * step);
        s = F::add(s, elements<S>(at, count...), second<S, F>(r, at, count...), shift);
      });
      store(states + j, s, count...);
    };
    Index j = 0;
    for (; j + lanes<S> <= n; j += lanes<S>) vector(j);
    if (j < n) vector(j, n - j);
  };
  for (Index j = 0; j < n; ++j) states[j] = S(F::first);
  const T* x = static_cast<const T*>(r.x) + (part.a0 * r.k + k) * r.b * r.l + part.b0 * r.l + l0;
  for (Index run = 0; run < runs; ++run, x += outer) {
    Index i = 0;
    for (; i + kRows <= rows; i += kRows) add(x + i * step, I<kRows>());
    for (; i < rows; ++i) add(x + i * step, I<1>());
  }
  for (Index j = 0; j < n; ++j) out[j] = states[j];
}

// ---- all units, and the chunks of each output together

Index chunks_of(const Reduction& r, Index units) {
  const Index wanted = r.outputs() * r.length() / kChunk / units;
  return larger<Index>(1, smaller(smaller(wanted, kMaxChunks), r.a > 1 ? r.a : r.b));
}

template <class F>
void join_chunks(Index chunks, Index n, double* partial) {
  for (Index c = 1; c < chunks; ++c)
    for (Index i = 0; i < n; ++i) {
      const Wide joined = F::join(broadcast(partial[i]), broadcast(partial[c * n + i]));
      partial[i] = joined[0];
    }
}

template <class T, class F>
void reduce(const Reduction& r, double* result) {
  const Index outputs = r.outputs();
  if (outputs == 0) return;
  const Index blocks = (r.l + kColumns - 1) / kColumns, units = r.k * blocks;
  const Index chunks = chunks_of(r, units), per_unit = r.length() * outputs / (units * chunks);
  const Scratch scratch(chunks > 1 ? std::size_t(chunks * outputs) * sizeof(double) : 1);
  double* partial = chunks > 1 ? static_cast<double*>(scratch.data()) : result;
  parallel_for(0, units * chunks, kChunk / (per_unit + 1) + 1, [&](Index begin, Index end) {
    for (Index u = begin; u < end; ++u) {
      const Index c = u / units, k = u % units / blocks, l0 = u % blocks * kColumns;
      const Part part = part_of(r, c, chunks);
      double* out = partial + c * outputs + k * r.l + l0;
      if (r.l == 1) *out = reduce_rows<T, F>(r, part, k);
      else reduce_columns<T, F>(r, part, k, l0, smaller(kColumns, r.l - l0), out);
    }
  });
  if (chunks == 1) return;
  join_chunks<F>(chunks, outputs, partial);
  for (Index i = 0; i < outputs; ++i) result[i] = partial[i];
}

// ---- where the extreme is

template <class T, class F>
Index locate(const T* x, Index n) {
  const Reduction row{x, 1, 1, n, 1};
  const double extreme = reduce_rows<T, F>(row, {0, 1, 0, n}, 0);
  Index i = 0;
  if (extreme != extreme)
    while (x[i] == x[i]) ++i;
  else
    while (double(x[i]) != extreme) ++i;
  return i;
}

template <class T, class F>
void locate_rows(Index rows, Index n, const void* x, long long* index) {
  parallel_for(0, rows, kChunk / (n + 1) + 1, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) index[i] = locate<T, F>(static_cast<const T*>(x) + i * n, n);
  });
}

template <class T>
ReduceKernels::Of of() {
  return {reduce<T, Sum>,      reduce<T, Max>,      reduce<T, Min>,     reduce<T, Deviations>,
          reduce<T, Products>, locate_rows<T, Max>, locate_rows<T, Min>};
}

}  // namespace

void fill_reduce(Kernels& kernels) { kernels.reduce = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
