// Layer norm, RMS norm and group norm of contiguous x[rows][n], and their gradients for x.
//
// norm_warp_<t>(x, scale, bias, y, norm): one warp a row, the row in registers: n <= 512 (f64: 256).
// norm_block_<t>(...): one block a row, the row in registers: n <= 4096 (f64: 2048).
// norm_long_<t>(...): one block a row, which is read twice. Only here may a row be a group of `group_channels` channels
//   of `inner` elements each, one of `groups` of an example; elsewhere each element has a scale and bias of its own.
// norm_grad_{warp,block,long}_<t>(dy, x, scale, dx, mean, rate, norm): also writes each row's mean and
//   1 / sqrt(variance + eps), from which batch_norm.cu sums the gradients of scale and bias. long: x is read three
//   times. Grid: any, warps or blocks stride over rows; block: 256; shared: one number a warp.
// scale, bias: of all elements of a row, or of all channels of an example; or null.
#include "moments.cuh"

struct Norm {
  double eps;
  unsigned rows, n;
  unsigned groups, group_channels, inner;  // groups: 0 where each element of a row has a scale and bias of its own
  int centre;                              // whether the mean is subtracted
  int vectors;                             // of rows, scale and bias, as row.cuh has it
};

// Scale or bias at the lane's elements of a tile: each has its own, or (GROUPED) each channel of the row's group.
template <int LANES, bool GROUPED, class T>
DL_DEVICE void load_channels(const T* v, unsigned row, unsigned base, int lane, const Norm& norm, wide<T> missing,
                             wide<T> (&out)[kPerVector<T>]) {
  if (v != nullptr && !(GROUPED && norm.groups))
    return load_tile<LANES>(v, base, norm.n, lane, norm.vectors, missing, out);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) out[j] = missing;
  if constexpr (GROUPED) {
    if (v == nullptr) return;
    v += row % norm.groups * norm.group_channels;
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) {
      const unsigned i = place<T, LANES>(base, lane, j, norm.vectors);
      if (i < norm.n) out[j] = widen(v[i / norm.inner]);
    }
  }
}

// What is subtracted of a row's elements, and what they are multiplied with.
template <class R>
struct Statistics {
  R mean, rate;
  DL_DEVICE Statistics(R mean, R squares, const Norm& norm)
      : mean(mean), rate(R(1) / sqrt(squares / R(norm.n) + R(norm.eps))) {}
};

template <class T, int LANES>
DL_DEVICE Statistics<wide<T>> statistics_of_held(const wide<T> (&x)[kTiles<T>][kPerVector<T>], int lane,
                                                 const Norm& norm) {
  using R = wide<T>;
  R mean = R(0), squares = R(0);
  if (norm.centre) {
    each_held<T, LANES>(norm.n, [&](int tile, unsigned) {
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) mean += x[tile][j];
    });
    mean = join<LANES>(mean, Add()) / R(norm.n);
  }
  each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) {
      const R off = place<T, LANES>(base, lane, j, norm.vectors) < norm.n ? x[tile][j] - mean : R(0);
      squares += off * off;
    }
  });
  return {mean, join<LANES>(squares, Add()), norm};
}

template <class T>
DL_DEVICE Statistics<wide<T>> statistics_of_long(const T* row, int lane, const Norm& norm) {
  using R = wide<T>;
  Moments<R> found;
  R squares = R(0), part[kPerVector<T>];
  each_tile<T, kBlock>(norm.n, [&](unsigned base) {
    load_tile<kBlock>(row, base, norm.n, lane, norm.vectors, R(0), part);
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j)
      if (!norm.centre) squares += part[j] * part[j];
      else if (place<T, kBlock>(base, lane, j, norm.vectors) < norm.n) found.add(part[j]);
  });
  if (!norm.centre) return {R(0), join<kBlock>(squares, Add()), norm};
  found.template join_lanes<kBlock>();
  return {found.mean, found.squares, norm};
}

template <class T, int LANES, bool GROUPED>
DL_DEVICE void store_normalised(T* y, const wide<T> (&x)[kPerVector<T>], const Statistics<wide<T>>& of, const T* scale,
                                const T* bias, unsigned row, unsigned base, int lane, const Norm& norm) {
  wide<T> by[kPerVector<T>], plus[kPerVector<T>];
  load_channels<LANES, GROUPED>(scale, row, base, lane, norm, wide<T>(1), by);
  load_channels<LANES, GROUPED>(bias, row, base, lane, norm, wide<T>(0), plus);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) by[j] = (x[j] - of.mean) * of.rate * by[j] + plus[j];
  store_tile<LANES>(y, base, norm.n, lane, norm.vectors, by);
}

template <class T, int LANES>
DL_DEVICE void norm_held(const T* x, const T* scale, const T* bias, T* y, const Norm& norm) {
  each_row<LANES>(norm.rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * norm.n;
    wide<T> held[kTiles<T>][kPerVector<T>] = {};
    each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
      load_tile<LANES>(x + start, base, norm.n, lane, norm.vectors, wide<T>(0), held[tile]);
    });
    const Statistics<wide<T>> of = statistics_of_held<T, LANES>(held, lane, norm);
    each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
      store_normalised<T, LANES, false>(y + start, held[tile], of, scale, bias, row, base, lane, norm);
    });
  });
}

template <class T>
DL_DEVICE void norm_long(const T* x, const T* scale, const T* bias, T* y, const Norm& norm) {
  each_row<kBlock>(norm.rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * norm.n;
    const Statistics<wide<T>> of = statistics_of_long(x + start, lane, norm);
    DL_ROLLED
    for (unsigned base = 0; base < norm.n; base += kTile<T, kBlock>) {
      wide<T> part[kPerVector<T>];
      load_tile<kBlock>(x + start, base, norm.n, lane, norm.vectors, wide<T>(0), part);
      store_normalised<T, kBlock, true>(y + start, part, of, scale, bias, row, base, lane, norm);
    }
  });
}

// ---- gradient: with z = (x - mean) rate and dz = dy scale, dx = rate (dz - z mean(dz z) - mean(dz))

template <class R>
struct Sums {
  R along = R(0), plain = R(0);  // of dz z and of dz
  DL_DEVICE void add(R dz, R z) {
    along += dz * z;
    plain += dz;
  }
  template <int LANES>
  DL_DEVICE void join_lanes() {
    along = join<LANES>(along, Add());
    plain = join<LANES>(plain, Add());
  }
  DL_DEVICE R gradient(R dz, R z, R rate, const Norm& norm) const {
    return rate * (dz - z * (along / R(norm.n)) - (norm.centre ? plain / R(norm.n) : R(0)));
  }
};

// dz and z of the lane's elements of a tile; dz is 0 past the end of the row.
template <class T>
DL_DEVICE void load_pair(const T* dy, const T* x, const T* scale, const Statistics<wide<T>>& of, unsigned row,
                         unsigned base, int lane, const Norm& norm, wide<T> (&dz)[kPerVector<T>],
                         wide<T> (&z)[kPerVector<T>]) {
  wide<T> by[kPerVector<T>];
  load_tile<kBlock>(dy, base, norm.n, lane, norm.vectors, wide<T>(0), dz);
  load_tile<kBlock>(x, base, norm.n, lane, norm.vectors, wide<T>(0), z);
  load_channels<kBlock, true>(scale, row, base, lane, norm, wide<T>(1), by);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j) {
    dz[j] *= by[j];
    z[j] = (z[j] - of.mean) * of.rate;
  }
}

template <class T, int LANES>
DL_DEVICE void norm_grad_held(const T* dy, const T* x, const T* scale, T* dx, wide<T>* mean, wide<T>* rate,
                              const Norm& norm) {
  using R = wide<T>;
  each_row<LANES>(norm.rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * norm.n;
    R dz[kTiles<T>][kPerVector<T>] = {}, z[kTiles<T>][kPerVector<T>] = {};
    each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
      load_tile<LANES>(x + start, base, norm.n, lane, norm.vectors, R(0), z[tile]);
      load_tile<LANES>(dy + start, base, norm.n, lane, norm.vectors, R(0), dz[tile]);
    });
    const Statistics<R> of = statistics_of_held<T, LANES>(z, lane, norm);
    Sums<R> sums;
    each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
      R by[kPerVector<T>];
      load_channels<LANES, false>(scale, row, base, lane, norm, R(1), by);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) {
        dz[tile][j] *= by[j];
        z[tile][j] = (z[tile][j] - of.mean) * of.rate;
        sums.add(dz[tile][j], z[tile][j]);
      }
    });
    sums.template join_lanes<LANES>();
    each_held<T, LANES>(norm.n, [&](int tile, unsigned base) {
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) dz[tile][j] = sums.gradient(dz[tile][j], z[tile][j], of.rate, norm);
      store_tile<LANES>(dx + start, base, norm.n, lane, norm.vectors, dz[tile]);
    });
    if (lane == 0) mean[row] = of.mean, rate[row] = of.rate;
  });
}

template <class T>
DL_DEVICE void norm_grad_long(const T* dy, const T* x, const T* scale, T* dx, wide<T>* mean, wide<T>* rate,
                              const Norm& norm) {
  using R = wide<T>;
  each_row<kBlock>(norm.rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * norm.n;
    const Statistics<R> of = statistics_of_long(x + start, lane, norm);
    Sums<R> sums;
    R dz[kPerVector<T>], z[kPerVector<T>];
    DL_ROLLED
    for (unsigned base = 0; base < norm.n; base += kTile<T, kBlock>) {
      load_pair(dy + start, x + start, scale, of, row, base, lane, norm, dz, z);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) sums.add(dz[j], z[j]);
    }
    sums.template join_lanes<kBlock>();
    DL_ROLLED
    for (unsigned base = 0; base < norm.n; base += kTile<T, kBlock>) {
      load_pair(dy + start, x + start, scale, of, row, base, lane, norm, dz, z);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) dz[j] = sums.gradient(dz[j], z[j], of.rate, norm);
      store_tile<kBlock>(dx + start, base, norm.n, lane, norm.vectors, dz);
    }
    if (lane == 0) mean[row] = of.mean, rate[row] = of.rate;
  });
}

// ---- the kernels

#define DL_COMMA ,
#define DL_NORM_ROWS(way, body, T, suffix)                                                       \
  extern "C" __global__ void __launch_bounds__(kBlock, sizeof(T) == 2 ? 4 : 1)                   \
      norm_##way##_##suffix(const T* x, const T* scale, const T* bias, T* y, Norm norm) {        \
    norm_##body(x, scale, bias, y, norm);                                                        \
  }                                                                                              \
  DL_EXPORT(norm_##way##_##suffix)                                                               \
  extern "C" __global__ void __launch_bounds__(kBlock) norm_grad_##way##_##suffix(               \
      const T* dy, const T* x, const T* scale, T* dx, wide<T>* mean, wide<T>* rate, Norm norm) { \
    norm_grad_##body(dy, x, scale, dx, mean, rate, norm);                                        \
  }                                                                                              \
  DL_EXPORT(norm_grad_##way##_##suffix)
#define DL_NORM(T, suffix)                                \
  DL_NORM_ROWS(warp, held<T DL_COMMA kWarp>, T, suffix)   \
  DL_NORM_ROWS(block, held<T DL_COMMA kBlock>, T, suffix) \
  DL_NORM_ROWS(long, long<T>, T, suffix)
DL_FOR_FLOATS(DL_NORM)
