// Batch norm of contiguous x[N][C][S], and the sums over all but the channels that every norm's gradient needs.
//
// Statistics and sums take two launches: partial ones of `parts` slices, then those of each channel. Slices are made of
// items: one warp takes an item at a time. Where S is not 1 an item is a segment of a row x[n][c], and a block works on
// one channel; where S = 1 it is a row x[n] of 32 vectors of neighbouring channels.
//
// batch_norm_moments_<t>(x, moments[parts][C], shape), batch_norm_sums_<t>(dy, x, mean, rate, sums[parts][C], shape):
//   sums of dy (x - mean) rate and of dy. shape.groups = 0: mean is of each channel, and rate is left out; else both
//   are of each of `groups` groups of channels of each example.
//   Grid: parts x C, or parts x (C / channels of a block rounded up) where S = 1; block: 256; shared: as much as the
//   accumulators of a tile of channels for each warp.
// batch_norm_statistics_<t>(moments, mean, var, wide_mean, wide_var, shape): both in two precisions.
// batch_norm_totals_<t>(sums, wide_var, dscale, dbias, wide_sums[2][C], shape): null where an output is not wanted;
//   wide_var multiplies the first sum by 1 / sqrt(var + eps). Grid: C / 256 rounded up; block: 256.
// batch_norm_apply_<t>(x, mean, var, scale, bias, y, shape): y = (x - mean) / sqrt(var + eps) scale + bias.
// batch_norm_dx_<t>(dy, x, mean, var, scale, sums[2][C], dmean, dvar, dx, shape).
//   mean, var, sums: wide. Grid: as for the sums, but any number of warps where S is not 1; block: 256; no shared
//   memory.
#include "moments.cuh"

struct Channels {
  double eps;
  unsigned examples, channels, inner;  // N, C, S
  unsigned groups, group_channels;
  unsigned segment, segments;   // elements of an item where S is not 1, and how many items a row has
  unsigned items, span, parts;  // of a channel or of a tile of channels; of a part; how many parts
  int vectors;                  // as row.cuh has it
};

// What a part of the data has in one channel, put together with other parts.
template <class R>
struct Sums {
  R along = R(0), plain = R(0);  // of dy z and of dy
  DL_DEVICE void add(R dy, R z) {
    along += dy * z;
    plain += dy;
  }
  DL_DEVICE void merge(const Sums& other) {
    along += other.along;
    plain += other.plain;
  }
  template <int LANES>
  DL_DEVICE void join_lanes() {
    along = join<LANES>(along, Add());
    plain = join<LANES>(plain, Add());
  }
};

// A stretch of a row: elements from `base` up to `end` of what begins at `start`, in example n and channel `channel`
// (where S = 1: in channels from base on).
struct Stretch {
  unsigned long long start;
  unsigned base, end, example, channel;
};

DL_DEVICE Stretch stretch_of_channel(const Channels& s, unsigned channel, unsigned item) {
  const unsigned example = item / s.segments, base = (item - example * s.segments) * s.segment;
  const unsigned long long row = (unsigned long long)example * s.channels + channel;
  return {row * s.inner, base, s.inner - base < s.segment ? s.inner : base + s.segment, example, channel};
}

// ---- partial statistics and sums

template <class T>
struct MomentsOf {
  using Part = Moments<wide<T>>;
  const T* x;
  DL_DEVICE void add(Part (&acc)[kPerVector<T>], const Stretch& at, unsigned base, int lane, const Channels& s) const {
    wide<T> part[kPerVector<T>];
    load_tile<kWarp>(x + at.start, base, at.end, lane, s.vectors, wide<T>(0), part);
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j)
      if (place<T, kWarp>(base, lane, j, s.vectors) < at.end) acc[j].add(part[j]);
  }
};

template <class T>
struct SumsOf {
  using R = wide<T>;
  using Part = Sums<R>;
  const T *dy, *x;
  const R *mean, *rate;
  DL_DEVICE void add(Part (&acc)[kPerVector<T>], const Stretch& at, unsigned base, int lane, const Channels& s) const {
    R g[kPerVector<T>], part[kPerVector<T>];
    load_tile<kWarp>(dy + at.start, base, at.end, lane, s.vectors, R(0), g);
    load_tile<kWarp>(x + at.start, base, at.end, lane, s.vectors, R(0), part);
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) {
      const unsigned i = place<T, kWarp>(base, lane, j, s.vectors);
      const unsigned channel = s.inner != 1 ? at.channel : i < at.end ? i : 0;
      const unsigned k = s.groups == 0   ? channel
                         : s.groups == 1 ? at.example
                                         : at.example * s.groups + channel / s.group_channels;
      acc[j].add(g[j], (part[j] - mean[k]) * (s.groups == 0 ? R(1) : rate[k]));
    }
  }
};

template <class T, class Of>
DL_DEVICE void parts_of_channel(const Of& of, typename Of::Part* parts, const Channels& s) {
  const unsigned part = blockIdx.x / s.channels, channel = blockIdx.x - part * s.channels;
  const unsigned end = s.items - part * s.span < s.span ? s.items : (part + 1) * s.span;
  const int lane = threadIdx.x % kWarp;
  typename Of::Part acc[kPerVector<T>];
  DL_ROLLED
  for (unsigned item = part * s.span + threadIdx.x / kWarp; item < end; item += kWarpsPerBlock) {
    const Stretch at = stretch_of_channel(s, channel, item);
    DL_ROLLED
    for (unsigned base = at.base; base < at.end; base += kTile<T, kWarp>) of.add(acc, at, base, lane, s);
  }
  DL_UNROLL
  for (int j = 1; j < kPerVector<T>; ++j) acc[0].merge(acc[j]);
  acc[0].template join_lanes<kBlock>();
  if (threadIdx.x == 0) parts[blockIdx.x] = acc[0];
}

template <class T, class Of>
DL_DEVICE void parts_of_columns(const Of& of, typename Of::Part* parts, const Channels& s) {
  using Part = typename Of::Part;
  constexpr unsigned kColumns = kTile<T, kWarp>;
  __shared__ unsigned char memory[kWarpsPerBlock * kColumns * sizeof(Part)] __attribute__((aligned(16)));
  Part(*of_warp)[kColumns] = reinterpret_cast<Part(*)[kColumns]>(memory);
  const unsigned tiles = (s.channels + kColumns - 1) / kColumns;
  const unsigned part = blockIdx.x / tiles, base = (blockIdx.x - part * tiles) * kColumns;
  const unsigned end = s.items - part * s.span < s.span ? s.items : (part + 1) * s.span;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Part acc[kPerVector<T>];
  DL_ROLLED
  for (unsigned n = part * s.span + warp; n < end; n += kWarpsPerBlock)
    of.add(acc, {(unsigned long long)n * s.channels, base, s.channels, n, 0}, base, lane, s);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) of_warp[warp][j * kWarp + lane] = acc[j];
  __syncthreads();
  if (threadIdx.x < kColumns) {
    Part all = of_warp[0][threadIdx.x];
    for (int i = 1; i < kWarpsPerBlock; ++i) all.merge(of_warp[i][threadIdx.x]);
    const unsigned channel = place<T, kWarp>(base, lane, warp, s.vectors);
    if (channel < s.channels) parts[part * s.channels + channel] = all;
  }
}

template <class T, class Of>
DL_DEVICE void parts_of(const Of& of, typename Of::Part* parts, const Channels& s) {
  if (s.inner != 1) parts_of_channel<T>(of, parts, s);
  else parts_of_columns<T>(of, parts, s);
}

template <class Part>
DL_DEVICE Part whole(const Part* parts, unsigned channel, const Channels& s) {
  Part all;
  for (unsigned part = 0; part < s.parts; ++part) all.merge(parts[part * s.channels + channel]);
  return all;
}

template <class T>
DL_DEVICE void batch_norm_statistics(const Moments<wide<T>>* parts, T* mean, T* var, wide<T>* wide_mean,
                                     wide<T>* wide_var, const Channels& s) {
  using R = wide<T>;
  const unsigned channel = blockIdx.x * kBlock + threadIdx.x;
  if (channel >= s.channels) return;
  const Moments<R> all = whole(parts, channel, s);
  wide_mean[channel] = all.mean;
  wide_var[channel] = all.squares / (all.count > R(0) ? all.count : R(1));
  mean[channel] = narrow<T>(wide_mean[channel]);
  var[channel] = narrow<T>(wide_var[channel]);
}

template <class R>
DL_DEVICE R rate_of(R var, const Channels& s) {
  return R(1) / sqrt(var + R(s.eps));
}

template <class T>
DL_DEVICE void batch_norm_totals(const Sums<wide<T>>* parts, const wide<T>* var, T* dscale, T* dbias, wide<T>* sums,
                                 const Channels& s) {
  const unsigned channel = blockIdx.x * kBlock + threadIdx.x;
  if (channel >= s.channels) return;
  Sums<wide<T>> all = whole(parts, channel, s);
  if (var != nullptr) all.along *= rate_of(var[channel], s);
  if (dscale != nullptr) dscale[channel] = narrow<T>(all.along);
  if (dbias != nullptr) dbias[channel] = narrow<T>(all.plain);
  if (sums != nullptr) {
    sums[channel] = all.along;
    sums[s.channels + channel] = all.plain;
  }
}

// ---- element-wise passes

// out = x times (x - mean) + dy times dy + constant in one channel.
template <class R>
struct Line {
  R mean, of_x, of_dy, constant;
  DL_DEVICE R operator()(R dy, R x) const { return (x - mean) * of_x + dy * of_dy + constant; }
};

template <class T>
struct Apply {
  using R = wide<T>;
  static constexpr bool kGradient = false;
  const T *x, *dy;
  const R *mean, *var;
  const T *scale, *bias;
  DL_DEVICE Line<R> line(unsigned channel, const Channels& s) const {
    const R rate = rate_of(var[channel], s);
    return {mean[channel], scale == nullptr ? rate : rate * widen(scale[channel]), R(0),
            bias == nullptr ? R(0) : widen(bias[channel])};
  }
};

// dx = rate scale (dy - mean(dy) - z mean(dy z)) + (dmean + 2 dvar (x - mean)) / count, z = (x - mean) rate
template <class T>
struct Gradient {
  using R = wide<T>;
  static constexpr bool kGradient = true;
  const T *x, *dy;
  const R *mean, *var, *sums;
  const T *scale, *dmean, *dvar;
  DL_DEVICE Line<R> line(unsigned channel, const Channels& s) const {
    const R count = R(s.examples) * R(s.inner), rate = rate_of(var[channel], s);
    const R of_dy = scale == nullptr ? rate : rate * widen(scale[channel]);
    const R of_x = (R(2) * widen(dvar[channel]) - of_dy * rate * sums[channel]) / count;
    const R constant = (widen(dmean[channel]) - of_dy * sums[s.channels + channel]) / count;
    return {mean[channel], of_x, of_dy, constant};
  }
};

template <class T, class Of>
DL_DEVICE void map_tile(const Of& of, T* out, const Stretch& at, unsigned base, int lane, int vectors,
                        const Line<wide<T>> (&line)[kPerVector<T>]) {
  wide<T> dy[kPerVector<T>] = {}, x[kPerVector<T>];
  load_tile<kWarp>(of.x + at.start, base, at.end, lane, vectors, wide<T>(0), x);
  if (Of::kGradient) load_tile<kWarp>(of.dy + at.start, base, at.end, lane, vectors, wide<T>(0), dy);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) x[j] = line[j](dy[j], x[j]);
  store_tile<kWarp>(out + at.start, base, at.end, lane, vectors, x);
}

template <class T, class Of>
DL_DEVICE void map_channels(const Of& of, T* out, const Channels& s) {
  const unsigned items = s.items * s.channels;
  const int lane = threadIdx.x % kWarp;
  DL_ROLLED
  for (unsigned i = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; i < items; i += gridDim.x * kWarpsPerBlock) {
    const unsigned row = i / s.segments, example = row / s.channels, channel = row - example * s.channels;
    const Stretch at = stretch_of_channel(s, channel, example * s.segments + (i - row * s.segments));
    Line<wide<T>> line[kPerVector<T>];
    line[0] = of.line(channel, s);
    DL_UNROLL
    for (int j = 1; j < kPerVector<T>; ++j) line[j] = line[0];
    DL_ROLLED
    for (unsigned base = at.base; base < at.end; base += kTile<T, kWarp>)
      map_tile(of, out, at, base, lane, s.vectors, line);
  }
}

template <class T, class Of>
DL_DEVICE void map_columns(const Of& of, T* out, const Channels& s) {
  constexpr unsigned kColumns = kTile<T, kWarp>;
  const unsigned tiles = (s.channels + kColumns - 1) / kColumns;
  const unsigned part = blockIdx.x / tiles, base = (blockIdx.x - part * tiles) * kColumns;
  const unsigned end = s.items - part * s.span < s.span ? s.items : (part + 1) * s.span;
  const int lane = threadIdx.x % kWarp;
  Line<wide<T>> line[kPerVector<T>];
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) {
    const unsigned channel = place<T, kWarp>(base, lane, j, s.vectors);
    line[j] = of.line(channel < s.channels ? channel : 0, s);
  }
  DL_ROLLED
  for (unsigned n = part * s.span + threadIdx.x / kWarp; n < end; n += kWarpsPerBlock)
    map_tile(of, out, {(unsigned long long)n * s.channels, base, s.channels, n, 0}, base, lane, s.vectors, line);
}

template <class T, class Of>
DL_DEVICE void map(const Of& of, T* out, const Channels& s) {
  if (s.inner != 1) map_channels(of, out, s);
  else map_columns(of, out, s);
}

// ---- the kernels

template <class T>  // blocks that a multiprocessor holds at least: ptxas spills where it aims at more, but for float
constexpr int kResident = sizeof(T) == 2   ? 3
                          : sizeof(T) == 8 ? 4
                                           : 0;

#define DL_KERNEL(name, T, suffix, ...) \
  extern "C" __global__ void __launch_bounds__(kBlock, kResident<T>) batch_norm_##name##_##suffix(__VA_ARGS__)
#define DL_BATCH_NORM(T, suffix)                                                                                       \
  DL_KERNEL(moments, T, suffix, const T* x, Moments<wide<T>>* moments, Channels s) {                                   \
    parts_of<T>(MomentsOf<T>{x}, moments, s);                                                                          \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_moments_##suffix)                                                                               \
  DL_KERNEL(sums, T, suffix, const T* dy, const T* x, const wide<T>* mean, const wide<T>* rate, Sums<wide<T>>* sums,   \
            Channels s) {                                                                                              \
    parts_of<T>(SumsOf<T>{dy, x, mean, rate}, sums, s);                                                                \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_sums_##suffix)                                                                                  \
  DL_KERNEL(statistics, T, suffix, const Moments<wide<T>>* moments, T* mean, T* var, wide<T>* wide_mean,               \
            wide<T>* wide_var, Channels s) {                                                                           \
    batch_norm_statistics(moments, mean, var, wide_mean, wide_var, s);                                                 \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_statistics_##suffix)                                                                            \
  DL_KERNEL(totals, T, suffix, const Sums<wide<T>>* sums, const wide<T>* var, T* dscale, T* dbias, wide<T>* wide_sums, \
            Channels s) {                                                                                              \
    batch_norm_totals(sums, var, dscale, dbias, wide_sums, s);                                                         \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_totals_##suffix)                                                                                \
  DL_KERNEL(apply, T, suffix, const T* x, const wide<T>* mean, const wide<T>* var, const T* scale, const T* bias,      \
            T* y, Channels s) {                                                                                        \
    map(Apply<T>{x, nullptr, mean, var, scale, bias}, y, s);                                                           \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_apply_##suffix)                                                                                 \
  DL_KERNEL(dx, T, suffix, const T* dy, const T* x, const wide<T>* mean, const wide<T>* var, const T* scale,           \
            const wide<T>* sums, const T* dmean, const T* dvar, T* dx, Channels s) {                                   \
    map(Gradient<T>{x, dy, mean, var, sums, scale, dmean, dvar}, dx, s);                                               \
  }                                                                                                                    \
  DL_EXPORT(batch_norm_dx_##suffix)
DL_FOR_FLOATS(DL_BATCH_NORM)
