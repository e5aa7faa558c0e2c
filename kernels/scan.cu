// Running sums and products of rows.
//
// scan_<op>_<dtype>(x, y, rows, n, reverse): y[r][i] = x[r][0] op ... op x[r][i], from the end if reverse; contiguous.
//   Grid: any, blocks stride over rows; block: 128; shared: a value a warp.
// A row goes through the block in chunks of 512, 4 elements a thread, each chunk after the one before it: the order of
// operations depends on the place in the row alone. Sums are in the wide type.
#include "warp.cuh"

constexpr int kThreads = 128, kWarps = kThreads / kWarp, kOwn = 4;

template <class R>
struct Sum {
  static constexpr int kIdentity = 0;
  DL_DEVICE static R join(R a, R b) { return a + b; }
};
template <class R>
struct Product {
  static constexpr int kIdentity = 1;
  DL_DEVICE static R join(R a, R b) { return a * b; }
};

// What all lanes before this one hold, joined, and in `all` what the warp holds.
template <class Op, class R>
DL_DEVICE R before_lane(R value, R& all) {
  const int lane = threadIdx.x % kWarp;
  DL_UNROLL
  for (int step = 1; step < kWarp; step *= 2) {
    const R earlier = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value = Op::join(earlier, value);
  }
  all = __shfl_sync(kAllLanes, value, kWarp - 1);
  const R earlier = __shfl_up_sync(kAllLanes, value, 1);
  return lane == 0 ? R(Op::kIdentity) : earlier;
}

template <class Op, class T>
DL_DEVICE void scan(const T* x, T* y, int rows, int n, int reverse) {
  using R = wide<T>;
  __shared__ R of_warp[kWarps];
  const int warp = threadIdx.x / kWarp;
  DL_ROLLED
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* in = x + (long long)row * n;
    T* out = y + (long long)row * n;
    R carry = R(Op::kIdentity);
    DL_ROLLED
    for (int from = 0; from < n; from += kThreads * kOwn) {
      const int first = from + threadIdx.x * kOwn;
      R value[kOwn], all;
      DL_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int i = first + j;
        value[j] = i < n ? R(widen(in[reverse ? n - 1 - i : i])) : R(Op::kIdentity);
        if (j > 0) value[j] = Op::join(value[j - 1], value[j]);
      }
      R before = before_lane<Op>(value[kOwn - 1], all);
      if (threadIdx.x % kWarp == 0) of_warp[warp] = all;
      __syncthreads();
      R earlier = carry;
      DL_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) earlier = Op::join(earlier, of_warp[w]);
        carry = Op::join(carry, of_warp[w]);
      }
      before = Op::join(earlier, before);
      DL_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int i = first + j;
        if (i < n) out[reverse ? n - 1 - i : i] = narrow<T>(Op::join(before, value[j]));
      }
      __syncthreads();
    }
  }
}

#define DL_SCAN(T, suffix)                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads)                      \
      scan_sum_##suffix(const T* x, T* y, int rows, int n, int reverse) {     \
    scan<Sum<wide<T>>>(x, y, rows, n, reverse);                               \
  }                                                                           \
  DL_EXPORT(scan_sum_##suffix)                                                \
  extern "C" __global__ void __launch_bounds__(kThreads)                      \
      scan_product_##suffix(const T* x, T* y, int rows, int n, int reverse) { \
    scan<Product<wide<T>>>(x, y, rows, n, reverse);                           \
  }                                                                           \
  DL_EXPORT(scan_product_##suffix)
DL_FOR_FLOATS(DL_SCAN)
