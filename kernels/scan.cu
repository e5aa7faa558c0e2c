// Running sums and products of rows, and linear recurrences.
//
// scan_<op>_<dtype>(x, y, rows, n, reverse): y[r][i] = x[r][0] op ... op x[r][i], from the end if reverse; contiguous.
// scan_linear_<dtype>(a, b, y, rows, n, reverse): y[r][i] = a[r][i] * y[r][i - 1] + b[r][i], y[r][-1] being 0.
//   Grid: any, blocks stride over rows; block: 128; shared: a value a warp.
// A row goes through the block in chunks of 512, 4 elements a thread, each chunk after the one before it: the order of
// operations depends on the place in the row alone. Values are in the wide type; of a recurrence they are the maps
// y -> factor * y + sum, joined one after the other.
#include "warp.cuh"

constexpr int kThreads = 128, kWarps = kThreads / kWarp, kOwn = 4;

template <class R>
struct Sum {
  using Value = R;
  DL_DEVICE static R identity() { return R(0); }
  DL_DEVICE static R join(R a, R b) { return a + b; }
};
template <class R>
struct Product {
  using Value = R;
  DL_DEVICE static R identity() { return R(1); }
  DL_DEVICE static R join(R a, R b) { return a * b; }
};

template <class R>
struct Map {
  R factor, sum;
};
template <class R>
struct Linear {
  using Value = Map<R>;
  DL_DEVICE static Map<R> identity() { return {R(1), R(0)}; }
  DL_DEVICE static Map<R> join(Map<R> a, Map<R> b) { return {a.factor * b.factor, b.factor * a.sum + b.sum}; }
};

template <class R>
DL_DEVICE R lane_before(R value, int step) {
  return __shfl_up_sync(kAllLanes, value, step);
}
template <class R>
DL_DEVICE Map<R> lane_before(Map<R> value, int step) {
  return {lane_before(value.factor, step), lane_before(value.sum, step)};
}
template <class R>
DL_DEVICE R last_lane(R value) {
  return __shfl_sync(kAllLanes, value, kWarp - 1);
}
template <class R>
DL_DEVICE Map<R> last_lane(Map<R> value) {
  return {last_lane(value.factor), last_lane(value.sum)};
}

// What all lanes before this one hold, joined, and in `all` what the warp holds.
template <class Op, class V>
DL_DEVICE V before_lane(V value, V& all) {
  const int lane = threadIdx.x % kWarp;
  DL_UNROLL
  for (int step = 1; step < kWarp; step *= 2) {
    const V earlier = lane_before(value, step);
    if (lane >= step) value = Op::join(earlier, value);
  }
  all = last_lane(value);
  const V earlier = lane_before(value, 1);
  return lane == 0 ? Op::identity() : earlier;
}

// store(i, value) of each element, of all load(j) up to it.
template <class Op, class Load, class Store>
DL_DEVICE void scan(int rows, int n, int reverse, Load load, Store store) {
  using V = typename Op::Value;
  __shared__ V of_warp[kWarps];
  const int warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const long long begin = (long long)row * n;
    V carry = Op::identity();
    DL_ROLLED
    for (int from = 0; from < n; from += kThreads * kOwn) {
      const int first = from + threadIdx.x * kOwn;
      V value[kOwn], all;
      DL_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int i = first + j;
        value[j] = i < n ? load(begin + (reverse ? n - 1 - i : i)) : Op::identity();
        if (j > 0) value[j] = Op::join(value[j - 1], value[j]);
      }
      V before = before_lane<Op>(value[kOwn - 1], all);
      if (threadIdx.x % kWarp == 0) of_warp[warp] = all;
      __syncthreads();
      V earlier = carry;
      DL_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) earlier = Op::join(earlier, of_warp[w]);
        carry = Op::join(carry, of_warp[w]);
      }
      before = Op::join(earlier, before);
      DL_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int i = first + j;
        if (i < n) store(begin + (reverse ? n - 1 - i : i), Op::join(before, value[j]));
      }
      __syncthreads();
    }
  }
}

template <template <class> class Op, class T>
DL_DEVICE void accumulate(const T* x, T* y, int rows, int n, int reverse) {
  using R = wide<T>;
  scan<Op<R>>(
      rows, n, reverse, [=](long long i) { return R(widen(x[i])); },
      [=](long long i, R value) { y[i] = narrow<T>(value); });
}

template <class T>
DL_DEVICE void recur(const T* a, const T* b, T* y, int rows, int n, int reverse) {
  using R = wide<T>;
  scan<Linear<R>>(
      rows, n, reverse, [=](long long i) { return Map<R>{widen(a[i]), widen(b[i])}; },
      [=](long long i, Map<R> value) { y[i] = narrow<T>(value.sum); });
}

#define DL_SCAN(T, suffix)                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads)                      \
      scan_sum_##suffix(const T* x, T* y, int rows, int n, int reverse) {     \
    accumulate<Sum>(x, y, rows, n, reverse);                                  \
  }                                                                           \
  DL_EXPORT(scan_sum_##suffix)                                                \
  extern "C" __global__ void __launch_bounds__(kThreads)                      \
      scan_product_##suffix(const T* x, T* y, int rows, int n, int reverse) { \
    accumulate<Product>(x, y, rows, n, reverse);                              \
  }                                                                           \
  DL_EXPORT(scan_product_##suffix)
#define DL_SCAN_LINEAR(T, suffix)                                                        \
  extern "C" __global__ void __launch_bounds__(kThreads)                                 \
      scan_linear_##suffix(const T* a, const T* b, T* y, int rows, int n, int reverse) { \
    recur(a, b, y, rows, n, reverse);                                                    \
  }                                                                                      \
  DL_EXPORT(scan_linear_##suffix)
DL_FOR_FLOATS(DL_SCAN)
DL_FOR_FLOATS(DL_SCAN_LINEAR)
DL_SCAN(unsigned long long, i64)  // int64: sums and products wrap around
