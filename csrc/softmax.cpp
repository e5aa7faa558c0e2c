#include "softmax.h"

#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "simd_math.h"
#include "wide.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 8192;  // elements worth a thread

template <class F>
void for_rows(Index rows, Index n, const F& row) {
  if (n == 0) return;
  parallel_for(0, rows, kGrain / n + 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) row(i * n);
  });
}

// y[i] = f(i, count) for the vectors of a row
template <class T, class F>
DL_INLINE void map_row(Index n, T* y, const F& f) {
  Index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store(y + i, f(i, I<lanes<T>>()));
  if (i < n) store(y + i, f(i, n - i), n - i);
}
template <class T>
DL_INLINE vec<T> load(const T* x, I<lanes<T>>) {
  return DL_ISA::load(x);
}
using DL_ISA::load;

// The largest element; what a row with NaN gives does not matter, as its sum is NaN. 0 for a row of -inf alone.
template <class T>
DL_INLINE T shift_of(Index n, const T* x) {
  const T lowest = T(-__builtin_inf());
  vec<T> top = broadcast(lowest);
  Index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    const vec<T> v = load(x + i);
    top = v > top ? v : top;
  }
  T lane[lanes<T>], largest = lowest;
  store(lane, top);
  for (const T v : lane) largest = larger(largest, v);
  for (; i < n; ++i) largest = larger(largest, x[i]);
  return largest == lowest ? T(0) : largest;
}

template <class T>
DL_INLINE double sum_of(Index n, const T* x) {
  return sum_over(n, [=](Index i, auto count) DL_INLINE_LAMBDA { return widen(x + i, count); });
}

template <class T>
struct Shifted {
  T shift;
  double total;
};
// y = exp(x - shift) with the largest element as shift, and their sum; 1 for a row of -inf alone.
template <class T>
DL_INLINE Shifted<T> exp_of_row(Index n, const T* x, T* y) {
  const T shift = shift_of(n, x);
  map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return exp(load(x + i, count) - shift); });
  const double total = sum_of(n, y);
  return {shift, total == 0 ? 1 : total};
}

template <class T>
void softmax(Index rows, Index n, const void* from, void* to) {
  for_rows(rows, n, [=](Index start) {
    T* y = static_cast<T*>(to) + start;
    const T scale = T(1 / exp_of_row(n, static_cast<const T*>(from) + start, y).total);
    map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return load(y + i, count) * scale; });
  });
}

template <class T>
void log_softmax(Index rows, Index n, const void* from, void* to) {
  for_rows(rows, n, [=](Index start) {
    const T* x = static_cast<const T*>(from) + start;
    T* y = static_cast<T*>(to) + start;
    const Shifted<T> row = exp_of_row(n, x, y);
    const T shift = row.shift, log_total = T(::log(row.total));
    map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return load(x + i, count) - shift - log_total; });
  });
}

template <class T>
void softmax_grad(Index rows, Index n, const void* dys, const void* ys, void* dxs) {
  for_rows(rows, n, [=](Index start) {
    const T *dy = static_cast<const T*>(dys) + start, *y = static_cast<const T*>(ys) + start;
    const auto product = [=](Index i, auto count)
                             DL_INLINE_LAMBDA { return widen(dy + i, count) * widen(y + i, count); };
    const T along = T(sum_over(n, product));
    map_row(n, static_cast<T*>(dxs) + start,
            [=](Index i, auto count) DL_INLINE_LAMBDA { return load(y + i, count) * (load(dy + i, count) - along); });
  });
}

template <class T>
void log_softmax_grad(Index rows, Index n, const void* dys, const void* ys, void* dxs) {
  for_rows(rows, n, [=](Index start) {
    const T *dy = static_cast<const T*>(dys) + start, *y = static_cast<const T*>(ys) + start;
    const T total = T(sum_of(n, dy));
    map_row(n, static_cast<T*>(dxs) + start, [=](Index i, auto count) DL_INLINE_LAMBDA {
      return load(dy + i, count) - exp(load(y + i, count)) * total;
    });
  });
}

// ---- cross-entropy

template <class T>
DL_INLINE double sum_of_exp(Index n, const T* x, T shift) {
  Wide s[2] = {};
  T e[lanes<T>];
  for (Index i = 0; i < n; i += lanes<T>) {
    const Index count = smaller<Index>(lanes<T>, n - i);
    store(e, exp((count == lanes<T> ? load(x + i) : load(x + i, count)) - shift));
    for (int half = 0; half < lanes<T> / kWide; ++half)
      s[half] += count == lanes<T> ? widen(e + half * kWide) : widen(e + half * kWide, count - half * kWide);
  }
  return sum<double>(s[0] + s[1]);
}

// What a row's loss and gradient are made of: t is `even` everywhere, and `hot` more at the label.
struct Targets {
  double hot, even, total;
};
Targets targets_of(const CrossEntropy& p, Index row) {
  const long long label = p.labels[row];
  if (label == p.ignored) return {0, 0, 0};
  const double hot = label >= 0 && label < p.n ? 1 - p.smoothing : 0;
  return {hot, p.smoothing / double(p.n), hot + p.smoothing};
}

double divisor_of(const CrossEntropy& p) {
  if (p.reduction != Mean::mean) return 1;
  Index counted = 0;
  for (Index i = 0; i < p.rows; ++i) counted += p.labels[i] != p.ignored && p.labels[i] >= 0 && p.labels[i] < p.n;
  return double(counted);
}

template <class T>
void cross_entropy(const CrossEntropy& p) {
  const Scratch scratch(std::size_t(p.rows + 1) * sizeof(double));
  double* losses = static_cast<double*>(scratch.data());
  for_rows(p.rows, p.n, [=](Index start) {
    const Index row = start / p.n;
    const T* x = static_cast<const T*>(p.logits) + start;
    const T shift = shift_of(p.n, x);
    const double total = sum_of_exp(p.n, x, shift);
    const double lse = total == 0 ? __builtin_nan("") : ::log(total) + double(shift);
    const Targets t = targets_of(p, row);
    double loss = 0;
    if (t.hot != 0) loss += t.hot * (lse - double(x[p.labels[row]]));
    if (t.even != 0) loss += t.even * (double(p.n) * lse - sum_of(p.n, x));
    static_cast<T*>(p.lse)[row] = T(lse);
    losses[row] = loss;
  });
  T* out = static_cast<T*>(p.loss);
  if (p.reduction == Mean::none) {
    for (Index i = 0; i < p.rows; ++i) out[i] = T(losses[i]);
    return;
  }
  double sum = 0;
  for (Index i = 0; i < p.rows; ++i) sum += losses[i];
  *out = T(sum / divisor_of(p));
}

template <class T>
void cross_entropy_grad(const CrossEntropyGrad& p) {
  const double divisor = divisor_of(p.of);
  for_rows(p.of.rows, p.of.n, [=](Index start) {
    const Index row = start / p.of.n;
    const T* x = static_cast<const T*>(p.of.logits) + start;
    T* dx = static_cast<T*>(p.dlogits) + start;
    const Targets t = targets_of(p.of, row);
    const double scale = double(static_cast<const T*>(p.g_loss)[p.of.reduction == Mean::none ? row : 0]) / divisor;
    const T factor = T(scale * t.total + double(static_cast<const T*>(p.g_lse)[row])), even = T(scale * t.even);
    const T lse = static_cast<const T*>(p.of.lse)[row];
    map_row(p.of.n, dx,
            [=](Index i, auto count) DL_INLINE_LAMBDA { return exp(load(x + i, count) - lse) * factor - even; });
    if (t.hot != 0) dx[p.of.labels[row]] -= T(scale * t.hot);
  });
}

template <class T>
SoftmaxKernels::Of of() {
  return {softmax<T>, log_softmax<T>, softmax_grad<T>, log_softmax_grad<T>, cross_entropy<T>, cross_entropy_grad<T>};
}

}  // namespace

void fill_softmax(Kernels& kernels) { kernels.softmax = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
