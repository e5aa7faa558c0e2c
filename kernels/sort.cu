// Stable sorts of rows, and searches in sorted numbers. NaN counts as larger than every number; zeros are equal.
//
// An element becomes an item: an unsigned key in its order (inverted to sort down) and its place in the row, which
// makes items distinct, so that any algorithm sorts in a stable way. Items are 8 bytes, 16 for keys of 64 bits; in
// tiles, those of keys of up to 16 bits are 4, with a place in the segment. A thread has V = 16 items; of 16 bytes, 8.
//
// sort_tiles_<dtype>(x, items, values, indices, s): sorts segments of rows, powers of two from V to 256 V, by the
//   network of bitonic.cuh; writes items, or where these are null the first `kept` of each row as results: values (or
//   null) and their places in the row.
//   Grid: segments / s.in_block, rounded up; block: the threads of in_block segments; dynamic shared: a tile.
// sort_merge_<dtype>(in, out, x, values, indices, r): merges neighbouring runs of each row, multiples of 128 V long;
//   writes items (out), or where these are null results. Each block finds its part of both runs by a search (Green,
//   McColl and Bader 2012, "GPU merge path"), and merges them by the last steps of the network.
//   Grid: rows x r.pairs of runs x their first r.tiles of 128 V items; block: 128; dynamic shared: a tile.
// sort_search_<dtype>(boundaries, x, y, n, count, right): how many boundaries come before x (or equal it, if right).
//   Grid: any, threads stride over x; block: 256; no shared memory.
#include "bitonic.cuh"

constexpr int kThreads = 256, kMergeThreads = 128;

// ---- keys: the bits of numbers as unsigned ones in their order, and back

template <class BITS, BITS INFINITE>
struct Float {
  using Bits = BITS;
  static constexpr Bits kZero = Bits(Bits(1) << (8 * sizeof(Bits) - 1)), kNan = Bits(~Bits(0));
  DL_DEVICE static Bits key(Bits x) { return Bits(x & ~kZero) > INFINITE ? kNan : Bits(x > kZero ? ~x : x | kZero); }
  DL_DEVICE static Bits bits(Bits key) { return Bits(key & kZero ? key ^ kZero : ~key); }
  DL_DEVICE static bool exact(Bits key) { return key != kZero && key != kNan; }  // whether it tells all bits
};

template <class BITS, BITS FLIPPED>
struct Whole {
  using Bits = BITS;
  DL_DEVICE static Bits key(Bits x) { return x ^ FLIPPED; }
  DL_DEVICE static Bits bits(Bits key) { return key ^ FLIPPED; }
  DL_DEVICE static bool exact(Bits) { return true; }
};

template <int BYTES>  // of a key
struct Items {
  using Tile = unsigned;
  using Array = Word64;
};
template <>
struct Items<4> {
  using Tile = Word64;
  using Array = Word64;
};
template <>
struct Items<8> {
  using Tile = Wider;
  using Array = Wider;
};

// ---- where items come from and go to

struct Shape {
  unsigned n, kept;  // elements and results of a row
  int descending;
  int vectors;  // whether rows of x are whole, aligned vectors
  int pairs;    // whether two neighbours are written as one: each row gets an even number
};

// A part of a row, from `begin` on, that neighbouring threads sort.
template <class Kind>
struct Part {
  using Bits = typename Kind::Bits;
  using Stored = typename Items<sizeof(Bits)>::Array;
  const Bits* x;  // the row
  Shape s;
  unsigned row, begin;
  unsigned threads, lane;

  DL_DEVICE Bits turned() const { return s.descending ? Bits(~Bits(0)) : Bits(0); }
  DL_DEVICE unsigned left(unsigned n) const { return begin < n ? n - begin : 0; }

  // Items with places from `begin` on, in any order; past the end of the row, those that come last.
  template <class Item>
  DL_DEVICE void load(Item (&held)[kHeld<Item>], bool inside) const {
    constexpr int V = kPerVector<Bits>;
    const unsigned count = inside ? left(s.n) : 0;
    DL_UNROLL
    for (int i = 0; i < kHeld<Item>; i += V) {
      Vec<Bits, V> chunk{};
      const unsigned at = s.vectors ? i * threads + lane * V : i * threads + lane, apart = s.vectors ? 1 : threads;
      if (s.vectors && at < count) chunk = *reinterpret_cast<const Vec<Bits, V>*>(x + begin + at);
      DL_UNROLL
      for (int j = 0; j < V; ++j) {
        const unsigned place = at + j * apart;
        if (!s.vectors && place < count) chunk.at[j] = x[begin + place];
        held[i + j] = place < count ? item<Item>(Bits(Kind::key(chunk.at[j]) ^ turned()), place) : last_item<Item>();
      }
    }
  }

  template <class Item>
  DL_DEVICE Bits value(const Item& found) const {
    const Bits key = Bits(Bits(key_of(found)) ^ turned());
    return Kind::exact(key) ? Kind::bits(key) : x[place_of(found)];
  }

  template <class Item>
  DL_DEVICE static Stored stored(const Item& found, unsigned base) {
    return item<Stored>(key_of(found), base + place_of(found));
  }

  template <class T>
  DL_DEVICE void put(T* to, unsigned apart, T a, T b) const {
    const Vec<T, 2> pair{{a, b}};
    if (s.pairs) *reinterpret_cast<Vec<T, 2>*>(to) = pair;
    else to[0] = a, to[apart] = b;
  }

  // Writes the sorted items of a tile, whose places count from `base`: as items, or where these are null, as results.
  template <class Item>
  DL_DEVICE void write(const Item* tile, unsigned base, Stored* items, Bits* values, long long* indices) const {
    const unsigned wanted = items != nullptr ? s.n : s.kept, count = left(wanted);
    const long long first = (long long)row * wanted + begin;
    DL_TWICE
    for (unsigned i = 0; i < kHeld<Item>; i += 2) {
      const unsigned at = i * threads + (s.pairs ? 2 * lane : lane), next = at + (s.pairs ? 1 : threads);
      if (at >= count) break;
      const unsigned apart = next < count ? next - at : 0;
      const Item a = tile[padded<Item>(at)], b = tile[padded<Item>(at + apart)];
      const long long to = first + at;
      if (items != nullptr) put(items + to, apart, stored(a, base), stored(b, base));
      else put(indices + to, apart, (long long)place_of(a), (long long)place_of(b));
      if (items == nullptr && values != nullptr) put(values + to, apart, value(a), value(b));
    }
  }
};

// ---- tiles

struct Segments {
  unsigned rows;
  unsigned segment;   // its items, a power of two
  unsigned per_row;   // segments of a row
  unsigned in_block;  // segments of a block
  Shape shape;
};

template <class Kind>
DL_DEVICE void sort_tiles(const typename Kind::Bits* x, typename Part<Kind>::Stored* items, typename Kind::Bits* values,
                          long long* indices, const Segments& s) {
  using Item = typename Items<sizeof(*x)>::Tile;
  DL_SHARED(Item, tile);
  const unsigned threads = s.segment / kHeld<Item>, lane = threadIdx.x % threads, first = threadIdx.x - lane;
  const unsigned segment = blockIdx.x * s.in_block + first / threads, row = segment / s.per_row;
  const unsigned begin = (segment - row * s.per_row) * s.segment;
  const Part<Kind> part{x + (long long)row * s.shape.n, s.shape, row, begin, threads, lane};
  Item held[kHeld<Item>];
  part.load(held, row < s.rows);
  sort_threads(held, tile, threads);
  lay(held, tile, threadIdx.x);
  __syncthreads();
  if (row < s.rows) part.write(tile + padded<Item>(first * kHeld<Item>), begin, items, values, indices);
}

// ---- merges

struct Runs {
  unsigned run;           // its items
  unsigned pairs, tiles;  // of a row, runs that are merged; of a pair, tiles that are wanted
  Shape shape;
};

// How many of the first `total` items of two sorted runs come from the left one: lanes try 32 places at a time.
template <class Item>
DL_DEVICE unsigned cut(const Item* left, unsigned lefts, const Item* right, unsigned rights, unsigned total) {
  unsigned low = total > rights ? total - rights : 0, high = min(total, lefts);
  DL_ROLLED
  while (low < high) {
    const unsigned apart = (high - low + kWarp - 1) / kWarp, at = low + threadIdx.x % kWarp * apart;
    const bool taken = at < high && before(left[at], right[total - at - 1]);
    const unsigned passed = __popc(__ballot_sync(kAllLanes, taken));
    high = min(high, low + passed * apart);
    low = passed ? low + (passed - 1) * apart + 1 : low;
  }
  return low;
}

template <class Kind>
DL_DEVICE void merge(const typename Part<Kind>::Stored* in, typename Part<Kind>::Stored* out,
                     const typename Kind::Bits* x, typename Kind::Bits* values, long long* indices, const Runs& r) {
  using Item = typename Part<Kind>::Stored;
  constexpr int V = kHeld<Item>, kTile = kMergeThreads * V;
  DL_SHARED(Item, tile);
  __shared__ unsigned splits[2];
  const unsigned n = r.shape.n, both = blockIdx.x / r.tiles, row = both / r.pairs;
  const unsigned pair = (both - row * r.pairs) * 2 * r.run, begin = pair + (blockIdx.x - both * r.tiles) * kTile;
  const unsigned size = begin < n ? min(n - begin, unsigned(kTile)) : 0;
  const unsigned lefts = min(n - pair, r.run), rights = min(n - pair - lefts, r.run);
  const Item* left = in + (long long)row * n + pair;
  const Item* right = left + lefts;
  if (const unsigned end = threadIdx.x / kWarp; end < 2) {
    const unsigned split = cut(left, lefts, right, rights, begin - pair + end * size);
    if (threadIdx.x % kWarp == 0) splits[end] = split;
  }
  __syncthreads();
  const unsigned own = splits[1] - splits[0], others = size - own;
  left += splits[0], right += begin - pair - splits[0];
  Item held[V];
  DL_UNROLL
  for (int i = 0; i < V; ++i) {
    const unsigned at = i * kMergeThreads + threadIdx.x, back = kTile - 1 - at;
    held[i] = at < own ? left[at] : back < others ? right[back] : last_item<Item>();
  }
  merge_block(held, tile);
  lay(held, tile, threadIdx.x);
  __syncthreads();
  const Part<Kind> part{x + (long long)row * n, r.shape, row, begin, kMergeThreads, threadIdx.x};
  part.write(tile, 0, out, values, indices);
}

// ---- searches

template <class Kind>
DL_DEVICE void search(const typename Kind::Bits* boundaries, const typename Kind::Bits* x, long long* y, unsigned n,
                      unsigned count, int right) {
  DL_ROLLED
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const auto wanted = Kind::key(x[i]);
    unsigned low = 0, high = n;
    while (low < high) {
      const unsigned middle = low + (high - low) / 2;
      const auto found = Kind::key(boundaries[middle]);
      if (right ? found <= wanted : found < wanted) low = middle + 1;
      else high = middle;
    }
    y[i] = low;
  }
}

#define DL_SORT(Kind, suffix)                                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads) sort_tiles_##suffix(                               \
      const Kind::Bits* x, Part<Kind>::Stored* items, Kind::Bits* values, long long* indices, Segments s) { \
    sort_tiles<Kind>(x, items, values, indices, s);                                                         \
  }                                                                                                         \
  DL_EXPORT(sort_tiles_##suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(kMergeThreads)                                               \
      sort_merge_##suffix(const Part<Kind>::Stored* in, Part<Kind>::Stored* out, const Kind::Bits* x,       \
                          Kind::Bits* values, long long* indices, Runs r) {                                 \
    merge<Kind>(in, out, x, values, indices, r);                                                            \
  }                                                                                                         \
  DL_EXPORT(sort_merge_##suffix)
#define DL_SEARCH(Kind, suffix)                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) sort_search_##suffix(                                       \
      const Kind::Bits* boundaries, const Kind::Bits* x, long long* y, unsigned n, unsigned count, int right) { \
    search<Kind>(boundaries, x, y, n, count, right);                                                            \
  }                                                                                                             \
  DL_EXPORT(sort_search_##suffix)

using F32 = Float<unsigned, 0x7f800000>;
using F64 = Float<Word64, 0x7ff0000000000000>;
using F16 = Float<unsigned short, 0x7c00>;
using BF16 = Float<unsigned short, 0x7f80>;
using I32 = Whole<unsigned, 1u << 31>;
using I64 = Whole<Word64, Word64(1) << 63>;
using B8 = Whole<unsigned char, 0>;
using U64 = Whole<Word64, 0>;
#define DL_FOR_KINDS(X) X(F32, f32) X(F64, f64) X(F16, f16) X(BF16, bf16) X(I32, i32) X(I64, i64) X(B8, b8)
DL_FOR_KINDS(DL_SORT)
DL_FOR_KINDS(DL_SEARCH)
DL_SORT(U64, u64)
