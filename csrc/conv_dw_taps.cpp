// Gradient of a convolution with respect to its weights, where each group has one channel (grey images, depthwise
// layers): dw[o, tap] = the sum over pixels of dy[o, pixel] x[pixel + tap]. Vectors run over the pixels of a row, which
// both arrays have in order, as the planes of conv_axis.h do for every stride. Sums are made lane by lane, in a number
// of chunks of the batch that the shape alone decides, and added up at the end.
#include <algorithm>

#include "conv.h"
#include "conv_chunks.h"
#include "conv_planes.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"

namespace dlcore {
namespace DL_ISA {
namespace {

// For several uses: a load that is folded into a multiply-add would be repeated in each.
template <class T>
DL_INLINE vec<T> load_once(const T* p) {
  vec<T> x = load(p);
#if defined(__x86_64__)
  asm("" : "+v"(x));
#endif
  return x;
}

constexpr int kFeatures = kVectorRegisters == 32 ? 8 : 4, kTaps = 3;  // a register tile
constexpr int kManyTaps = 9;                                          // of one feature
constexpr Index kPixels = 800;  // at a time: kFeatures times as many elements of dy stay in L1
constexpr Index kApart = 4;     // features, from which columns of taps have planes of their own

// sums[m*sum_step + k*lanes] += the sum over runs y and their places i of dy[m*dy_step + y*dy_run + i]
// x[offset[k] + y*x_run + i], lane by lane.
template <class T>
struct Taps {
  Index runs, length;
  const T* dy;
  Index dy_step, dy_run;
  const T* x;
  const Index* offset;
  Index x_run;
  T* sums;
  Index sum_step;
  const T* ahead;  // dy as it will be needed next,
  Index to_fetch;  // and of how many features it is fetched meanwhile
};

template <class T, int Features, int Count>
void add_taps(const Taps<T>& given) {
  constexpr int W = lanes<T>;
  const Taps<T> t = given;  // a copy, which no store can change
  vec<T> sum[Features][Count];
  static_for<Features>([&](auto m) DL_INLINE_LAMBDA {
    static_for<Count>([&](auto k) DL_INLINE_LAMBDA { sum[m][k] = load(t.sums + m * t.sum_step + k * W); });
  });
  const T *from[Count], *dy[(Features + 2) / 3];  // every third, so that addresses need no arithmetic
  static_for<Count>([&](auto k) DL_INLINE_LAMBDA { from[k] = t.x + t.offset[k]; });
  static_for<(Features + 2) / 3>([&](auto m) DL_INLINE_LAMBDA { dy[m] = t.dy + 3 * m * t.dy_step; });
  const auto add = [&](Index at, Index in_x, auto read) DL_INLINE_LAMBDA {
    vec<T> x[Count];
    static_for<Count>([&](auto k) DL_INLINE_LAMBDA { x[k] = read(from[k] + in_x); });
    static_for<Features>([&](auto m) DL_INLINE_LAMBDA {
      const vec<T> d = read(dy[m / 3] + m % 3 * t.dy_step + at);
      static_for<Count>([&](auto k) DL_INLINE_LAMBDA { sum[m][k] = fma(d, x[k], sum[m][k]); });
    });
  };
  const Index rest = t.length % W, whole = t.length - rest;
  for (Index y = 0, at = 0, in_x = 0; y < t.runs; ++y, at += t.dy_run, in_x += t.x_run) {
    for (Index i = 0; i < whole; i += W) {
      for (Index m = 0; m < t.to_fetch; ++m) __builtin_prefetch(t.ahead + m * t.dy_step + at + i, 0, 2);
      add(at + i, in_x + i, [](const T* p) DL_INLINE_LAMBDA { return load_once(p); });
    }
    if (rest > 0) add(at + whole, in_x + whole, [&](const T* p) DL_INLINE_LAMBDA { return load(p, rest); });
  }
  static_for<Features>([&](auto m) DL_INLINE_LAMBDA {
    static_for<Count>([&](auto k) DL_INLINE_LAMBDA { store(t.sums + m * t.sum_step + k * W, sum[m][k]); });
  });
}

// By features, a power of two, and taps.
template <class T>
struct AddTaps {
  void (*run[kFeatures + 1][kTaps + 1])(const Taps<T>&) = {};
  void (*many)(const Taps<T>&) = add_taps<T, 1, kManyTaps>;
  constexpr AddTaps() {
    static_for<kTaps>([&](auto k) {
      constexpr int kCount = decltype(k)() + 1;
      run[1][kCount] = add_taps<T, 1, kCount>;
      run[2][kCount] = add_taps<T, 2, kCount>;
      run[4][kCount] = add_taps<T, 4, kCount>;
      run[kFeatures][kCount] = add_taps<T, kFeatures, kCount>;
    });
  }
};
template <class T>
constexpr AddTaps<T> add_taps_of;

template <class T>
struct Layout {
  const Conv2d& p;
  Axis ys, xs;
  Index features, taps;  // of a group
  Index rows;            // of dy at a time
  Index plane;           // elements of a plane that they need
  Index chunks, parts;   // of the batch, of the features

  DL_INLINE Layout(const Conv2d& p, int nt)
      : p(p),
        ys(forward_axis(p.H, p.P, p.KH, p.stride[0], p.dilation[0], p.padding[0])),
        xs((p.O / p.groups >= kApart ? axis_of_taps : forward_axis)(p.W, p.Q, p.KW, p.stride[1], p.dilation[1],
                                                                    p.padding[1])),
        features(p.O / p.groups),
        taps(p.KH * p.KW) {
    const Index most = larger<Index>(1, kPixels / p.Q), blocks = (p.P + most - 1) / most;
    rows = (p.P + blocks - 1) / blocks;
    plane = plane_rows() * xs.places;
    chunks = chunks_of(p.N, p.O * sums(), 16, 1 << 19);
    parts = parts_of((features + kFeatures - 1) / kFeatures, chunks * p.groups, nt);
  }
  DL_INLINE Index plane_rows() const { return rows + ys.halo(); }
  DL_INLINE Index sums() const { return taps * lanes<T>; }  // of a feature
  DL_INLINE Index image() const { return ys.planes * xs.planes * plane + lanes<T>; }
  DL_INLINE Index offset(Index tap) const { return offset_of(xs, ys.tap(0, tap / p.KW), xs.tap(0, tap % p.KW), plane); }
};

// Adds the terms of some rows to the sums of some features. dy comes into L1 for the first taps; the others leave time
// to fetch what follows, from t.ahead on, into L2.
template <class T>
void add_rows(const Layout<T>& l, Taps<T> t, int features) {
  const Index others = (l.taps - 1) / kTaps;
  for (Index tap = 0, some; tap < l.taps; tap += some, t.offset += some, t.sums += some * lanes<T>) {
    const bool many = features == 1 && l.taps - tap >= kManyTaps;
    some = many ? kManyTaps : smaller<Index>(kTaps, l.taps - tap);
    t.ahead += t.to_fetch * t.dy_step;
    t.to_fetch = tap == 0 ? 0 : features * (tap / kTaps) / others - features * (tap / kTaps - 1) / others;
    (many ? add_taps_of<T>.many : add_taps_of<T>.run[features][some])(t);
  }
}

// Where each tap begins in the planes.
template <class T>
class Offsets {
 public:
  DL_INLINE Offsets(const Layout<T>& l) : memory_(sizeof(Index) * size_t(l.taps)) {
    for (Index tap = 0; tap < l.taps; ++tap) data()[tap] = l.offset(tap);
  }
  DL_INLINE Index* data() const { return static_cast<Index*>(memory_.data()); }

 private:
  const Scratch memory_;
};

// The sums of one chunk of the batch for one part of a group's features.
template <class T>
void add_chunk(const Layout<T>& l, const T* x, const T* dy, const Offsets<T>& offsets, Index chunk, Index group,
               Index part, T* planes, T* sums) {
  const Conv2d& p = l.p;
  const Index begin = l.features * part / l.parts, end = l.features * (part + 1) / l.parts, pixels = p.P * p.Q;
  std::fill(sums + begin * l.sums(), sums + end * l.sums(), T(0));
  for (Index n = p.N * chunk / l.chunks; n < p.N * (chunk + 1) / l.chunks; ++n) {
    const T* const image = x + (n * p.groups + group) * p.H * p.W;
    const T* const from = dy + (n * p.groups + group) * l.features * pixels;
    for (Index row = 0; row < p.P; row += l.rows) {
      fill_planes(l.ys, l.xs, image, 1, row, l.plane_rows(), planes);
      const Index rows = smaller(l.rows, p.P - row);
      const bool joined = l.xs.places == p.Q;  // rows are as long in planes as in dy
      const Index next_rows = (row + l.rows < p.P ? row + l.rows : p.groups * l.features * p.P) * p.Q;
      int some = kFeatures;
      for (Index m = begin; m < end; m += some) {
        while (some > end - m) some /= 2;
        const T* const ahead = from + (m + some < end ? (m + some) * pixels + row * p.Q : begin * pixels + next_rows);
        add_rows(l,
                 {joined ? 1 : rows, joined ? rows * p.Q : p.Q, from + m * pixels + row * p.Q, pixels, p.Q, planes,
                  offsets.data(), l.xs.places, sums + m * l.sums(), l.sums(), ahead, 0},
                 some);
      }
    }
  }
}

// dw of one feature: the chunks in order, then the lanes.
template <class T>
void finish(const Layout<T>& l, const T* sums, T* dw) {
  for (Index tap = 0; tap < l.taps; ++tap, sums += lanes<T>) {
    vec<T> total = load(sums);
    for (Index chunk = 1; chunk < l.chunks; ++chunk) total += load(sums + chunk * l.p.O * l.sums());
    dw[tap] = sum<T>(total);
  }
}

}  // namespace

template <class T>
void conv_dw_taps(const Conv2d& p, const T* x, const T* dy, T* dw) {
  const double work = double(p.N * p.O * p.P * p.Q) * double(p.KH * p.KW);
  const int width = work < kConvWorthATeam ? 1 : num_threads();
  const Layout<T> l(p, width);
  const Offsets<T> offsets(l);
  const Scratch memory(sizeof(T) * size_t(l.chunks * p.O * l.sums() + width * l.image()));
  T* const sums = static_cast<T*>(memory.data());
  T* const planes = sums + l.chunks * p.O * l.sums();
  Shares shares(width);
  team().run(
      [&](int tid, int nt) {
        shares.each(tid, nt, l.chunks * p.groups * l.parts, [&](Index i) {
          const Index part = i % l.parts, group = i / l.parts % p.groups, chunk = i / l.parts / p.groups;
          add_chunk(l, x, dy, offsets, chunk, group, part, planes + tid * l.image(),
                    sums + (chunk * p.O + group * l.features) * l.sums());
        });
        team().barrier();
        for (Index o = p.O * tid / nt; o < p.O * (tid + 1) / nt; ++o) finish(l, sums + o * l.sums(), dw + o * l.taps);
      },
      width);
}

template void conv_dw_taps<float>(const Conv2d&, const float*, const float*, float*);
template void conv_dw_taps<double>(const Conv2d&, const double*, const double*, double*);

}  // namespace DL_ISA
}  // namespace dlcore
