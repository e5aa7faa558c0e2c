// Reductions over the last axis (rows) or a middle axis (columns): sums, extremes, moments, log-sum-exp, positions.
//
// reduce_warp_<op>_<in>_<out>(x, y, rows, n, finish): y[r] of x[r][0..n), one warp a row, for short rows.
//   Grid: any, warps stride over rows; block: 256 (8 warps); no shared memory.
// reduce_block_<op>_<in>_<out>(x, y, rows, n, finish): the same with one block a row.
//   Grid: any, blocks stride over rows; block: 256; shared: one accumulator a warp.
// reduce_columns_<op>_<in>_<out>(x, y, n, columns, finish): y[o][c] of x[o][0..n)[c].
//   Grid: outer x (columns / 32 rounded up); block: (32, 8); shared: one accumulator a thread.
// Accumulators are in the wide type; their order depends on the shape alone. 16-byte loads where finish.vectors says
// so.
#include "warp.cuh"

struct Finish {
  double divisor;     // of a sum: 1, or how many elements a mean is of
  double correction;  // of a variance: its divisor is n - correction
  long long count;    // n of the whole reduction
  int vectors;        // whether rows begin at multiples of 16 bytes and are whole vectors
  int root;           // whether a variance becomes a deviation
};

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kRowsOfTile = 8;

// ---- accumulators

template <class R>
struct Sum {
  R value = R(0);
  DL_DEVICE void add(R x, long long) { value += x; }
  DL_DEVICE void merge(const Sum& other) { value += other.value; }
  DL_DEVICE Sum partner(int mask) const { return {lane_xor(value, mask)}; }
  DL_DEVICE R result(const Finish& finish) const { return value / R(finish.divisor); }
};

template <class R>
struct Product {
  R value = R(1);
  DL_DEVICE void add(R x, long long) { value *= x; }
  DL_DEVICE void merge(const Product& other) { value *= other.value; }
  DL_DEVICE Product partner(int mask) const { return {lane_xor(value, mask)}; }
  DL_DEVICE R result(const Finish&) const { return value; }
};

template <class R, int kSign>  // 1: largest, -1: smallest; NaN wins
struct Extreme {
  R value = R(-kSign) * R(INFINITY);
  DL_DEVICE void add(R x, long long) {
    if (x != x || R(kSign) * x > R(kSign) * value) value = x;
  }
  DL_DEVICE void merge(const Extreme& other) {
    if (value == value) add(other.value, 0);
  }
  DL_DEVICE Extreme partner(int mask) const { return {lane_xor(value, mask)}; }
  DL_DEVICE R result(const Finish&) const { return value; }
};

template <class R, int kSign>  // position of the first largest or smallest, or of the first NaN
struct Position {
  R value = R(0);
  long long index = -1;
  DL_DEVICE void add(R x, long long at) { merge({x, at}); }
  DL_DEVICE void merge(const Position& other) {
    if (other.index >= 0 && (index < 0 || better(other))) *this = other;
  }
  DL_DEVICE bool better(const Position& other) const {
    const bool is_nan = value != value, other_is_nan = other.value != other.value;
    if (is_nan != other_is_nan) return other_is_nan;
    if (!is_nan && other.value != value) return R(kSign) * other.value > R(kSign) * value;
    return other.index < index;
  }
  DL_DEVICE Position partner(int mask) const { return {lane_xor(value, mask), lane_xor(index, mask)}; }
  DL_DEVICE long long result(const Finish&) const { return index; }
};

// Count, mean and sum of squared distances from it: Chan, Golub and LeVeque 1983, formula 2.1.
template <class R>
struct Moments {
  R count = R(0), mean = R(0), squares = R(0);
  DL_DEVICE void add(R x, long long) {
    count += R(1);
    const R off = x - mean;
    mean += off / count;
    squares = fma(off, x - mean, squares);
  }
  DL_DEVICE void merge(const Moments& other) {
    if (other.count == R(0)) return;
    const R total = count + other.count, off = other.mean - mean;
    mean += off * (other.count / total);
    squares += other.squares + off * off * (count * (other.count / total));
    count = total;
  }
  DL_DEVICE Moments partner(int mask) const {
    return {lane_xor(count, mask), lane_xor(mean, mask), lane_xor(squares, mask)};
  }
  DL_DEVICE R result(const Finish& finish) const {
    const R left = R(double(finish.count) - finish.correction);
    const R variance = squares / (left > R(0) ? left : R(0));
    return finish.root ? sqrt(variance) : variance;
  }
};

// Sum of e**(x - top) beside the top.
template <class R>
struct LogSumExp {
  R top = R(-INFINITY), total = R(0);
  DL_DEVICE void add(R x, long long) { merge({x, R(1)}); }
  DL_DEVICE void merge(const LogSumExp& other) {
    if (other.top == R(-INFINITY)) return;
    if (other.top == top) {
      total += other.total;
    } else if (other.top > top) {
      total = total * exp(top - other.top) + other.total;
      top = other.top;
    } else {
      total += other.total * exp(other.top - top);
    }
  }
  DL_DEVICE LogSumExp partner(int mask) const { return {lane_xor(top, mask), lane_xor(total, mask)}; }
  DL_DEVICE R result(const Finish&) const { return log(total) + top; }
};

template <class U, class V>
DL_DEVICE U stored(V value) {
  return U(value);
}
template <>
DL_DEVICE __half stored<__half>(float value) {
  return __float2half(value);
}
template <>
DL_DEVICE __nv_bfloat16 stored<__nv_bfloat16>(float value) {
  return __float2bfloat16(value);
}
template <>
DL_DEVICE bool stored<bool>(float value) {
  return value > 0.0f;
}

// ---- rows

template <class Acc, class T>
DL_DEVICE void add_row(Acc& acc, const T* x, long long n, int lane, int lanes, bool vectors) {
  constexpr int V = kPerVector<T>;
  if (vectors) {
    DL_TWICE
    for (long long i = (long long)lane * V; i < n; i += (long long)lanes * V) {
      const Vec<T, V> chunk = *reinterpret_cast<const Vec<T, V>*>(x + i);
      DL_UNROLL
      for (int j = 0; j < V; ++j) acc.add(widen(chunk.at[j]), i + j);
    }
  } else {
    for (long long i = lane; i < n; i += lanes) acc.add(widen(x[i]), i);
  }
}

template <class Acc, class T, class U>
DL_DEVICE void reduce_warp(const T* x, U* y, int rows, long long n, const Finish& finish) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x * kWarps + warp; row < rows; row += gridDim.x * kWarps) {
    Acc acc;
    add_row(acc, x + row * n, n, lane, kWarp, finish.vectors);
    merge_lanes(acc);
    if (lane == 0) y[row] = stored<U>(acc.result(finish));
  }
}

template <class Acc, class T, class U>
DL_DEVICE void reduce_block(const T* x, U* y, int rows, long long n, const Finish& finish) {
  __shared__ unsigned char memory[kWarps * sizeof(Acc)] __attribute__((aligned(8)));
  Acc* of_warp = reinterpret_cast<Acc*>(memory);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    Acc acc;
    add_row(acc, x + row * n, n, threadIdx.x, kThreads, finish.vectors);
    merge_lanes(acc);
    if (lane == 0) of_warp[warp] = acc;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < kWarps; ++i) acc.merge(of_warp[i]);
      y[row] = stored<U>(acc.result(finish));
    }
    __syncthreads();
  }
}

// ---- columns

template <class Acc, class T, class U>
DL_DEVICE void reduce_columns(const T* x, U* y, long long n, int columns, const Finish& finish) {
  __shared__ unsigned char memory[kRowsOfTile * kWarp * sizeof(Acc)] __attribute__((aligned(8)));
  Acc(*of_thread)[kWarp] = reinterpret_cast<Acc(*)[kWarp]>(memory);
  const int tiles = (columns + kWarp - 1) / kWarp, outer = blockIdx.x / tiles;
  const int column = (blockIdx.x - outer * tiles) * kWarp + threadIdx.x;
  Acc acc;
  if (column < columns) {
    const T* own = x + (long long)outer * n * columns + column;
    for (long long i = threadIdx.y; i < n; i += kRowsOfTile) acc.add(widen(own[i * columns]), i);
  }
  of_thread[threadIdx.y][threadIdx.x] = acc;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < kRowsOfTile; ++i) acc.merge(of_thread[i][threadIdx.x]);
    y[(long long)outer * columns + column] = stored<U>(acc.result(finish));
  }
}

// ---- the kernels

#define DL_REDUCE_WARP(op, Acc, T, in, U, out)                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads)                                        \
      reduce_warp_##op##_##in##_##out(const T* x, U* y, int rows, long long n, Finish finish) { \
    reduce_warp<Acc, T, U>(x, y, rows, n, finish);                                              \
  }                                                                                             \
  DL_EXPORT(reduce_warp_##op##_##in##_##out)
#define DL_REDUCE_BLOCK(op, Acc, T, in, U, out)                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads)                                         \
      reduce_block_##op##_##in##_##out(const T* x, U* y, int rows, long long n, Finish finish) { \
    reduce_block<Acc, T, U>(x, y, rows, n, finish);                                              \
  }                                                                                              \
  DL_EXPORT(reduce_block_##op##_##in##_##out)
#define DL_REDUCE_COLUMNS(op, Acc, T, in, U, out)                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads)                                              \
      reduce_columns_##op##_##in##_##out(const T* x, U* y, long long n, int columns, Finish finish) { \
    reduce_columns<Acc, T, U>(x, y, n, columns, finish);                                              \
  }                                                                                                   \
  DL_EXPORT(reduce_columns_##op##_##in##_##out)
#define DL_REDUCE(op, Acc, T, in, U, out) \
  DL_REDUCE_WARP(op, Acc, T, in, U, out)  \
  DL_REDUCE_BLOCK(op, Acc, T, in, U, out) \
  DL_REDUCE_COLUMNS(op, Acc, T, in, U, out)

#define DL_REDUCE_FLOATS(op, F32, F64)         \
  DL_REDUCE(op, F32, float, f32, float, f32)   \
  DL_REDUCE(op, F64, double, f64, double, f64) \
  DL_REDUCE(op, F32, __half, f16, __half, f16) \
  DL_REDUCE(op, F32, __nv_bfloat16, bf16, __nv_bfloat16, bf16)

// the two passes over a long row of 16-bit floats: parts to float, and these, which are few, back
#define DL_REDUCE_PASSES(op, F32, T, suffix)      \
  DL_REDUCE_WARP(op, F32, T, suffix, float, f32)  \
  DL_REDUCE_BLOCK(op, F32, T, suffix, float, f32) \
  DL_REDUCE_WARP(op, F32, float, f32, T, suffix)

#define DL_REDUCE_TO_INDEX(op, F32, F64)          \
  DL_REDUCE(op, F32, float, f32, long long, i64)  \
  DL_REDUCE(op, F64, double, f64, long long, i64) \
  DL_REDUCE(op, F32, __half, f16, long long, i64) \
  DL_REDUCE(op, F32, __nv_bfloat16, bf16, long long, i64)

using Largest32 = Extreme<float, 1>;
using Largest64 = Extreme<double, 1>;
using Smallest32 = Extreme<float, -1>;
using Smallest64 = Extreme<double, -1>;
using FirstLargest32 = Position<float, 1>;
using FirstLargest64 = Position<double, 1>;
using FirstSmallest32 = Position<float, -1>;
using FirstSmallest64 = Position<double, -1>;

DL_REDUCE_FLOATS(sum, Sum<float>, Sum<double>)
DL_REDUCE_PASSES(sum, Sum<float>, __half, f16)
DL_REDUCE_PASSES(sum, Sum<float>, __nv_bfloat16, bf16)
DL_REDUCE_FLOATS(prod, Product<float>, Product<double>)
DL_REDUCE_FLOATS(max, Largest32, Largest64)
DL_REDUCE_FLOATS(min, Smallest32, Smallest64)
DL_REDUCE_FLOATS(var, Moments<float>, Moments<double>)
DL_REDUCE_FLOATS(logsumexp, LogSumExp<float>, LogSumExp<double>)
DL_REDUCE_TO_INDEX(argmax, FirstLargest32, FirstLargest64)
DL_REDUCE_TO_INDEX(argmin, FirstSmallest32, FirstSmallest64)
DL_REDUCE(any, Largest32, bool, b8, bool, b8)
DL_REDUCE(all, Smallest32, bool, b8, bool, b8)
