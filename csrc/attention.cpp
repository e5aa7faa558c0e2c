// Keys are taken kKeys at a time, so that logits never need more than a panel of rows (forward) or a tile of kRows rows
// (backward). Logits are in base 2: the queries are scaled by scale * log2(e) first. In all of it, the order of sums
// depends on shapes alone: a row of y or dq adds up its key tiles in order, a row of dk or dv its row tiles.
#include "attention.h"

#include "gemm_dot.h"
#include "gemm_pack.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "simd_math.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr double kLog2E = 1.44269504088896340736, kLn2 = 0.69314718055994530942;
constexpr double kWorthATeam = 3e5;  // multiply-adds: some microseconds
constexpr Index kKeys = 144;         // whole panels for every instruction set
constexpr Index kRows = 72;
constexpr Index kFewRows = 16;  // for which the forward pass reads keys and values in place: packing would cost more

// ---- products of small matrices: A of any strides, B packed in panels of NR columns as for gemm_loops.h

template <class T>
struct Left {  // a[i*row + k*col]
  const T* data;
  Index row, col;
};
template <class T>
struct Right {  // b[k*ld + j], with panels of NR columns `panel` elements apart
  const T* data;
  Index panel, ld = Tiling<T>::NR;
};

// C[rows, N] = A B, or C + A B, of at most MR rows; C is written in whole vectors.
template <class T>
DL_INLINE void multiply_panel(int rows, Index N, Index K, const Left<T>& a, const Right<T>& b, T* c, Index ldc,
                              bool add) {
  constexpr int NR = Tiling<T>::NR, W = lanes<T>;
  for (Index n = 0; n < N; n += NR) {
    const int cols = int(smaller<Index>(NR, N - n));
    const T* const panel = b.data + n / NR * b.panel;
    micro_kernels<T>().run[(cols + W - 1) / W][rows](
        {K, {a.data, a.row, a.col, rows}, {panel, b.ld, cols, panel, 0}, c + n, ldc, add, nullptr});
  }
}

// out = B^T of n lines contiguous in k, as a Right with panels of NR * K; zero beyond.
template <class T>
void pack_transposed(const T* p, Index row, Index n, Index K, T* out) {
  constexpr int NR = Tiling<T>::NR;
  for (Index i = 0; i < n; i += NR) pack_lines(p + i * row, row, int(smaller<Index>(NR, n - i)), K, out + i * K, NR);
}
// out = B of K rows contiguous in n, as a Right with panels of NR * room
template <class T>
void pack_straight(const T* p, Index row, Index K, Index n, Index room, T* out) {
  constexpr int NR = Tiling<T>::NR;
  for (Index i = 0; i < n; i += NR) pack_slices(p + i, row, int(smaller<Index>(NR, n - i)), K, out + i * room, NR);
}

// ---- the problem's parts

template <class T>
T* matrix_of(const Attention& p, const Matrices& m, Index head) {
  T* data = static_cast<T*>(m.data);
  if (data == nullptr) return nullptr;
  for (int i = p.axes - 1; i >= 0; --i) {
    data += head % p.dim[i] * m.lead[i];
    head /= p.dim[i];
  }
  return data;
}

Index heads_of(const Attention& p) {
  Index n = 1;
  for (int i = 0; i < p.axes; ++i) n *= p.dim[i];
  return n;
}

DL_INLINE Index keys_seen(const Attention& p, Index t) { return p.causal ? smaller(p.S, t + 1) : p.S; }

// to[i, 0..n) = from[i, 0..n) * factor
template <class T>
void scale_rows(Index rows, Index n, const T* from, Index ld, T factor, T* to, Index to_ld) {
  constexpr int W = lanes<T>;
  for (Index i = 0; i < rows; ++i) {
    const T* x = from + i * ld;
    T* y = to + i * to_ld;
    Index j = 0;
    for (; j + W <= n; j += W) store(y + j, load(x + j) * factor);
    if (j < n) store(y + j, load(x + j, n - j) * factor, n - j);
  }
}

template <class T>
void fill(T* p, Index n, T value) {
  for (Index i = 0; i < n; ++i) p[i] = value;
}

// Makes logits in base 2 of products of `rows` queries from t0 and n keys from s0: adds the bias, and sets to -inf what
// is out of sight, up to a whole vector.
template <class T>
void finish_logits(const Attention& p, Index t0, int rows, Index s0, Index n, const T* bias, T* out) {
  constexpr int W = lanes<T>;
  for (int i = 0; i < rows; ++i) {
    T* row = out + i * kKeys;
    if (bias != nullptr) {
      const T* b = bias + (t0 + i) * p.bias.row + s0;
      Index j = 0;
      for (; j + W <= n; j += W) store(row + j, fma(load(b + j), broadcast(T(kLog2E)), load(row + j)));
      for (; j < n; ++j) row[j] += b[j] * T(kLog2E);
    }
    for (Index j = larger<Index>(0, keys_seen(p, t0 + i) - s0); j < round_up(n, W); ++j) row[j] = -T(__builtin_inf());
  }
}

// Logits of scaled queries and packed keys.
template <class T>
void logits(const Attention& p, Index t0, int rows, Index s0, Index n, const T* q, const T* keys, const T* bias,
            T* out) {
  multiply_panel(rows, n, p.D, {q, p.D, 1}, {keys, p.D * Tiling<T>::NR}, out, kKeys, false);
  finish_logits(p, t0, rows, s0, n, bias, out);
}

// The same of keys in place.
template <class T>
void logits_by_dots(const Attention& p, Index t0, int rows, Index s0, Index n, const T* q, const T* keys, const T* bias,
                    T* out) {
  constexpr int NR = Tiling<T>::NR;
  const Panels panels(rows, DotTiling<T>::MR);
  for (Index i = 0; i < panels.count; ++i)
    for (Index j = 0; j < n; j += NR) {
      T acc[DotTiling<T>::MR * NR];
      const Panels tiles(smaller<Index>(NR, n - j), DotTiling<T>::NR);
      for (Index k = 0; k < tiles.count; ++k)
        dot_tiles<T>.by_size[panels.size(i) - 1][tiles.size(k) - 1](
            p.D, q + panels.begin(i) * p.D, p.D, keys + (j + tiles.begin(k)) * p.k.row, p.k.row, acc + tiles.begin(k));
      for (int r = 0; r < panels.size(i); ++r)
        __builtin_memcpy(out + (panels.begin(i) + r) * kKeys + j, acc + r * NR, NR * sizeof(T));
    }
  finish_logits(p, t0, rows, s0, n, bias, out);
}

// Bump allocation of a thread's working memory, in two passes: to count it, and to give it out.
template <class T>
class Room {
 public:
  explicit Room(T* data) : data_(data) {}
  T* take(Index n) {
    T* here = data_ == nullptr ? nullptr : data_ + used_;
    used_ += round_up(n, 64 / Index(sizeof(T)));
    return here;
  }
  Index used() const { return used_; }

 private:
  T* const data_;
  Index used_ = 0;
};

// unit(i, space) for all i < n, each on the thread that comes first; what a unit gives does not depend on that.
template <class Space, class Problem, class F>
void for_units(const Problem& p, Index n, double work, const F& unit) {
  using T = typename Space::Type;
  const int limit = work < kWorthATeam ? 1 : int(smaller<Index>(num_threads(), n));
  Room<T> count(nullptr);
  const Space sizes(p, count);
  const Scratch scratch(sizeof(T) * size_t(limit * count.used()));
  Shares shares(limit);
  team().run(
      [&](int tid, int nt) {
        Room<T> room(static_cast<T*>(scratch.data()) + tid * count.used());
        Space space(p, room);
        shares.each(tid, nt, n, [&](Index i) { unit(i, space); });
      },
      limit);
}

double work_of(const Attention& p) { return double(heads_of(p)) * double(p.T) * double(p.S) * double(p.D + p.E); }

bool enough_heads(const Attention& p) { return heads_of(p) >= 4 * num_threads(); }

// ---- forward

template <class T>
struct ForwardSpace {
  using Type = T;
  const Index out_ld;
  const bool keys_in_place, values_in_place;
  T *keys, *values, *q, *scores, *out, *top, *total;
  const T *packed_k = nullptr, *packed_v = nullptr;

  ForwardSpace(const Attention& p, Room<T>& room)
      : out_ld(round_up(p.E, Tiling<T>::NR)),
        keys_in_place(p.T <= kFewRows),
        values_in_place(p.T <= kFewRows && p.E % lanes<T> == 0) {
    keys = room.take(keys_in_place ? 0 : round_up(p.S, Tiling<T>::NR) * p.D);
    values = room.take(values_in_place ? 0 : p.S * out_ld);
    q = room.take(kRows * p.D);
    scores = room.take(Tiling<T>::MR * kKeys);
    out = room.take(kRows * out_ld);
    top = room.take(kRows + lanes<T>);
    total = room.take(kRows + lanes<T>);
  }
  void pack(const Attention& p, const T* k, const T* v) {
    if (k != packed_k && !keys_in_place) pack_transposed(k, p.k.row, p.S, p.D, keys);
    if (v != packed_v && !values_in_place) pack_straight(v, p.v.row, p.S, p.E, p.S, values);
    packed_k = k, packed_v = v;
  }
};

// The larger of each of lanes<T> rows; as `sums`.
template <class T, int Block = lanes<T> / 2>
DL_INLINE vec<T> tops(vec<T>* rows) {
  static_for<Block>([&](auto i) DL_INLINE_LAMBDA {
    const vec<T> a = rows[i], b = rows[i + Block];
    rows[i] = max(shuffle<T>(a, b, typename Exchange<T, Block, true, Lanes<T>>::type()),
                  shuffle<T>(a, b, typename Exchange<T, Block, false, Lanes<T>>::type()));
  });
  if constexpr (Block > 1) return tops<T, Block / 2>(rows);
  else return rows[0];
}

template <class T>
vec<T> top_of_row(const T* x, Index n) {
  vec<T> top = load(x);
  for (Index j = lanes<T>; j < n; j += lanes<T>) top = max(load(x + j), top);
  return top;
}

// x = 2^(x - shift), and the sum of that in parts
template <class T>
vec<T> exp2_of_row(T* x, Index n, T shift) {
  vec<T> total = {};
  for (Index j = 0; j < n; j += lanes<T>) {
    const vec<T> e = exp2(load(x + j) - shift);
    store(x + j, e);
    total += e;
  }
  return total;
}

// One more tile of n keys for a panel of rows: scores become 2^(scores - top of the row so far), and what was summed up
// with a lower top shrinks.
template <class T>
void take_in(int rows, Index n, T* scores, T* top, T* total, T* out, Index out_ld, Index E, bool first) {
  constexpr int W = lanes<T>;
  const vec<T> lowest = broadcast(-T(__builtin_inf()));
  for (int i0 = 0; i0 < rows; i0 += W) {
    vec<T> row[W];
    static_for<W>([&](auto i)
                      DL_INLINE_LAMBDA { row[i] = i0 + i < rows ? top_of_row(scores + (i0 + i) * kKeys, n) : lowest; });
    const vec<T> before = first ? lowest : load(top + i0), now = max(before, tops<T>(row));
    const vec<T> shift = now == lowest ? vec<T>{} : now;
    const vec<T> shrink = before == lowest ? vec<T>{} : exp2(before - shift);
    T shifts[W], shrinks[W];
    store(shifts, shift);
    store(shrinks, shrink);
    static_for<W>([&](auto i) DL_INLINE_LAMBDA {
      row[i] = i0 + i < rows ? exp2_of_row(scores + (i0 + i) * kKeys, n, shifts[i]) : vec<T>{};
    });
    vec<T> sum = sums<T>(row);
    if (!first) {
      sum = fma(load(total + i0), shrink, sum);
      for (int i = i0; i < smaller(rows, i0 + W); ++i)
        scale_rows(1, E, out + i * out_ld, 0, shrinks[i - i0], out + i * out_ld, 0);
    }
    const int count = smaller(W, rows - i0);
    store(top + i0, now, count);
    store(total + i0, sum, count);
  }
}

template <class T>
void forward_rows(const Attention& p, Index head, Index begin, Index rows, ForwardSpace<T>& w) {
  const T *q = matrix_of<T>(p, p.q, head), *k = matrix_of<T>(p, p.k, head), *v = matrix_of<T>(p, p.v, head);
  const T* bias = matrix_of<T>(p, p.bias, head);
  w.pack(p, k, v);
  scale_rows(rows, p.D, q + begin * p.q.row, p.q.row, T(p.scale * kLog2E), w.q, p.D);
  const Panels panels(rows, Tiling<T>::MR);
  for (Index s0 = 0; s0 < keys_seen(p, begin + rows - 1); s0 += kKeys)
    for (Index i = 0; i < panels.count; ++i) {
      const Index r = panels.begin(i), t = begin + r;
      const int height = panels.size(i);
      const Index n = smaller(kKeys, keys_seen(p, t + height - 1) - s0);
      if (n <= 0) continue;
      const T* scaled = w.q + r * p.D;
      if (w.keys_in_place) logits_by_dots(p, t, height, s0, n, scaled, k + s0 * p.k.row, bias, w.scores);
      else logits(p, t, height, s0, n, scaled, w.keys + s0 * p.D, bias, w.scores);
      take_in(height, n, w.scores, w.top + r, w.total + r, w.out + r * w.out_ld, w.out_ld, p.E, s0 == 0);
      Right<T> values{w.values + s0 * Tiling<T>::NR, p.S * Tiling<T>::NR};
      if (w.values_in_place) values = {v + s0 * p.v.row, Tiling<T>::NR, p.v.row};
      multiply_panel(height, p.E, n, {w.scores, kKeys, 1}, values, w.out + r * w.out_ld, w.out_ld, s0 > 0);
    }
  T* y = matrix_of<T>(p, p.y, head);
  T* lse = matrix_of<T>(p, p.lse, head) + begin * p.lse.row;
  for (Index r = 0; r < rows; ++r) {
    const T total = w.total[r];
    scale_rows(1, p.E, w.out + r * w.out_ld, 0, total == 0 ? T(0) : 1 / total, y + (begin + r) * p.y.row, 0);
    lse[r * p.lse.row] = T(double(w.top[r]) * kLn2 + ::log(double(total)));
  }
}

template <class T>
void forward(const Attention& p) {
  const Index tiles = enough_heads(p) ? 1 : Panels(p.T, kRows).count;
  for_units<ForwardSpace<T>>(p, heads_of(p) * tiles, work_of(p), [&](Index unit, ForwardSpace<T>& w) {
    const Panels rows(p.T, kRows);
    const Index first = tiles == 1 ? 0 : unit % tiles, last = tiles == 1 ? rows.count : first + 1;
    for (Index i = first; i < last; ++i) forward_rows(p, unit / tiles, rows.begin(i), rows.size(i), w);
  });
}

// ---- backward

enum Wanted { kQ = 1, kKV = 2, kBias = 4 };

template <class T>
struct BackwardSpace {
  using Type = T;
  Index d_ld, e_ld;
  T *q, *shift, *along, *dq;                // of all rows
  T *q_panels, *dy_panels;                  // of all rows, as right operands
  T *keys, *values, *key_panels, *dk, *dv;  // of a tile of keys
  T *p, *ds;                                // of a tile of rows and keys

  BackwardSpace(const AttentionGrad& g, Room<T>& room)
      : d_ld(round_up(g.of.D, Tiling<T>::NR)), e_ld(round_up(g.of.E, Tiling<T>::NR)) {
    const Index rows = g.of.T;
    q = room.take(rows * g.of.D);
    shift = room.take(rows);
    along = room.take(rows);
    dq = room.take(rows * d_ld);
    q_panels = room.take(rows * d_ld);
    dy_panels = room.take(rows * e_ld);
    keys = room.take(kKeys * g.of.D);
    values = room.take(kKeys * g.of.E);
    key_panels = room.take(kKeys * d_ld);
    dk = room.take(kKeys * d_ld);
    dv = room.take(kKeys * e_ld);
    p = room.take(kRows * kKeys);
    ds = room.take(kRows * kKeys);
  }
};

template <class T>
T dot(const T* a, const T* b, Index n) {
  constexpr int W = lanes<T>;
  vec<T> total = {};
  Index j = 0;
  for (; j + W <= n; j += W) total = fma(load(a + j), load(b + j), total);
  if (j < n) total = fma(load(a + j, n - j), load(b + j, n - j), total);
  return sum<T>(total);
}

// The part of a head's gradients that rows [rows.begin, rows.end) and keys [keys.begin, keys.end) give; both begin at
// a tile.
template <class T>
class Backward {
  static constexpr int MR = Tiling<T>::MR, NR = Tiling<T>::NR;

 public:
  Backward(const AttentionGrad& g, Index head, BackwardSpace<T>& space)
      : g_(g), p_(g.of), w_(space), head_(head), bias_(of(g.of.bias)), dy_(of(g.dy)), dbias_(of(g.dbias)) {}

  void run(Range rows, Range keys, int wanted) {
    prepare(rows, wanted);
    if (wanted == kQ) keys.end = keys_seen(p_, rows.end - 1);
    for (Index s0 = keys.begin; s0 < keys.end; s0 += kKeys) {
      const Index n = smaller(kKeys, keys.end - s0);
      begin_keys(s0, n, wanted);
      const Index first = p_.causal && !(wanted & kBias) ? larger(rows.begin, s0 / kRows * kRows) : rows.begin;
      for (Index t0 = first; t0 < rows.end; t0 += kRows) {
        const Index height = smaller(kRows, rows.end - t0);
        probabilities(t0, height, s0, n, wanted);
        if (wanted & kKV) add_to_keys(t0, height, s0, n);
      }
      if (wanted & kKV) {
        scale_rows(n, p_.D, w_.dk, w_.d_ld, T(p_.scale), of(g_.dk) + s0 * g_.dk.row, g_.dk.row);
        scale_rows(n, p_.E, w_.dv, w_.e_ld, T(1), of(g_.dv) + s0 * g_.dv.row, g_.dv.row);
      }
    }
    if (wanted & kQ)
      scale_rows(rows.end - rows.begin, p_.D, w_.dq + rows.begin * w_.d_ld, w_.d_ld, T(p_.scale),
                 of(g_.dq) + rows.begin * g_.dq.row, g_.dq.row);
  }

 private:
  T* of(const Matrices& m) const { return matrix_of<T>(p_, m, head_); }

  void prepare(Range rows, int wanted) {
    const Index n = rows.end - rows.begin;
    const T* q = of(p_.q) + rows.begin * p_.q.row;
    const T* dy = dy_ + rows.begin * g_.dy.row;
    scale_rows(n, p_.D, q, p_.q.row, T(p_.scale * kLog2E), w_.q + rows.begin * p_.D, p_.D);
    const T *y = of(p_.y), *lse = of(p_.lse), *dlse = of(g_.dlse);
    for (Index t = rows.begin; t < rows.end; ++t) {
      const T l = lse[t * p_.lse.row];
      w_.shift[t] = l == -T(__builtin_inf()) ? T(0) : T(l * T(kLog2E));
      w_.along[t] = dot(dy_ + t * g_.dy.row, y + t * p_.y.row, p_.E) - (dlse == nullptr ? T(0) : dlse[t * g_.dlse.row]);
    }
    if (wanted & kQ) fill(w_.dq + rows.begin * w_.d_ld, n * w_.d_ld, T(0));
    if (wanted & kKV) {
      pack_straight(q, p_.q.row, n, p_.D, p_.T, w_.q_panels + rows.begin * NR);
      pack_straight(dy, g_.dy.row, n, p_.E, p_.T, w_.dy_panels + rows.begin * NR);
    }
  }

  void begin_keys(Index s0, Index n, int wanted) {
    const T* k = of(p_.k) + s0 * p_.k.row;
    pack_transposed(k, p_.k.row, n, p_.D, w_.keys);
    pack_transposed(of(p_.v) + s0 * p_.v.row, p_.v.row, n, p_.E, w_.values);
    if (wanted & kQ) pack_straight(k, p_.k.row, n, p_.D, kKeys, w_.key_panels);
    if (wanted & kKV) {
      fill(w_.dk, n * w_.d_ld, T(0));
      fill(w_.dv, n * w_.e_ld, T(0));
    }
  }

  // Fills w.p and w.ds for a tile, with 0 for keys out of sight; meanwhile adds to dq, or stores dbias.
  void probabilities(Index t0, Index height, Index s0, Index n, int wanted) {
    constexpr int W = lanes<T>;
    const Panels panels(height, MR);
    for (Index i = 0; i < panels.count; ++i) {
      const Index r = panels.begin(i), t = t0 + r;
      const int rows = panels.size(i);
      T *p = w_.p + r * kKeys, *ds = w_.ds + r * kKeys;
      const Index seen = larger<Index>(0, smaller(n, keys_seen(p_, t + rows - 1) - s0));
      if (seen > 0) {
        logits(p_, t, rows, s0, seen, w_.q + t * p_.D, w_.keys, bias_, p);
        multiply_panel(rows, seen, p_.E, {dy_ + t * g_.dy.row, g_.dy.row, 1}, {w_.values, p_.E * NR}, ds, kKeys, false);
      }
      for (int j = 0; j < rows; ++j) {
        const T shift = w_.shift[t + j], along = w_.along[t + j];
        T *to_p = p + j * kKeys, *to_ds = ds + j * kKeys;
        Index s = 0;
        for (; s < seen; s += W) {
          const vec<T> e = exp2(load(to_p + s) - shift);
          store(to_p + s, e);
          store(to_ds + s, e * (load(to_ds + s) - along));
        }
        if (s < n) {
          fill(to_p + s, n - s, T(0));
          fill(to_ds + s, n - s, T(0));
        }
      }
      if (wanted & kQ && seen > 0)
        multiply_panel(rows, p_.D, seen, {ds, kKeys, 1}, {w_.key_panels, kKeys * NR}, w_.dq + t * w_.d_ld, w_.d_ld,
                       true);
      if (wanted & kBias) scale_rows(rows, n, ds, kKeys, T(1), dbias_ + t * g_.dbias.row + s0, g_.dbias.row);
    }
  }

  void add_to_keys(Index t0, Index height, Index s0, Index n) {
    const Panels panels(n, MR);
    for (Index i = 0; i < panels.count; ++i) {
      const Index s = panels.begin(i),
                  hidden = p_.causal ? larger<Index>(0, s0 + s - t0) : 0;  // rows that do not see s
      if (hidden >= height) break;
      const int keys = panels.size(i);
      const Index from = hidden * kKeys + s, row = (t0 + hidden) * NR;
      multiply_panel(keys, p_.D, height - hidden, {w_.ds + from, 1, kKeys}, {w_.q_panels + row, p_.T * NR},
                     w_.dk + s * w_.d_ld, w_.d_ld, true);
      multiply_panel(keys, p_.E, height - hidden, {w_.p + from, 1, kKeys}, {w_.dy_panels + row, p_.T * NR},
                     w_.dv + s * w_.e_ld, w_.e_ld, true);
    }
  }

  const AttentionGrad& g_;
  const Attention& p_;
  BackwardSpace<T>& w_;
  const Index head_;
  const T *const bias_, *const dy_;
  T* const dbias_;
};

template <class T>
void in_tiles(const AttentionGrad& g, Index length, Index tile, int wanted) {
  const Attention& p = g.of;
  const Index tiles = (length + tile - 1) / tile;
  for_units<BackwardSpace<T>>(g, heads_of(p) * tiles, work_of(p), [&](Index unit, BackwardSpace<T>& w) {
    const Index begin = unit % tiles * tile;
    const Range part{begin, smaller(length, begin + tile)};
    Backward<T>(g, unit / tiles, w)
        .run(wanted == kKV ? Range{0, p.T} : part, wanted == kKV ? part : Range{0, p.S}, wanted);
  });
}

// Either whole heads in one pass, or in two: rows of dq, then rows of dk and dv. The bits are the same.
template <class T>
void backward(const AttentionGrad& g) {
  const Attention& p = g.of;
  if (g.dbias.data != nullptr) return in_tiles<T>(g, p.T, kRows, kBias);
  if (enough_heads(p)) return in_tiles<T>(g, p.T, p.T, kQ | kKV);
  in_tiles<T>(g, p.T, kRows, kQ);
  in_tiles<T>(g, p.S, kKeys, kKV);
}

template <class T>
AttentionKernels::Of of() {
  return {forward<T>, backward<T>};
}

}  // namespace

void fill_attention(Kernels& kernels) { kernels.attention = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
