// Softmax and log-softmax of contiguous x[rows][n], or along the middle axis of x[outer][n][inner], and gradients.
//
// softmax_warp_<t>(x, y, rows, n, log, vectors): one warp a row, the row in registers: n <= 512 (f64: 256).
// softmax_block_<t>(...): one block a row, the row in registers: n <= 4096 (f64: 2048).
// softmax_long_<t>(...): one block a row, which is read twice.
//   log: whether y is the logarithm; vectors: as row.cuh has it.
//   Grid: any, warps or blocks stride over rows; block: 256; shared: two numbers a warp.
// softmax_columns_<t>(x, y, outer, n, inner, log): one thread a column.
//   Grid: outer * inner / 256 rounded up; block: 256; no shared memory.
// softmax_grad_{warp,block,long,columns}_<t>(dy, y, dx, ...): from y, which is the logarithm where log is 1.
//
// Rows of -inf alone give 0. A warp's or block's sums have an order that n alone decides.
#include "exponentials.cuh"

// An element of the result; `shift` and `total` as Exponentials has them.
template <class R>
struct Softmax {
  R shift, factor;
  bool log_too;
  DL_DEVICE Softmax(const Exponentials<R>& row, bool log_too) : shift(shift_of(row.top)), log_too(log_too) {
    const R total = row.total == R(0) ? R(1) : row.total;
    factor = log_too ? log(total) : R(1) / total;
  }
  DL_DEVICE R operator()(R x) const { return log_too ? (x - shift) - factor : exp(x - shift) * factor; }
};

template <class T, int LANES>
DL_DEVICE void softmax_held(const T* x, T* y, unsigned rows, unsigned n, bool log_too, int vectors) {
  using R = wide<T>;
  each_row<LANES>(rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * n;
    R held[kTiles<T>][kPerVector<T>] = {};
    each_held<T, LANES>(n, [&](int tile, unsigned base) {
      load_tile<LANES>(x + start, base, n, lane, vectors, R(-INFINITY), held[tile]);
    });
    const Softmax<R> f(exponentials_of_held<T, LANES>(held, n), log_too);
    each_held<T, LANES>(n, [&](int tile, unsigned base) {
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) held[tile][j] = f(held[tile][j]);
      store_tile<LANES>(y + start, base, n, lane, vectors, held[tile]);
    });
  });
}

template <class T>
DL_DEVICE void softmax_long(const T* x, T* y, unsigned rows, unsigned n, bool log_too, int vectors) {
  using R = wide<T>;
  each_row<kBlock>(rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * n;
    Exponentials<R> found;
    R part[kPerVector<T>];
    each_tile<T, kBlock>(n, [&](unsigned base) {
      load_tile<kBlock>(x + start, base, n, lane, vectors, R(-INFINITY), part);
      found.add(part);
    });
    found.template join_lanes<kBlock>();
    const Softmax<R> f(found, log_too);
    each_tile<T, kBlock>(n, [&](unsigned base) {
      load_tile<kBlock>(x + start, base, n, lane, vectors, R(0), part);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) part[j] = f(part[j]);
      store_tile<kBlock>(y + start, base, n, lane, vectors, part);
    });
  });
}

template <class T>
DL_DEVICE void softmax_columns(const T* x, T* y, unsigned outer, unsigned n, unsigned inner, bool log_too) {
  const unsigned column = blockIdx.x * kBlock + threadIdx.x;
  if (column >= outer * inner) return;
  const unsigned long long start = (unsigned long long)(column / inner) * n * inner + column % inner;
  const Softmax<wide<T>> f(exponentials_of_column(x + start, n, inner), log_too);
  DL_TWICE
  for (unsigned i = 0; i < n; ++i) {
    const unsigned long long at = start + (unsigned long long)i * inner;
    y[at] = narrow<T>(f(widen(x[at])));
  }
}

// ---- gradients

// dx = y (dy - sum(dy y)), or dy - e**y sum(dy) where y is the logarithm.
template <class R>
struct SoftmaxGrad {
  bool log_too;
  DL_DEVICE R summand(R dy, R y) const { return log_too ? dy : dy * y; }
  DL_DEVICE R operator()(R dy, R y, R sum) const { return log_too ? dy - exp(y) * sum : y * (dy - sum); }
};

template <class T, int LANES>
DL_DEVICE void softmax_grad_held(const T* dy, const T* y, T* dx, unsigned rows, unsigned n, bool log_too, int vectors) {
  using R = wide<T>;
  const SoftmaxGrad<R> f{log_too};
  each_row<LANES>(rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * n;
    R g[kTiles<T>][kPerVector<T>] = {}, v[kTiles<T>][kPerVector<T>] = {}, sum = R(0);
    each_held<T, LANES>(n, [&](int tile, unsigned base) {
      load_tile<LANES>(dy + start, base, n, lane, vectors, R(0), g[tile]);
      load_tile<LANES>(y + start, base, n, lane, vectors, R(0), v[tile]);
    });
    each_held<T, LANES>(n, [&](int tile, unsigned) {
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) sum += f.summand(g[tile][j], v[tile][j]);
    });
    sum = join<LANES>(sum, Add());
    each_held<T, LANES>(n, [&](int tile, unsigned base) {
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) g[tile][j] = f(g[tile][j], v[tile][j], sum);
      store_tile<LANES>(dx + start, base, n, lane, vectors, g[tile]);
    });
  });
}

template <class T>
DL_DEVICE void softmax_grad_long(const T* dy, const T* y, T* dx, unsigned rows, unsigned n, bool log_too, int vectors) {
  using R = wide<T>;
  const SoftmaxGrad<R> f{log_too};
  each_row<kBlock>(rows, [&](unsigned row, int lane) {
    const unsigned long long start = (unsigned long long)row * n;
    R g[kPerVector<T>], v[kPerVector<T>], sum = R(0);
    each_tile<T, kBlock>(n, [&](unsigned base) {
      load_tile<kBlock>(dy + start, base, n, lane, vectors, R(0), g);
      load_tile<kBlock>(y + start, base, n, lane, vectors, R(0), v);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) sum += f.summand(g[j], v[j]);
    });
    sum = join<kBlock>(sum, Add());
    each_tile<T, kBlock>(n, [&](unsigned base) {
      load_tile<kBlock>(dy + start, base, n, lane, vectors, R(0), g);
      load_tile<kBlock>(y + start, base, n, lane, vectors, R(0), v);
      DL_UNROLL
      for (int j = 0; j < kPerVector<T>; ++j) g[j] = f(g[j], v[j], sum);
      store_tile<kBlock>(dx + start, base, n, lane, vectors, g);
    });
  });
}

template <class T>
DL_DEVICE void softmax_grad_columns(const T* dy, const T* y, T* dx, unsigned outer, unsigned n, unsigned inner,
                                    bool log_too) {
  using R = wide<T>;
  const unsigned column = blockIdx.x * kBlock + threadIdx.x;
  if (column >= outer * inner) return;
  const SoftmaxGrad<R> f{log_too};
  const unsigned long long start = (unsigned long long)(column / inner) * n * inner + column % inner;
  R sum = R(0);
  DL_TWICE
  for (unsigned i = 0; i < n; ++i) {
    const unsigned long long at = start + (unsigned long long)i * inner;
    sum += f.summand(widen(dy[at]), widen(y[at]));
  }
  DL_TWICE
  for (unsigned i = 0; i < n; ++i) {
    const unsigned long long at = start + (unsigned long long)i * inner;
    dx[at] = narrow<T>(f(widen(dy[at]), widen(y[at]), sum));
  }
}

// ---- the kernels

// Blocks that a multiprocessor holds at least, 0 for any number: 48 warps of f32 rows; where it aims at more gradients
// of double, ptxas spills.
template <class T>
constexpr int kResident = sizeof(T) == 4 ? 6 : 0;
template <class T>
constexpr int kResidentGradients = sizeof(T) == 8 ? 3 : 0;

#define DL_SOFTMAX_ROWS(way, body, T, suffix)                                                                \
  extern "C" __global__ void __launch_bounds__(kBlock, kResident<T>)                                         \
      softmax_##way##_##suffix(const T* x, T* y, unsigned rows, unsigned n, int log_too, int vectors) {      \
    softmax_##body(x, y, rows, n, log_too, vectors);                                                         \
  }                                                                                                          \
  DL_EXPORT(softmax_##way##_##suffix)                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlock, kResidentGradients<T>) softmax_grad_##way##_##suffix( \
      const T* dy, const T* y, T* dx, unsigned rows, unsigned n, int log_too, int vectors) {                 \
    softmax_grad_##body(dy, y, dx, rows, n, log_too, vectors);                                               \
  }                                                                                                          \
  DL_EXPORT(softmax_grad_##way##_##suffix)
#define DL_COMMA ,
#define DL_SOFTMAX(T, suffix)                                                                               \
  DL_SOFTMAX_ROWS(warp, held<T DL_COMMA kWarp>, T, suffix)                                                  \
  DL_SOFTMAX_ROWS(block, held<T DL_COMMA kBlock>, T, suffix)                                                \
  DL_SOFTMAX_ROWS(long, long<T>, T, suffix)                                                                 \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                      \
      softmax_columns_##suffix(const T* x, T* y, unsigned outer, unsigned n, unsigned inner, int log_too) { \
    softmax_columns<T>(x, y, outer, n, inner, log_too);                                                     \
  }                                                                                                         \
  DL_EXPORT(softmax_columns_##suffix)                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlock) softmax_grad_columns_##suffix(                       \
      const T* dy, const T* y, T* dx, unsigned outer, unsigned n, unsigned inner, int log_too) {            \
    softmax_grad_columns<T>(dy, y, dx, outer, n, inner, log_too);                                           \
  }                                                                                                         \
  DL_EXPORT(softmax_grad_columns_##suffix)
DL_FOR_FLOATS(DL_SOFTMAX)
