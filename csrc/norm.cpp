#include "norm.h"

#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "simd_math.h"
#include "wide.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 16384;  // elements worth a thread

const ReduceKernels::Of& reductions(const float*) { return kernels().reduce.f32; }
const ReduceKernels::Of& reductions(const double*) { return kernels().reduce.f64; }

// Working arrays of one call, taken from one block.
class Arrays {
 public:
  explicit Arrays(Index doubles) : scratch_(std::size_t(doubles + 1) * sizeof(double)) {}
  template <class T>
  T* take(Index n) {
    T* p = reinterpret_cast<T*>(static_cast<double*>(scratch_.data()) + used_);
    used_ += n;
    return p;
  }

 private:
  const Scratch scratch_;
  Index used_ = 0;
};

template <class T>
double value(const void* p, Index i, double otherwise) {
  return p == nullptr ? otherwise : double(static_cast<const T*>(p)[i]);
}

struct Sums {
  double first, second;
};
// As sum_over, of the two terms that term(i, n, sums) adds, over one line of positions after the other.
class TwoSums {
 public:
  template <class F>
  DL_INLINE void add(Index length, const F& term) {
    Index i = 0;
    for (; i + 4 * kWide <= length; i += 4 * kWide)
      static_for<4>([&](auto u) DL_INLINE_LAMBDA { term(i + u * kWide, I<kWide>(), s_[u]); });
    for (; i + kWide <= length; i += kWide) term(i, I<kWide>(), s_[0]);
    if (i < length) term(i, length - i, s_[1]);
  }
  DL_INLINE Sums total() const { return {total(0), total(1)}; }

 private:
  DL_INLINE double total(int k) const { return sum<double>((s_[0][k] + s_[1][k]) + (s_[2][k] + s_[3][k])); }
  Wide s_[4][2] = {};
};
template <class F>
DL_INLINE Sums two_sums_over(Index length, const F& term) {
  TwoSums sums;
  sums.add(length, term);
  return sums.total();
}

// ---- lines: x[lines, n] with coefficients by line (repeating after `period`), or by column

template <class T, bool by_column>
struct Coefficient {
  const T* values;
  DL_INLINE vec<T> at(Index line, Index i, Index n) const {
    if constexpr (!by_column) return broadcast(values[line]);
    return n == lanes<T> ? load(values + i) : load(values + i, n);
  }
};

template <class T>
DL_INLINE vec<T> part(const T* x, Index n) {
  return n == lanes<T> ? load(x) : load(x, n);
}
template <class T>
DL_INLINE void put(T* y, vec<T> v, Index n) {
  if (n == lanes<T>) store(y, v);
  else store(y, v, n);
}

// f(line mod period, position in the line, position in the array, count) for each vector of a line
template <class T, class F>
DL_INLINE void for_line(Index line, Index n, Index period, const F& f) {
  const Index c = line % period, start = line * n;
  Index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) f(c, i, start + i, lanes<T>);
  if (i < n) f(c, i, start + i, n - i);
}
template <class T, class F>
DL_INLINE void for_line(Index line, Index n, Index period, const F& f, const Tail& tail) {
  for_line<T>(line, n, period, f);
  if (tail.run != nullptr) tail.run(tail.self, line * n, n);
}
template <class T, class F>
void for_lines(Index lines, Index n, Index period, const F& f, const Tail& tail = {}) {
  if (n == 0) return;
  parallel_for(0, lines, kGrain / n + 1, [&](Index begin, Index end) {
    for (Index line = begin; line < end; ++line) for_line<T>(line, n, period, f, tail);
  });
}

// y = (x - centre) * rate + shift
template <class T, bool by_column>
DL_INLINE auto normalising(const T* x, const T* centre, const T* rate, const T* shift, T* y) {
  const Coefficient<T, by_column> m{centre}, a{rate}, b{shift};
  return [=](Index c, Index i, Index at, Index count) DL_INLINE_LAMBDA {
    put(y + at, (part(x + at, count) - m.at(c, i, count)) * a.at(c, i, count) + b.at(c, i, count), count);
  };
}
template <class T, bool by_column, class... P>
void normalise(const Tail& tail, Index lines, Index n, Index period, P... pointers) {
  for_lines<T>(lines, n, period, normalising<T, by_column>(pointers...), tail);
}

// dx = a * dy - k * (x - centre) - b
template <class T, bool by_column>
DL_INLINE auto unnormalising(const T* dy, const T* x, const T* centre, const T* a, const T* k, const T* b, T* dx) {
  const Coefficient<T, by_column> m{centre}, ca{a}, ck{k}, cb{b};
  return [=](Index c, Index i, Index at, Index count) DL_INLINE_LAMBDA {
    const vec<T> off = part(x + at, count) - m.at(c, i, count);
    put(dx + at, ca.at(c, i, count) * part(dy + at, count) - ck.at(c, i, count) * off - cb.at(c, i, count), count);
  };
}
template <class T, bool by_column, class... P>
void unnormalise(Index lines, Index n, Index period, P... pointers) {
  for_lines<T>(lines, n, period, unnormalising<T, by_column>(pointers...));
}

// f of the elements of channel c of x[N, C, S], which makes those of y; each of its lines is fetched one ahead.
template <class T, class F>
DL_INLINE void for_channel(Index n, Index channels, Index s, Index c, const F& f, T* y, const Tail& tail = {}) {
  const auto ahead = [&f, y, next = channels * s](Index c, Index i, Index at, Index count) DL_INLINE_LAMBDA {
    __builtin_prefetch(y + at + next, 1);
    f(c, i, at, count);
  };
  for (Index i = 0; i < n; ++i) for_line<T>(i * channels + c, s, channels, ahead, tail);
}

Reduction by_channel(const void* x, Index n, Index c, Index s) {
  if (s == 1) return {x, 1, 1, n, c};
  return {x, n, c, s, 1};
}

// mean and sum of squared deviations of each output of r, over its length
void moments(const ReduceKernels::Of& reduce, Reduction r, double* mean, double* deviations) {
  const double length = r.length() > 0 ? double(r.length()) : 1;
  reduce.sum(r, mean);
  for (Index i = 0; i < r.outputs(); ++i) mean[i] /= length;
  r.shift = mean;
  reduce.deviations(r, deviations);
}

// ---- batch norm

// Mean and sum of squared deviations of a channel, in one pass: of what the elements differ from the first one, whose
// own distance from the mean is at most sqrt(N * S) standard deviations, so that little cancels.
template <class T>
Sums channel_moments(const ChannelNorm& p, Index c) {
  const T* x = static_cast<const T*>(p.x) + c * p.s;
  const double origin = p.n > 0 && *x - *x == 0 ? double(*x) : 0, count = larger(1., double(p.n * p.s));
  const Index next = p.c * p.s;
  TwoSums sums;
  for (Index i = 0; i < p.n; ++i, x += next)
    sums.add(p.s, [=](Index j, auto n, Wide* s) DL_INLINE_LAMBDA {
      __builtin_prefetch(x + j + next);
      Wide v = widen(x + j, n) - origin;
      for (int lane = 0; lane < kWide; ++lane)
        if (lane >= n) v[lane] = 0;
      s[0] += v, s[1] += v * v;
    });
  const Sums all = sums.total();
  return {origin + all.first / count, all.second - all.first * (all.first / count)};
}

// Sums of dy and of dy * (x - mean) over a channel.
template <class T>
Sums channel_products(const ChannelNormGrad& p, Index c) {
  const T *dy = static_cast<const T*>(p.dy) + c * p.s, *x = static_cast<const T*>(p.x) + c * p.s;
  const double mean = double(static_cast<const T*>(p.mean)[c]);
  const Index next = p.c * p.s;
  TwoSums sums;
  for (Index i = 0; i < p.n; ++i, dy += next, x += next)
    sums.add(p.s, [=](Index j, auto n, Wide* s) DL_INLINE_LAMBDA {
      __builtin_prefetch(dy + j + next);
      __builtin_prefetch(x + j + next);
      const Wide g = widen(dy + j, n);
      s[0] += g, s[1] += g * (widen(x + j, n) - mean);
    });
  return sums.total();
}

// Whether a thread takes whole channels, one after the other: what it reads again is then still in its cache. Where S
// is 1, elements of a channel lie apart, and rows of channels are taken.
bool by_whole_channels(Index s) { return s > 1; }

template <class T>
void batch(const ChannelNorm& p) {
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  Arrays arrays(5 * p.c);
  double *mean = arrays.take<double>(p.c), *var = arrays.take<double>(p.c);
  T *centre = arrays.take<T>(p.c), *rate = arrays.take<T>(p.c), *shift = arrays.take<T>(p.c);
  const Reduction all = by_channel(x, p.n, p.c, p.s);
  const double length = all.length() > 0 ? double(all.length()) : 1;
  const auto finish = [&](Index c) {
    var[c] /= length;
    static_cast<T*>(p.mean)[c] = centre[c] = T(mean[c]);
    static_cast<T*>(p.var)[c] = T(var[c]);
    rate[c] = T(value<T>(p.scale, c, 1) / __builtin_sqrt(var[c] + p.eps));
    shift[c] = T(value<T>(p.bias, c, 0));
  };
  if (!by_whole_channels(p.s)) {
    moments(reductions(x), all, mean, var);
    for (Index c = 0; c < p.c; ++c) finish(c);
    return normalise<T, true>(p.tail, p.n, p.c, 1, x, centre, rate, shift, y);
  }
  const auto apply = normalising<T, false>(x, centre, rate, shift, y);
  parallel_for(0, p.c, kGrain / (all.length() + 1) + 1, [&](Index begin, Index end) {
    for (Index c = begin; c < end; ++c) {
      const Sums found = channel_moments<T>(p, c);
      mean[c] = found.first, var[c] = found.second;
      finish(c);
      for_channel<T>(p.n, p.c, p.s, c, apply, y, p.tail);
    }
  });
}

template <class T>
void inference(const ChannelNorm& p) {
  Arrays arrays(2 * p.c);
  T *rate = arrays.take<T>(p.c), *shift = arrays.take<T>(p.c);
  for (Index c = 0; c < p.c; ++c) {
    rate[c] = T(value<T>(p.scale, c, 1) / __builtin_sqrt(value<T>(p.var, c, 1) + p.eps));
    shift[c] = T(value<T>(p.bias, c, 0));
  }
  const T *x = static_cast<const T*>(p.x), *mean = static_cast<const T*>(p.mean);
  if (p.s == 1) normalise<T, true>(p.tail, p.n, p.c, 1, x, mean, rate, shift, static_cast<T*>(p.y));
  else normalise<T, false>(p.tail, p.n * p.c, p.s, p.c, x, mean, rate, shift, static_cast<T*>(p.y));
}

template <class T>
void batch_grad(const ChannelNormGrad& p) {
  const T *dy = static_cast<const T*>(p.dy), *x = static_cast<const T*>(p.x), *mean = static_cast<const T*>(p.mean);
  T* dx = static_cast<T*>(p.dx);
  Arrays arrays(6 * p.c);
  double *shift = arrays.take<double>(p.c), *total = arrays.take<double>(p.c), *along = arrays.take<double>(p.c);
  T *a = arrays.take<T>(p.c), *k = arrays.take<T>(p.c), *b = arrays.take<T>(p.c);
  for (Index c = 0; c < p.c; ++c) shift[c] = double(mean[c]);
  const Reduction sums = by_channel(dy, p.n, p.c, p.s);
  Reduction products = sums;
  products.shift = shift, products.y = x;
  const double count = sums.length() > 0 ? double(sums.length()) : 1;
  const auto finish = [&](Index c) {
    const double rate = 1 / __builtin_sqrt(value<T>(p.var, c, 1) + p.eps), scaled = rate * value<T>(p.scale, c, 1);
    static_cast<T*>(p.dbias)[c] = T(total[c]);
    static_cast<T*>(p.dscale)[c] = T(along[c] * rate);
    a[c] = T(scaled);
    k[c] = T((scaled * rate * rate * along[c] - 2 * value<T>(p.dvar, c, 0)) / count);
    b[c] = T((scaled * total[c] - value<T>(p.dmean, c, 0)) / count);
  };
  if (!by_whole_channels(p.s)) {
    reductions(x).sum(sums, total);
    reductions(x).products(products, along);
    for (Index c = 0; c < p.c; ++c) finish(c);
    return unnormalise<T, true>(p.n, p.c, 1, dy, x, mean, a, k, b, dx);
  }
  const auto apply = unnormalising<T, false>(dy, x, mean, a, k, b, dx);
  parallel_for(0, p.c, kGrain / (sums.length() + 1) + 1, [&](Index begin, Index end) {
    for (Index c = begin; c < end; ++c) {
      const Sums found = channel_products<T>(p, c);
      total[c] = found.first, along[c] = found.second;
      finish(c);
      for_channel<T>(p.n, p.c, p.s, c, apply, dx);
    }
  });
}

// ---- group norm: lines are the channels of each example

template <class T>
void group(const ChannelNorm& p) {
  const T* x = static_cast<const T*>(p.x);
  const Index sets = p.n * p.groups, lines = p.n * p.c, each = p.c / p.groups;
  Arrays arrays(2 * sets + 3 * lines);
  double *mean = arrays.take<double>(sets), *var = arrays.take<double>(sets);
  T *centre = arrays.take<T>(lines), *rate = arrays.take<T>(lines), *shift = arrays.take<T>(lines);
  moments(reductions(x), {x, 1, sets, each * p.s, 1}, mean, var);
  const double count = each * p.s > 0 ? double(each * p.s) : 1;
  for (Index i = 0; i < lines; ++i) {
    const Index set = i / each, c = i % p.c;
    centre[i] = T(mean[set]);
    rate[i] = T(value<T>(p.scale, c, 1) / __builtin_sqrt(var[set] / count + p.eps));
    shift[i] = T(value<T>(p.bias, c, 0));
  }
  normalise<T, false>({}, lines, p.s, lines, x, centre, rate, shift, static_cast<T*>(p.y));
}

template <class T>
void group_grad(const ChannelNormGrad& p) {
  const T *dy = static_cast<const T*>(p.dy), *x = static_cast<const T*>(p.x);
  const Index sets = p.n * p.groups, lines = p.n * p.c, each = p.c / p.groups;
  Arrays arrays(2 * sets + 7 * lines + 2 * p.c);
  double *mean = arrays.take<double>(sets), *var = arrays.take<double>(sets);
  double *shift = arrays.take<double>(lines), *total = arrays.take<double>(lines), *along = arrays.take<double>(lines);
  double *dscale = arrays.take<double>(p.c), *dbias = arrays.take<double>(p.c);
  T *centre = arrays.take<T>(lines), *a = arrays.take<T>(lines), *k = arrays.take<T>(lines), *b = arrays.take<T>(lines);
  moments(reductions(x), {x, 1, sets, each * p.s, 1}, mean, var);
  for (Index i = 0; i < lines; ++i) shift[i] = mean[i / each];
  Reduction r{dy, 1, lines, p.s, 1};
  reductions(x).sum(r, total);
  r.shift = shift, r.y = x;
  reductions(x).products(r, along);
  for (Index c = 0; c < p.c; ++c) dscale[c] = dbias[c] = 0;
  const double count = each * p.s > 0 ? double(each * p.s) : 1;
  for (Index set = 0; set < sets; ++set) {
    const double rate = 1 / __builtin_sqrt(var[set] / count + p.eps);
    double totals = 0, alongs = 0;
    for (Index i = set * each; i < (set + 1) * each; ++i) {
      const double scale = value<T>(p.scale, i % p.c, 1);
      totals += scale * total[i], alongs += scale * along[i];
      dbias[i % p.c] += total[i], dscale[i % p.c] += along[i] * rate;
    }
    for (Index i = set * each; i < (set + 1) * each; ++i) {
      centre[i] = T(mean[set]);
      a[i] = T(rate * value<T>(p.scale, i % p.c, 1));
      k[i] = T(rate * rate * rate * alongs / count);
      b[i] = T(rate * totals / count);
    }
  }
  for (Index c = 0; c < p.c; ++c)
    static_cast<T*>(p.dscale)[c] = T(dscale[c]), static_cast<T*>(p.dbias)[c] = T(dbias[c]);
  unnormalise<T, false>(lines, p.s, lines, dy, x, centre, a, k, b, static_cast<T*>(p.dx));
}

// ---- layer norm and RMS norm: a row at a time, while it is in the cache

struct RowMoments {
  double mean, rate;
};

template <class T>
DL_INLINE RowMoments row_moments(const T* x, Index d, double eps, bool centre) {
  double mean = 0;
  if (centre) mean = sum_over(d, [=](Index i, auto n) DL_INLINE_LAMBDA { return widen(x + i, n); }) / double(d);
  const double squares = sum_over(d, [=](Index i, auto n) DL_INLINE_LAMBDA {
    Wide off = widen(x + i, n) - mean;
    for (int lane = 0; lane < kWide; ++lane)
      if (lane >= n) off[lane] = 0;
    return off * off;
  });
  return {mean, 1 / __builtin_sqrt(squares / double(d) + eps)};
}

// The row's own moments, and what the columns multiply and add; null: 1 and 0.
template <class T>
struct Columns {
  const T *scale, *bias;
  DL_INLINE vec<T> factor(Index i, Index n) const { return scale == nullptr ? broadcast(T(1)) : part(scale + i, n); }
  DL_INLINE vec<T> term(Index i, Index n) const { return bias == nullptr ? vec<T>{} : part(bias + i, n); }
};

template <class T>
void rows(const RowNorm& p) {
  if (p.d == 0) return;
  const Columns<T> columns{static_cast<const T*>(p.scale), static_cast<const T*>(p.bias)};
  parallel_for(0, p.rows, kGrain / p.d + 1, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(p.x) + row * p.d;
      T* y = static_cast<T*>(p.y) + row * p.d;
      const RowMoments m = row_moments(x, p.d, p.eps, p.centre);
      const T mean = T(m.mean), rate = T(m.rate);
      for (Index i = 0; i < p.d; i += lanes<T>) {
        const Index n = smaller<Index>(lanes<T>, p.d - i);
        put(y + i, (part(x + i, n) - mean) * rate * columns.factor(i, n) + columns.term(i, n), n);
      }
    }
  });
}

// dx of one row; returns the row's moments.
template <class T>
RowMoments row_grad(const RowNormGrad& p, Index row) {
  const T *dy = static_cast<const T*>(p.dy) + row * p.d, *x = static_cast<const T*>(p.x) + row * p.d;
  const T* scale = static_cast<const T*>(p.scale);
  T* dx = static_cast<T*>(p.dx) + row * p.d;
  const auto weighted = [=](Index i, auto n) DL_INLINE_LAMBDA {
    return scale == nullptr ? widen(dy + i, n) : widen(dy + i, n) * widen(scale + i, n);
  };
  Sums whole = {0, 0};  // of x and of the weighted dy
  if (p.centre)
    whole = two_sums_over(
        p.d, [=](Index i, auto n, Wide* s) DL_INLINE_LAMBDA { s[0] += widen(x + i, n), s[1] += weighted(i, n); });
  const double mean = whole.first / double(p.d);
  const Sums off = two_sums_over(p.d, [=](Index i, auto n, Wide* s) DL_INLINE_LAMBDA {
    Wide v = widen(x + i, n) - mean;
    for (int lane = 0; lane < kWide; ++lane)
      if (lane >= n) v[lane] = 0;
    s[0] += v * v, s[1] += weighted(i, n) * v;
  });
  const double rate = 1 / __builtin_sqrt(off.first / double(p.d) + p.eps);
  const T centre = T(mean), a = T(rate), k = T(rate * rate * rate * off.second / double(p.d));
  const T b = T(rate * whole.second / double(p.d));
  const Columns<T> columns{scale, nullptr};
  for (Index i = 0; i < p.d; i += lanes<T>) {
    const Index n = smaller<Index>(lanes<T>, p.d - i);
    put(dx + i, part(dy + i, n) * columns.factor(i, n) * a - (part(x + i, n) - centre) * k - b, n);
  }
  return {mean, rate};
}

// Adds the dy * z and dy of some rows, one after the other, to `dscale` and `dbias`.
template <class T, int Rows>
void add_rows(const RowNormGrad& p, Index row, const RowMoments* of, double* dscale, double* dbias) {
  const T *dy = static_cast<const T*>(p.dy) + row * p.d, *x = static_cast<const T*>(p.x) + row * p.d;
  const auto add = [&](Index i, auto... n) DL_INLINE_LAMBDA {
    Wide s = load(dscale + i, n...), b = load(dbias + i, n...);
    static_for<Rows>([&](auto r) DL_INLINE_LAMBDA {
      const Wide g = widen(dy + r * p.d + i, n...);
      s += g * ((widen(x + r * p.d + i, n...) - of[r].mean) * of[r].rate);
      b += g;
    });
    store(dscale + i, s, n...);
    store(dbias + i, b, n...);
  };
  Index i = 0;
  for (; i + kWide <= p.d; i += kWide) add(i);
  if (i < p.d) add(i, p.d - i);
}

template <class T>
void rows_grad(const RowNormGrad& p) {
  constexpr int kTogether = 4;
  const Index chunks = larger<Index>(1, smaller<Index>(16, p.rows * p.d / kGrain));  // by the shape alone
  Arrays arrays(2 * chunks * p.d);
  double* sums = arrays.take<double>(2 * chunks * p.d);  // [chunk][dscale, dbias][D]
  parallel_for(0, chunks, 1, [&](Index begin, Index end) {
    for (Index c = begin; c < end; ++c) {
      double *dscale = sums + 2 * c * p.d, *dbias = dscale + p.d;
      for (Index i = 0; i < 2 * p.d; ++i) dscale[i] = 0;
      Index row = p.rows * c / chunks;
      const Index last = p.rows * (c + 1) / chunks;
      RowMoments of[kTogether];
      const auto take = [&](auto count) {
        for (int r = 0; r < count; ++r) of[r] = row_grad<T>(p, row + r);
        add_rows<T, count>(p, row, of, dscale, dbias);
        if (p.tail.run != nullptr) p.tail.run(p.tail.self, row * p.d, count * p.d);
        row += count;
      };
      while (row + kTogether <= last) take(I<kTogether>());
      while (row < last) take(I<1>());
    }
  });
  for (Index i = 0; i < p.d; ++i) {
    double dscale = 0, dbias = 0;
    for (Index c = 0; c < chunks; ++c) dscale += sums[2 * c * p.d + i], dbias += sums[(2 * c + 1) * p.d + i];
    static_cast<T*>(p.dscale)[i] = T(dscale);
    if (p.dbias != nullptr) static_cast<T*>(p.dbias)[i] = T(dbias);
  }
}

template <class T>
NormKernels::Of of() {
  return {batch<T>, inference<T>, group<T>, batch_grad<T>, group_grad<T>, rows<T>, rows_grad<T>};
}

}  // namespace

void fill_norm(Kernels& kernels) { kernels.norm = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
