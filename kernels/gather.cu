// Slices and elements at positions of an axis, and their adjoint, updates added up at positions. Arrays are [outer, n,
// inner] before and [outer, count, inner] after; negative positions count from the end.
//
// gather_rows_b<bytes>(x, index, y, record, place): y[o][j][i] = x[o][index[j]][i]; elements of 1, 2, 4, 8 or 16 bytes.
// gather_elements_b<bytes>(x, index, y, record, place): y[o][j][i] = x[o][index[o][j][i]][i].
// gather_flatten(i0, i1, i2, i3, y, record0, record1, record2, record3, sizes, count): y[k] = the position in axes of
//   these sizes, taken together, of positions i0[k], ... in each, each with its record; null pointers come last and
//   have size 1. Where a position lies outside its axis, y[k] lies outside too. Grid: any, threads stride over y;
//   block: 256; no shared memory.
// gather_add_rows_<dtype>(x, index, updates, y, record, place): y[o][r][i] = x[o][r][i] + the sum of updates[o][j][i]
//   over all j with index[o * index_stride + j] = r, in their order; x null: zeros. Row `skip` receives nothing.
//   Grid: outer x row tiles x column tiles; block: 128; shared: sums of the tile in the wide type, and a list.
//   Every block reads all positions and lists those in its tile; a thread owns a column, and rows in turn if the tile
//   has fewer columns than there are threads.
// gather_add_vectors_<dtype>: the same, where inner is a multiple of 16 bytes; a thread owns 16 bytes of columns.
// gather_add_elements_<dtype>(index, updates, y, record, place): the same into y (wide type) with index[o][j][i].
//   Grid: any, a thread goes down a column; block: 256; no shared memory.
// gather_last(index, last, record, place): last[o][r][i] = 1 + the last j with index[o][j][i] = r; zeros before.
// gather_replace_b<bytes>(x, updates, last, y, place): y[o][r][i] = updates[o][last - 1][i], or x[o][r][i] where last
// is
//   0. Grid: any, threads stride; block: 256; no shared memory.
// A position outside [-n, n) gathers zeros, adds nothing, and is noted in `record`, if there is one. All sizes below
// 2^31.
#include "refuse.cuh"
#include "warp.cuh"

struct Place {
  unsigned outer, n, count, inner;
  unsigned index_stride;  // from the positions of one o to those of the next
  int columns;            // threads of a row of a tile of gather_add_rows: a power of two up to 128
  int skip;               // row that receives nothing, or -1
};

constexpr long long kOutside = 1ll << 62;

// The row that the position at index[at] points to; n where it lies outside.
DL_DEVICE unsigned row_of(long long position, unsigned at, unsigned n, Record* record) {
  const long long row = position < 0 ? position + n : position;
  if (row >= 0 && row < n) return unsigned(row);
  if (record != nullptr) refuse(record, at, position);
  return n;
}

DL_DEVICE unsigned row_at(const long long* index, unsigned at, unsigned n, Record* record) {
  return row_of(index[at], at, n, record);
}

template <class T, class At>
DL_DEVICE void gather(const T* x, const long long* index, T* y, Record* record, const Place& p, const At& at) {
  const unsigned size = p.outer * p.count * p.inner;
  DL_TWICE
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
    const unsigned row = i / p.inner, o = row / p.count;
    const unsigned from = row_at(index, at(i, row - o * p.count), p.n, record);
    y[i] = from < p.n ? x[((long long)o * p.n + from) * p.inner + (i - row * p.inner)] : T{};
  }
}

#define DL_GATHER_ROWS(T, bytes)                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                             \
      gather_rows_b##bytes(const T* x, const long long* index, T* y, Record* record, Place p) { \
    gather(x, index, y, record, p, [](unsigned, unsigned j) { return j; });                     \
  }                                                                                             \
  DL_EXPORT(gather_rows_b##bytes)
#define DL_GATHER_ELEMENTS(T, bytes)                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                 \
      gather_elements_b##bytes(const T* x, const long long* index, T* y, Record* record, Place p) { \
    gather(x, index, y, record, p, [](unsigned i, unsigned) { return i; });                         \
  }                                                                                                 \
  DL_EXPORT(gather_elements_b##bytes)
#define DL_GATHER(T, bytes) DL_GATHER_ROWS(T, bytes) DL_GATHER_ELEMENTS(T, bytes)
DL_GATHER(unsigned char, 1)
DL_GATHER(unsigned short, 2)
DL_GATHER(unsigned, 4)
DL_GATHER(unsigned long long, 8)
DL_GATHER_ROWS(uint4, 16)

struct Sizes {
  unsigned axis[4];
};

extern "C" __global__ void __launch_bounds__(256)
    gather_flatten(const long long* i0, const long long* i1, const long long* i2, const long long* i3, long long* y,
                   Record* r0, Record* r1, Record* r2, Record* r3, Sizes sizes, unsigned count) {
  const long long* const index[4] = {i0, i1, i2, i3};
  Record* const record[4] = {r0, r1, r2, r3};
  for (unsigned k = blockIdx.x * blockDim.x + threadIdx.x; k < count; k += gridDim.x * blockDim.x) {
    long long at = 0;
    bool inside = true;
    DL_UNROLL
    for (int axis = 0; axis < 4; ++axis) {
      const unsigned n = sizes.axis[axis], row = index[axis] == nullptr ? 0 : row_at(index[axis], k, n, record[axis]);
      inside = inside && row < n;
      at = at * n + row;
    }
    y[k] = inside ? at : kOutside;
  }
}
DL_EXPORT(gather_flatten)

// ---- adding up

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kTile = 4096;     // sums of a block
constexpr int kPerThread = 16;  // positions that a thread reads between barriers
constexpr int kChunk = kPerThread * kThreads;
constexpr int kBatch = 8;  // updates that a thread reads before it adds them

// The positions of a chunk that lie in a tile, in their order: row of the tile << 16 | place in the chunk.
struct Found {
  unsigned hit[kChunk];
  int counts[kWarps];
};

// Lists the positions among [from, from + kChunk) that point to rows [first, first + rows); returns how many. The first
// of all positions is index[start]. A warp takes positions side by side.
DL_DEVICE int list_chunk(const long long* index, unsigned start, Record* record, const Place& p, unsigned from,
                         unsigned first, unsigned rows, Found& found) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const unsigned own = warp * (kChunk / kWarps) + lane;
  long long position[kPerThread];
  unsigned row[kPerThread], mask[kPerThread];
  int count = 0;
  DL_UNROLL
  for (int k = 0; k < kPerThread; ++k) {
    const unsigned j = from + own + k * kWarp;
    position[k] = j < p.count ? index[start + j] : 0;
  }
  DL_UNROLL
  for (int k = 0; k < kPerThread; ++k) {
    const unsigned j = from + own + k * kWarp;
    const unsigned to = j < p.count ? row_of(position[k], start + j, p.n, record) : p.n;
    row[k] = to - first;  // beyond all rows if it wraps around
    mask[k] = __ballot_sync(kAllLanes, row[k] < rows && int(to) != p.skip);
    count += __popc(mask[k]);
  }
  if (lane == 0) found.counts[warp] = count;
  __syncthreads();
  int slot = 0, total = 0;
  DL_UNROLL
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) slot = total;
    total += found.counts[w];
  }
  DL_UNROLL
  for (int k = 0; k < kPerThread; ++k) {
    if (mask[k] >> lane & 1u)
      found.hit[slot + __popc(mask[k] & ((1u << lane) - 1u))] = row[k] << 16 | (own + k * kWarp);
    slot += __popc(mask[k]);
  }
  __syncthreads();
  return total;
}

// A thread has N columns side by side; `p.columns` threads have a row.
template <int N, class T>
DL_DEVICE void add_rows(const T* x, const long long* index, const T* updates, T* y, Record* record, const Place& p) {
  using R = wide<T>;
  using Sums = Vec<R, N>;
  using Own = Vec<T, N>;
  __shared__ Sums sum[kTile / N + kThreads];  // and a row for what is not this thread's
  __shared__ Found found;
  const unsigned rows = kTile / N / p.columns, groups = kThreads / p.columns;
  const unsigned group = threadIdx.x / p.columns, own = threadIdx.x % p.columns;
  const unsigned width = p.columns * N, column_tiles = (p.inner + width - 1) / width;
  const unsigned row_tiles = (p.n + rows - 1) / rows, tile = blockIdx.x / column_tiles, o = tile / row_tiles;
  const unsigned first = (tile - o * row_tiles) * rows, column = blockIdx.x % column_tiles * width + own * N;
  const unsigned height = p.n - first < rows ? p.n - first : rows;
  const long long out = ((long long)o * p.n + first) * p.inner + column;
  const bool inside = column < p.inner;
  sum[kTile / N + threadIdx.x] = Sums{};
  for (unsigned r = group; r < height; r += groups) {
    Sums before = {};
    if (x != nullptr && inside) {
      const Own of_x = *reinterpret_cast<const Own*>(x + out + (long long)r * p.inner);
      DL_UNROLL
      for (int e = 0; e < N; ++e) before.at[e] = widen(of_x.at[e]);
    }
    sum[r * p.columns + own] = before;
  }
  const T* update = updates + (long long)o * p.count * p.inner + column;
  DL_ROLLED
  for (unsigned from = 0; from < p.count; from += kChunk) {
    const int total = list_chunk(index, o * p.index_stride, record, p, from, first, height, found);
    DL_ROLLED
    for (int i = 0; i < total; i += kBatch) {
      Own read[kBatch];
      unsigned row[kBatch];
      DL_UNROLL
      for (int k = 0; k < kBatch; ++k) {
        const unsigned hit = found.hit[i + k < total ? i + k : i];
        const bool mine = i + k < total && inside && (hit >> 16) % groups == group;
        row[k] = mine ? (hit >> 16) * p.columns + own : kTile / N + threadIdx.x;
        read[k] = Own{};
        if (mine) read[k] = *reinterpret_cast<const Own*>(update + (long long)(from + (hit & 0xffffu)) * p.inner);
      }
      DL_UNROLL
      for (int k = 0; k < kBatch; ++k) {
        Sums after = sum[row[k]];
        DL_UNROLL
        for (int e = 0; e < N; ++e) after.at[e] += widen(read[k].at[e]);
        sum[row[k]] = after;
      }
    }
  }
  for (unsigned r = group; inside && r < height; r += groups) {
    const Sums after = sum[r * p.columns + own];
    Own of_y;
    DL_UNROLL
    for (int e = 0; e < N; ++e) of_y.at[e] = narrow<T>(after.at[e]);
    *reinterpret_cast<Own*>(y + out + (long long)r * p.inner) = of_y;
  }
}

template <class T>
DL_DEVICE void add_elements(const long long* index, const T* updates, wide<T>* y, Record* record, const Place& p) {
  const unsigned columns = p.outer * p.inner;
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < columns; i += gridDim.x * blockDim.x) {
    const unsigned o = i / p.inner, column = i - o * p.inner;
    const unsigned from = o * p.count * p.inner + column;
    wide<T>* out = y + (long long)o * p.n * p.inner + column;
    DL_ROLLED
    for (unsigned j = 0; j < p.count; ++j) {
      const unsigned at = from + j * p.inner, row = row_at(index, at, p.n, record);
      if (row < p.n) out[(long long)row * p.inner] += widen(updates[at]);
    }
  }
}

#define DL_GATHER_ADD(T, suffix)                                                                                      \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                              \
      gather_add_rows_##suffix(const T* x, const long long* index, const T* updates, T* y, Record* record, Place p) { \
    add_rows<1>(x, index, updates, y, record, p);                                                                     \
  }                                                                                                                   \
  DL_EXPORT(gather_add_rows_##suffix)                                                                                 \
  extern "C" __global__ void __launch_bounds__(kThreads) gather_add_vectors_##suffix(                                 \
      const T* x, const long long* index, const T* updates, T* y, Record* record, Place p) {                          \
    add_rows<kPerVector<T>>(x, index, updates, y, record, p);                                                         \
  }                                                                                                                   \
  DL_EXPORT(gather_add_vectors_##suffix)                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                   \
      gather_add_elements_##suffix(const long long* index, const T* updates, wide<T>* y, Record* record, Place p) {   \
    add_elements(index, updates, y, record, p);                                                                       \
  }                                                                                                                   \
  DL_EXPORT(gather_add_elements_##suffix)
DL_FOR_FLOATS(DL_GATHER_ADD)

// ---- replacing: of several updates of an element the last one counts, whichever thread comes first

extern "C" __global__ void __launch_bounds__(256)
    gather_last(const long long* index, int* last, Record* record, Place p) {
  const unsigned size = p.outer * p.count * p.inner;
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
    const unsigned row = i / p.inner, o = row / p.count, j = row - o * p.count, to = row_at(index, i, p.n, record);
    if (to < p.n) atomicMax(last + ((long long)o * p.n + to) * p.inner + (i - row * p.inner), int(j) + 1);
  }
}
DL_EXPORT(gather_last)

template <class T>
DL_DEVICE void replace(const T* x, const T* updates, const int* last, T* y, const Place& p) {
  const unsigned size = p.outer * p.n * p.inner;
  DL_TWICE
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
    const unsigned row = i / p.inner, o = row / p.n;
    const int from = last[i] - 1;
    y[i] = from < 0 ? x[i] : updates[((long long)o * p.count + from) * p.inner + (i - row * p.inner)];
  }
}

#define DL_GATHER_REPLACE(T, bytes)                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                           \
      gather_replace_b##bytes(const T* x, const T* updates, const int* last, T* y, Place p) { \
    replace(x, updates, last, y, p);                                                          \
  }                                                                                           \
  DL_EXPORT(gather_replace_b##bytes)
DL_GATHER_REPLACE(unsigned char, 1)
DL_GATHER_REPLACE(unsigned short, 2)
DL_GATHER_REPLACE(unsigned, 4)
DL_GATHER_REPLACE(unsigned long long, 8)
