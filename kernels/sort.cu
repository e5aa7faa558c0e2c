// Stable sorts of rows, and searches in sorted numbers. NaN counts as larger than every number; zeros are equal.
//
// An element becomes an item: an unsigned key in its order (inverted to sort down) and its place in the row, which
// makes items distinct, so that any algorithm sorts in a stable way. Items are 8 bytes, 16 for keys of 64 bits
// ("wide").
//
// sort_tiles_<dtype>(x, items, values, indices, s): sorts segments of rows, a power of two up to 4096 (2048 wide), by a
//   bitonic network in shared memory; writes items, or where these are null the first `kept` of each row as results:
//   values (or null) and their places in the row.
//   Grid: segments / s.in_block, rounded up; block: 256; dynamic shared: the items of in_block segments.
// sort_merge, sort_merge_wide(in, out, n, run, tiles): merges neighbouring runs of each row, a multiple of 1024 long.
//   Grid: rows x tiles of 1024; block: 256; shared: items of two tiles. Each block finds its part of both runs by
//   bisection (Green, McColl and Bader 2012, "GPU merge path"), and each item its place among those of the other run.
// sort_results_b<bytes>(items, x, values, indices, n, kept, count): results of sorted items, which are wide for 8
// bytes.
//   Grid: any, threads stride over results; block: 256; no shared memory.
// sort_search_<dtype>(boundaries, x, y, n, count, right): how many boundaries come before x (or equal it, if right).
//   Grid: any, threads stride over x; block: 256; no shared memory.
#include "types.cuh"

using Word64 = unsigned long long;
constexpr int kThreads = 256, kMerge = 1024;

// ---- keys

DL_DEVICE unsigned key(float x) {
  if (x != x) return ~0u;
  const unsigned bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits >> 31 ? ~bits : bits | 1u << 31;
}
DL_DEVICE Word64 key(double x) {
  if (x != x) return ~Word64(0);
  const Word64 bits = Word64(__double_as_longlong(x == 0.0 ? 0.0 : x));
  return bits >> 63 ? ~bits : bits | Word64(1) << 63;
}
DL_DEVICE unsigned key(__half x) { return key(__half2float(x)); }
DL_DEVICE unsigned key(__nv_bfloat16 x) { return key(__bfloat162float(x)); }
DL_DEVICE unsigned key(int x) { return unsigned(x) ^ 1u << 31; }
DL_DEVICE Word64 key(long long x) { return Word64(x) ^ Word64(1) << 63; }
DL_DEVICE unsigned key(unsigned char x) { return x; }
DL_DEVICE Word64 key(Word64 x) { return x; }

// ---- items

struct alignas(16) Wider {
  Word64 key, place;
};

DL_DEVICE Word64 item(unsigned key, unsigned place) { return Word64(key) << 32 | place; }
DL_DEVICE Wider item(Word64 key, unsigned place) { return {key, place}; }
DL_DEVICE unsigned place_of(Word64 item) { return unsigned(item); }
DL_DEVICE unsigned place_of(const Wider& item) { return unsigned(item.place); }
DL_DEVICE bool before(Word64 a, Word64 b) { return a < b; }
DL_DEVICE bool before(const Wider& a, const Wider& b) { return a.key != b.key ? a.key < b.key : a.place < b.place; }

// ---- tiles

struct Segments {
  unsigned rows, n;
  unsigned segment;   // its items, a power of two
  unsigned per_row;   // segments of a row
  unsigned in_block;  // segments of a block
  unsigned kept;      // results of a row
  int descending;
};

template <class Item>
DL_DEVICE void sort_segments(Item* tile, unsigned size, unsigned segment) {
  DL_ROLLED
  for (unsigned width = 2; width <= segment; width *= 2) {
    DL_ROLLED
    for (unsigned step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      for (unsigned i = threadIdx.x; i < size / 2; i += kThreads) {
        const unsigned low = 2 * i - (i & (step - 1)), high = low + step;
        const bool up = (low & (segment - 1) & width) == 0;
        const Item a = tile[low], b = tile[high];
        if (before(b, a) == up) tile[low] = b, tile[high] = a;
      }
    }
  }
  __syncthreads();
}

template <class T, class Item>
DL_DEVICE void sort_tiles(const T* x, Item* items, T* values, long long* indices, const Segments& s) {
  DL_SHARED(Item, tile);
  using Key = decltype(key(T()));
  const unsigned size = s.segment * s.in_block, first = blockIdx.x * s.in_block;
  const Key turned = s.descending ? ~Key(0) : Key(0);
  for (unsigned i = threadIdx.x; i < size; i += kThreads) {
    const unsigned segment = first + i / s.segment, row = segment / s.per_row;
    const unsigned place = (segment - row * s.per_row) * s.segment + i % s.segment;
    const bool inside = row < s.rows && place < s.n;
    tile[i] = inside ? item(key(x[(long long)row * s.n + place]) ^ turned, place) : item(~Key(0), ~0u);
  }
  sort_segments(tile, size, s.segment);
  for (unsigned i = threadIdx.x; i < size; i += kThreads) {
    const unsigned segment = first + i / s.segment, row = segment / s.per_row;
    const unsigned rank = (segment - row * s.per_row) * s.segment + i % s.segment;
    if (row >= s.rows || rank >= (items != nullptr ? s.n : s.kept)) continue;
    const Item found = tile[i];
    const long long to = (long long)row * s.kept + rank;
    if (items != nullptr) items[(long long)row * s.n + rank] = found;
    else indices[to] = place_of(found);
    if (items == nullptr && values != nullptr) values[to] = x[(long long)row * s.n + place_of(found)];
  }
}

// ---- merges

// How many of `count` sorted items come before an item.
template <class Item>
DL_DEVICE unsigned rank_in(const Item* sorted, unsigned count, const Item& item) {
  unsigned low = 0;
  while (low < count) {
    const unsigned middle = low + (count - low) / 2;
    if (before(sorted[middle], item)) low = middle + 1;
    else count = middle;
  }
  return low;
}

// How many of the first `total` items of two sorted runs come from the left one.
template <class Item>
DL_DEVICE unsigned cut(const Item* left, unsigned lefts, const Item* right, unsigned rights, unsigned total) {
  unsigned low = total > rights ? total - rights : 0, high = total < lefts ? total : lefts;
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    if (before(left[middle], right[total - middle - 1])) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <class Item>
DL_DEVICE void merge(const Item* in, Item* out, unsigned n, unsigned run, unsigned tiles) {
  __shared__ Item from[kMerge], to[kMerge];
  __shared__ unsigned splits[2];
  const unsigned row = blockIdx.x / tiles, begin = (blockIdx.x - row * tiles) * kMerge;
  const unsigned pair = begin / (2 * run) * (2 * run), size = n - begin < kMerge ? n - begin : kMerge;
  const unsigned lefts = n - pair < run ? n - pair : run, rest = n - pair - lefts, rights = rest < run ? rest : run;
  const Item* left = in + (long long)row * n + pair;
  const Item* right = left + lefts;
  if (threadIdx.x < 2) splits[threadIdx.x] = cut(left, lefts, right, rights, begin - pair + threadIdx.x * size);
  __syncthreads();
  const unsigned first = splits[0], own = splits[1] - first, other = begin - pair - first;
  for (unsigned i = threadIdx.x; i < size; i += kThreads) from[i] = i < own ? left[first + i] : right[other + i - own];
  __syncthreads();
  for (unsigned i = threadIdx.x; i < size; i += kThreads) {
    const unsigned passed = i < own ? rank_in(from + own, size - own, from[i]) : rank_in(from, own, from[i]) - own;
    to[i + passed] = from[i];
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < size; i += kThreads) out[(long long)row * n + begin + i] = to[i];
}

template <class T, class Item>
DL_DEVICE void results(const Item* items, const T* x, T* values, long long* indices, unsigned n, unsigned kept,
                       unsigned count) {
  DL_TWICE
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const unsigned row = i / kept, place = place_of(items[(long long)row * n + (i - row * kept)]);
    indices[i] = place;
    if (values != nullptr) values[i] = x[(long long)row * n + place];
  }
}

template <class T>
DL_DEVICE void search(const T* boundaries, const T* x, long long* y, unsigned n, unsigned count, int right) {
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const auto wanted = key(x[i]);
    unsigned low = 0, high = n;
    while (low < high) {
      const unsigned middle = low + (high - low) / 2;
      const auto found = key(boundaries[middle]);
      if (right ? found <= wanted : found < wanted) low = middle + 1;
      else high = middle;
    }
    y[i] = low;
  }
}

#define DL_SORT_TILES(T, suffix, Item)                                                          \
  extern "C" __global__ void __launch_bounds__(kThreads)                                        \
      sort_tiles_##suffix(const T* x, Item* items, T* values, long long* indices, Segments s) { \
    sort_tiles(x, items, values, indices, s);                                                   \
  }                                                                                             \
  DL_EXPORT(sort_tiles_##suffix)
#define DL_SORT_SEARCH(T, suffix)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      sort_search_##suffix(const T* boundaries, const T* x, long long* y, unsigned n, unsigned count, int right) { \
    search(boundaries, x, y, n, count, right);                                                                     \
  }                                                                                                                \
  DL_EXPORT(sort_search_##suffix)
#define DL_SORT(T, suffix, Item) DL_SORT_TILES(T, suffix, Item) DL_SORT_SEARCH(T, suffix)
DL_SORT(float, f32, Word64)
DL_SORT(double, f64, Wider)
DL_SORT(__half, f16, Word64)
DL_SORT(__nv_bfloat16, bf16, Word64)
DL_SORT(int, i32, Word64)
DL_SORT(long long, i64, Wider)
DL_SORT(unsigned char, b8, Word64)
DL_SORT_TILES(Word64, u64, Wider)

#define DL_SORT_MERGE(name, Item)                                                 \
  extern "C" __global__ void __launch_bounds__(kThreads)                          \
      name(const Item* in, Item* out, unsigned n, unsigned run, unsigned tiles) { \
    merge(in, out, n, run, tiles);                                                \
  }                                                                               \
  DL_EXPORT(name)
DL_SORT_MERGE(sort_merge, Word64)
DL_SORT_MERGE(sort_merge_wide, Wider)

#define DL_SORT_RESULTS(T, bytes, Item)                                                                          \
  extern "C" __global__ void __launch_bounds__(256) sort_results_b##bytes(                                       \
      const Item* items, const T* x, T* values, long long* indices, unsigned n, unsigned kept, unsigned count) { \
    results(items, x, values, indices, n, kept, count);                                                          \
  }                                                                                                              \
  DL_EXPORT(sort_results_b##bytes)
DL_SORT_RESULTS(unsigned char, 1, Word64)
DL_SORT_RESULTS(unsigned short, 2, Word64)
DL_SORT_RESULTS(unsigned, 4, Word64)
DL_SORT_RESULTS(Word64, 8, Wider)
