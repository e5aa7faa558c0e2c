#include "softmax.h"

#include "isa.h"
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
void softmax(Index rows, Index n, const void* from, void* to) {
  for_rows(rows, n, [=](Index start) {
    const T* x = static_cast<const T*>(from) + start;
    T* y = static_cast<T*>(to) + start;
    const T shift = shift_of(n, x);
    map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return exp(load(x + i, count) - shift); });
    const double total = sum_of(n, y);
    const T scale = T(1 / (total == 0 ? 1 : total));
    map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return load(y + i, count) * scale; });
  });
}

template <class T>
void log_softmax(Index rows, Index n, const void* from, void* to) {
  for_rows(rows, n, [=](Index start) {
    const T* x = static_cast<const T*>(from) + start;
    T* y = static_cast<T*>(to) + start;
    const T shift = shift_of(n, x);
    map_row(n, y, [=](Index i, auto count) DL_INLINE_LAMBDA { return exp(load(x + i, count) - shift); });
    const double total = sum_of(n, y);
    const T log_total = T(total == 0 ? 0 : ::log(total));
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

template <class T>
SoftmaxKernels::Of of() {
  return {softmax<T>, log_softmax<T>, softmax_grad<T>, log_softmax_grad<T>};
}

}  // namespace

void fill_softmax(Kernels& kernels) { kernels.softmax = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
