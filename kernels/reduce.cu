// Reductions over the last axis (rows) or a middle axis (columns): sums, extremes, moments, log-sum-exp, positions.
//
// reduce_warp_<op>_<in>_<out>(x, y, rows, n, finish): y[r] of x[r][0..n), one warp a row, for short rows.
//   Grid: any, warps stride over rows; block: 256 (8 warps); no shared memory.
// reduce_block_<op>_<in>_<out>(x, y, rows, n, finish): the same with one block a row.
//   Grid: any, blocks stride over rows; block: 256; shared: one accumulator a warp.
// reduce_columns_<op>_<in>_<out>(x, y, n, columns, finish): y[o][c] of x[o][0..n)[c], 32 columns a block.
//   Threads have a vector of a row each, two or four rows at once.
//   Grid: outer x (columns / 32 rounded up); block: 256; shared: 32 accumulators a warp.
// Accumulators are in the wide type; their order depends on the shape alone.
#include "moments.cuh"

struct Finish {
  double divisor;     // of a sum: 1, or how many elements a mean is of
  double correction;  // of a variance: its divisor is n - correction
  long long count;    // n of the whole reduction
  int vectors;        // of rows, as row.cuh has it
  int root;           // whether a variance becomes a deviation
};

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

template <class R>
struct Variance : Moments<R> {
  DL_DEVICE void add(R x, long long) { Moments<R>::add(x); }
  DL_DEVICE Variance partner(int mask) const {
    return {{lane_xor(this->count, mask), lane_xor(this->mean, mask), lane_xor(this->squares, mask)}};
  }
  DL_DEVICE R result(const Finish& finish) const {
    const R left = R(double(finish.count) - finish.correction);
    const R variance = this->squares / (left > R(0) ? left : R(0));
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
DL_DEVICE void add_row(Acc& acc, const T* x, long long n, int lane, int lanes, int vectors) {
  constexpr int V = kPerVector<T>;
  if (vectors == kAligned) {
    DL_TWICE
    for (long long i = (long long)lane * V; i < n; i += (long long)lanes * V) {
      const Vec<T, V> chunk = *reinterpret_cast<const Vec<T, V>*>(x + i);
      DL_UNROLL
      for (int j = 0; j < V; ++j) acc.add(widen(chunk.at[j]), i + j);
    }
  } else if (vectors == kLoose) {
    DL_ROLLED
    for (long long i = (long long)lane * V; i < n; i += (long long)lanes * V)
      for (int j = 0; j < V; ++j) acc.add(widen(x[i + j]), i + j);
  } else {
    for (long long i = lane; i < n; i += lanes) acc.add(widen(x[i]), i);
  }
}

template <class Acc, class T, class U>
DL_DEVICE void reduce_warp(const T* x, U* y, int rows, long long n, const Finish& finish) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x * kWarpsPerBlock + warp; row < rows; row += gridDim.x * kWarpsPerBlock) {
    Acc acc;
    add_row(acc, x + row * n, n, lane, kWarp, finish.vectors);
    merge_lanes(acc);
    if (lane == 0) y[row] = stored<U>(acc.result(finish));
  }
}

template <class Acc, class T, class U>
DL_DEVICE void reduce_block(const T* x, U* y, int rows, long long n, const Finish& finish) {
  __shared__ unsigned char memory[kWarpsPerBlock * sizeof(Acc)] __attribute__((aligned(8)));
  Acc* of_warp = reinterpret_cast<Acc*>(memory);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    Acc acc;
    add_row(acc, x + row * n, n, threadIdx.x, kBlock, finish.vectors);
    merge_lanes(acc);
    if (lane == 0) of_warp[warp] = acc;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < kWarpsPerBlock; ++i) acc.merge(of_warp[i]);
      y[row] = stored<U>(acc.result(finish));
    }
    __syncthreads();
  }
}

// ---- columns

constexpr int kColumns = 32;  // of a block

// How many rows a thread loads before it adds them up: fewer where accumulators take many registers.
template <class Acc, class T>
constexpr int kRowsAtOnce = sizeof(Acc) * kPerVector<T> <= 64 ? 4 : 2;

template <int LANES, class T>
DL_DEVICE Vec<T, kPerVector<T>> load_columns(const T* row, int base, int columns, bool vectors) {
  constexpr int V = kPerVector<T>;
  const int lane = threadIdx.x % LANES;
  Vec<T, V> part{};
  if (vectors) return *reinterpret_cast<const Vec<T, V>*>(row + base + lane * V);
  DL_UNROLL
  for (int j = 0; j < V; ++j)
    if (base + j * LANES + lane < columns) part.at[j] = row[base + j * LANES + lane];
  return part;
}

template <int LANES, class Acc, class T>
DL_DEVICE void add_columns(Acc (&acc)[kPerVector<T>], const T* x, int n, int base, int columns, bool vectors) {
  constexpr int kRows = kBlock / LANES, V = kPerVector<T>, kAtOnce = kRowsAtOnce<Acc, T>;
  if (vectors && base + int(threadIdx.x) % LANES * V >= columns) return;
  const long long step = (long long)kRows * columns;
  const T* row = x + (long long)(threadIdx.x / LANES) * columns;
  DL_ROLLED
  for (int left = n - threadIdx.x / LANES; left > 0; left -= kAtOnce * kRows, row += kAtOnce * step) {
    Vec<T, V> part[kAtOnce];
    DL_UNROLL
    for (int k = 0; k < kAtOnce; ++k)
      if (left > k * kRows) part[k] = load_columns<LANES>(row + k * step, base, columns, vectors);
    DL_UNROLL
    for (int k = 0; k < kAtOnce; ++k) {
      if (left <= k * kRows) break;
      DL_UNROLL
      for (int j = 0; j < V; ++j) acc[j].add(widen(part[k].at[j]), n - left + k * kRows);
    }
  }
}

template <class Acc, class T, class U>
DL_DEVICE void reduce_columns(const T* x, U* y, long long n, int columns, const Finish& finish) {
  constexpr int V = kPerVector<T>, kLanes = kColumns / V;
  __shared__ unsigned char memory[kWarpsPerBlock * kColumns * sizeof(Acc)] __attribute__((aligned(8)));
  Acc(*of_warp)[kColumns] = reinterpret_cast<Acc(*)[kColumns]>(memory);
  const int tiles = (columns + kColumns - 1) / kColumns, outer = blockIdx.x / tiles;
  const int base = (blockIdx.x - outer * tiles) * kColumns, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const T* own = x + (long long)outer * n * columns;
  Acc acc[V];
  if (finish.vectors == kAligned) add_columns<kLanes>(acc, own, n, base, columns, true);
  else add_columns<kLanes>(acc, own, n, base, columns, false);
  DL_UNROLL
  for (int j = 0; j < V; ++j) {
    merge_lanes<kLanes>(acc[j]);
    if (lane < kLanes) of_warp[warp][j * kLanes + lane] = acc[j];
  }
  __syncthreads();
  const int column =
      place<T, kLanes>(base, lane % kLanes, lane / kLanes, finish.vectors == kAligned ? kAligned : kSingles);
  if (warp == 0 && column < columns) {
    Acc all = of_warp[0][lane];
    for (int i = 1; i < kWarpsPerBlock; ++i) all.merge(of_warp[i][lane]);
    y[(long long)outer * columns + column] = stored<U>(all.result(finish));
  }
}

// ---- the kernels

// Blocks with rows that a multiprocessor holds at least, 0 for any number: of wide accumulators ptxas aims at more, and
// spills.
template <class Acc, class T>
constexpr int kResident = sizeof(Acc) > 8 && sizeof(T) < 8 ? 5 : 0;

// The same with columns: four rows are under way.
template <class Acc, class T>
constexpr int kResidentColumns = sizeof(Acc) == 8 && sizeof(T) == 4 ? 4 : 0;

#define DL_REDUCE_WARP(op, Acc, T, in, U, out)                                                  \
  extern "C" __global__ void __launch_bounds__(kBlock, (kResident<Acc, T>))                     \
      reduce_warp_##op##_##in##_##out(const T* x, U* y, int rows, long long n, Finish finish) { \
    reduce_warp<Acc, T, U>(x, y, rows, n, finish);                                              \
  }                                                                                             \
  DL_EXPORT(reduce_warp_##op##_##in##_##out)
#define DL_REDUCE_BLOCK(op, Acc, T, in, U, out)                                                  \
  extern "C" __global__ void __launch_bounds__(kBlock, (kResident<Acc, T>))                      \
      reduce_block_##op##_##in##_##out(const T* x, U* y, int rows, long long n, Finish finish) { \
    reduce_block<Acc, T, U>(x, y, rows, n, finish);                                              \
  }                                                                                              \
  DL_EXPORT(reduce_block_##op##_##in##_##out)
#define DL_REDUCE_COLUMNS(op, Acc, T, in, U, out)                                                     \
  extern "C" __global__ void __launch_bounds__(kBlock, (kResidentColumns<Acc, T>))                    \
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
DL_REDUCE_FLOATS(var, Variance<float>, Variance<double>)
DL_REDUCE_FLOATS(logsumexp, LogSumExp<float>, LogSumExp<double>)
DL_REDUCE_TO_INDEX(argmax, FirstLargest32, FirstLargest64)
DL_REDUCE_TO_INDEX(argmin, FirstSmallest32, FirstSmallest64)
DL_REDUCE(any, Largest32, bool, b8, bool, b8)
DL_REDUCE(all, Smallest32, bool, b8, bool, b8)

// ---- whole numbers, and bools as bytes 0 and 1: sums and products are int64 and wrap around

using Word64 = unsigned long long;

template <int kSign>  // 1: largest, -1: smallest
struct WholeExtreme {
  long long value = kSign > 0 ? -0x7fffffffffffffffll - 1 : 0x7fffffffffffffffll;
  DL_DEVICE void add(long long x, long long) {
    if (kSign > 0 ? x > value : x < value) value = x;
  }
  DL_DEVICE void merge(const WholeExtreme& other) { add(other.value, 0); }
  DL_DEVICE WholeExtreme partner(int mask) const { return {lane_xor(value, mask)}; }
  DL_DEVICE long long result(const Finish&) const { return value; }
};

template <int kSign>  // position of the first largest or smallest: ~x turns the order round without overflow
struct WholePosition : Position<long long, 1> {
  DL_DEVICE void add(long long x, long long at) { merge({kSign > 0 ? x : ~x, at}); }
};

DL_REDUCE(sum, Sum<Word64>, unsigned char, b8, long long, i64)
DL_REDUCE(sum, Sum<Word64>, int, i32, long long, i64)
DL_REDUCE(sum, Sum<Word64>, Word64, i64, Word64, i64)
DL_REDUCE(prod, Product<Word64>, Word64, i64, Word64, i64)
DL_REDUCE(max, WholeExtreme<1>, long long, i64, long long, i64)
DL_REDUCE(min, WholeExtreme<-1>, long long, i64, long long, i64)
DL_REDUCE(argmax, WholePosition<1>, long long, i64, long long, i64)
DL_REDUCE(argmin, WholePosition<-1>, long long, i64, long long, i64)
