// Running sums and products of rows, and linear recurrences.
//
// scan_<op>_<dtype>(x, y, rows, n, reverse, vectors): y[r][i] = x[r][0] op ... op x[r][i], from the end if reverse;
//   contiguous. vectors: whether rows begin at multiples of 16 bytes and are whole vectors.
// scan_linear_<dtype>(a, b, y, rows, n, reverse, vectors): y[r][i] = a[r][i] * y[r][i - 1] + b[r][i], y[r][-1] being 0.
//   Grid: any, blocks stride over rows; block: 128; shared: a value a warp.
// A row goes through the block in chunks, a vector of 16 bytes a thread, each chunk after the one before it: the order
// of operations depends on the place in the row alone. Values are in the wide type; of a recurrence they are the maps
// y -> factor * y + sum, joined one after the other.
#include "warp.cuh"

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

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

// Elements first, first + 1, ... of a row that the scan passes from its end if `reverse`.
template <class T>
struct Passed {
  static constexpr int V = kPerVector<T>;
  int n;
  bool reverse, vectors;

  DL_DEVICE int at(int i) const { return reverse ? n - 1 - i : i; }
  DL_DEVICE int vector_at(int first) const { return reverse ? n - V - first : first; }
  DL_DEVICE Vec<T, V> turned(Vec<T, V> chunk) const {
    Vec<T, V> other;
    DL_UNROLL
    for (int j = 0; j < V; ++j) other.at[j] = reverse ? chunk.at[V - 1 - j] : chunk.at[j];
    return other;
  }
  DL_DEVICE Vec<T, V> load(const T* row, int first) const {
    Vec<T, V> chunk{};
    if (vectors) return first < n ? turned(*reinterpret_cast<const Vec<T, V>*>(row + vector_at(first))) : chunk;
    DL_UNROLL
    for (int j = 0; j < V; ++j)
      if (first + j < n) chunk.at[j] = row[at(first + j)];
    return chunk;
  }
  DL_DEVICE void store(T* row, int first, const Vec<T, V>& chunk) const {
    if (vectors) {
      if (first < n) *reinterpret_cast<Vec<T, V>*>(row + vector_at(first)) = turned(chunk);
      return;
    }
    DL_UNROLL
    for (int j = 0; j < V; ++j)
      if (first + j < n) row[at(first + j)] = chunk.at[j];
  }
};

// store(begin, first, values) of V elements of the row that begins there, of all that load(begin, first, values) up to
// them.
template <class Op, int V, class Load, class Store>
DL_DEVICE void scan(int rows, int n, const Load& load, const Store& store) {
  using Value = typename Op::Value;
  __shared__ Value of_warp[kWarps];
  const int warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const long long begin = (long long)row * n;
    Value carry = Op::identity();
    DL_ROLLED
    for (int from = 0; from < n; from += kThreads * V) {
      const int first = from + threadIdx.x * V;
      Value value[V], all;
      load(begin, first, value);
      DL_UNROLL
      for (int j = 0; j < V; ++j) {
        if (first + j >= n) value[j] = Op::identity();
        if (j > 0) value[j] = Op::join(value[j - 1], value[j]);
      }
      Value before = before_lane<Op>(value[V - 1], all);
      if (threadIdx.x % kWarp == 0) of_warp[warp] = all;
      __syncthreads();
      Value earlier = carry;
      DL_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) earlier = Op::join(earlier, of_warp[w]);
        carry = Op::join(carry, of_warp[w]);
      }
      before = Op::join(earlier, before);
      DL_UNROLL
      for (int j = 0; j < V; ++j) value[j] = Op::join(before, value[j]);
      store(begin, first, value);
      __syncthreads();
    }
  }
}

template <template <class> class Op, class T>
DL_DEVICE void accumulate(const T* x, T* y, int rows, const Passed<T>& passed) {
  using R = wide<T>;
  constexpr int V = kPerVector<T>;
  const auto load = [=](long long begin, int first, R(&value)[V]) {
    const Vec<T, V> own = passed.load(x + begin, first);
    DL_UNROLL
    for (int j = 0; j < V; ++j) value[j] = R(widen(own.at[j]));
  };
  const auto store = [=](long long begin, int first, const R(&value)[V]) {
    Vec<T, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = narrow<T>(value[j]);
    passed.store(y + begin, first, out);
  };
  scan<Op<R>, V>(rows, passed.n, load, store);
}

template <class T>
DL_DEVICE void recur(const T* a, const T* b, T* y, int rows, const Passed<T>& passed) {
  using R = wide<T>;
  constexpr int V = kPerVector<T>;
  const auto load = [=](long long begin, int first, Map<R>(&value)[V]) {
    const Vec<T, V> factor = passed.load(a + begin, first), sum = passed.load(b + begin, first);
    DL_UNROLL
    for (int j = 0; j < V; ++j) value[j] = {widen(factor.at[j]), widen(sum.at[j])};
  };
  const auto store = [=](long long begin, int first, const Map<R>(&value)[V]) {
    Vec<T, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = narrow<T>(value[j].sum);
    passed.store(y + begin, first, out);
  };
  scan<Linear<R>, V>(rows, passed.n, load, store);
}

#define DL_SCAN(T, suffix)                                                                 \
  extern "C" __global__ void __launch_bounds__(kThreads)                                   \
      scan_sum_##suffix(const T* x, T* y, int rows, int n, int reverse, int vectors) {     \
    accumulate<Sum>(x, y, rows, {n, reverse != 0, vectors != 0});                          \
  }                                                                                        \
  DL_EXPORT(scan_sum_##suffix)                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads)                                   \
      scan_product_##suffix(const T* x, T* y, int rows, int n, int reverse, int vectors) { \
    accumulate<Product>(x, y, rows, {n, reverse != 0, vectors != 0});                      \
  }                                                                                        \
  DL_EXPORT(scan_product_##suffix)
#define DL_SCAN_LINEAR(T, suffix)                                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads)                                              \
      scan_linear_##suffix(const T* a, const T* b, T* y, int rows, int n, int reverse, int vectors) { \
    recur(a, b, y, rows, {n, reverse != 0, vectors != 0});                                            \
  }                                                                                                   \
  DL_EXPORT(scan_linear_##suffix)
DL_FOR_FLOATS(DL_SCAN)
DL_FOR_FLOATS(DL_SCAN_LINEAR)
DL_SCAN(unsigned long long, i64)  // int64: sums and products wrap around
