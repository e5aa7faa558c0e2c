// Max and average pooling of planes of up to three axes, and their gradients.
//
// Along one axis, output o sees the inputs o * stride - padding + k * dilation for each tap k of the kernel. Gradients
// are gathered: an input adds up the outputs that see it, one by one, so that no two threads write one element.
//
// pool_max_<t>(x, y, index, pool): index: row-major position of the largest in its plane; the first of equals, and a
//   NaN where there is one.
// pool_max_grad_<t>(dy, index, dx, pool)
// pool_avg_<t>(x, y, pool), pool_avg_grad_<t>(dy, dx, pool): dilation is 1.
//   Grid: threads / 256 rounded up; block: 256; no shared memory. A thread has an element of the result; of the
//   gradient of an average, if its rows are whole vectors of 16 bytes, a vector.
#include "divisor.cuh"
#include "types.cuh"

struct Axis {
  int in, out, kernel, stride, padding, dilation;
};
struct Pool {
  Axis axis[3];
  unsigned elements;           // of the result
  int include_pad;             // whether an average counts the padding
  int vectors;                 // whether a thread has a vector of 16 bytes
  Divisor size[3], stride[3];  // sizes of the result
};

constexpr int kBlock = 256;

// Position on three axes of an element, and the number of its plane.
struct Place {
  unsigned plane;
  int at[3];
};

DL_DEVICE Place place_of(unsigned element, const Pool& pool) {
  Place place;
  DL_UNROLL
  for (int axis = 2; axis >= 0; --axis) {
    const unsigned rest = quotient(element, pool.size[axis]);
    place.at[axis] = int(element - rest * pool.size[axis].size);
    element = rest;
  }
  place.plane = element;
  return place;
}

// The input that tap `tap` of output `out` sees, negative where it lies in the padding.
DL_DEVICE int input_of(const Axis& axis, int out, int tap) {
  const int in = out * axis.stride - axis.padding + tap * axis.dilation;
  return in < axis.in ? in : -1;
}

// f(position) of each tap that sees an input, in row-major order of the taps.
template <class F>
DL_DEVICE void each_tap(const Pool& pool, const Place& place, F f) {
  DL_ROLLED
  for (int i = 0; i < pool.axis[0].kernel; ++i) {
    const int a = input_of(pool.axis[0], place.at[0], i);
    if (a < 0) continue;
    DL_ROLLED
    for (int j = 0; j < pool.axis[1].kernel; ++j) {
      const int b = input_of(pool.axis[1], place.at[1], j);
      if (b < 0) continue;
      DL_TWICE
      for (int k = 0; k < pool.axis[2].kernel; ++k) {
        const int c = input_of(pool.axis[2], place.at[2], k);
        if (c >= 0) f(a, b, c);
      }
    }
  }
}

// Outputs whose windows reach an input along an axis; with dilation some of them pass over it.
struct Range {
  int first, end;
};

DL_DEVICE Range windows_of(const Pool& pool, int axis, int in) {
  const Axis& of = pool.axis[axis];
  const int reach = in + of.padding, back = reach - (of.kernel - 1) * of.dilation;
  const int last = int(quotient(reach, pool.stride[axis]));
  return {back > 0 ? int(quotient(back + of.stride - 1, pool.stride[axis])) : 0, last < of.out ? last + 1 : of.out};
}

DL_DEVICE bool sees(const Axis& axis, int out, int in) {
  return axis.dilation == 1 || (in + axis.padding - out * axis.stride) % axis.dilation == 0;
}

// f(i, position) of each output that sees the i-th of N inputs side by side, row by row.
template <int N, class F>
DL_DEVICE void each_window(const Pool& pool, const Place& place, F f) {
  const Range depth = windows_of(pool, 0, place.at[0]), height = windows_of(pool, 1, place.at[1]);
  Range width[N];
  DL_UNROLL
  for (int i = 0; i < N; ++i) width[i] = windows_of(pool, 2, place.at[2] + i);
  DL_ROLLED
  for (int a = depth.first; a < depth.end; ++a) {
    if (!sees(pool.axis[0], a, place.at[0])) continue;
    DL_ROLLED
    for (int b = height.first; b < height.end; ++b) {
      if (!sees(pool.axis[1], b, place.at[1])) continue;
      DL_UNROLL
      for (int i = 0; i < N; ++i) DL_ROLLED
      for (int c = width[i].first; c < width[i].end; ++c)
        if (sees(pool.axis[2], c, place.at[2] + i)) f(i, a, b, c);
    }
  }
}

// How many elements the window of an output averages along one axis.
DL_DEVICE int counted(const Axis& axis, int out, int include_pad) {
  const int start = out * axis.stride - axis.padding, end = start + axis.kernel;
  const int low = include_pad ? -axis.padding : 0, high = axis.in + (include_pad ? axis.padding : 0);
  return (end < high ? end : high) - (start > low ? start : low);
}

template <class R>
DL_DEVICE R count_of(const Pool& pool, int a, int b, int c) {
  return R(counted(pool.axis[0], a, pool.include_pad)) * R(counted(pool.axis[1], b, pool.include_pad)) *
         R(counted(pool.axis[2], c, pool.include_pad));
}

template <class T>
DL_DEVICE void pool_max(const T* x, T* y, long long* index, const Pool& pool) {
  using R = wide<T>;
  const unsigned element = blockIdx.x * kBlock + threadIdx.x;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, pool);
  const T* own = x + (unsigned long long)place.plane * depth.in * height.in * width.in;
  R best = R(0);
  int found = -1;
  each_tap(pool, place, [&](int a, int b, int c) {
    const int at = (a * height.in + b) * width.in + c;
    const R value = widen(own[at]);
    if (found < 0 || value > best || value != value) best = value, found = at;
  });
  y[element] = narrow<T>(best);
  index[element] = found;
}

// dx of N inputs side by side, a sum of what value(first, position, own) gives for each output that sees one: the
// first output of the plane, the output's position, the input's.
template <int N, class T, class F>
DL_DEVICE void gather_grad(T* dx, const Pool& pool, F value) {
  const unsigned element = (blockIdx.x * kBlock + threadIdx.x) * N;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, pool);
  const unsigned first = place.plane * unsigned(depth.out * height.out * width.out);
  const int own = (place.at[0] * height.in + place.at[1]) * width.in + place.at[2];
  wide<T> sum[N] = {};
  each_window<N>(pool, place, [&](int i, int a, int b, int c) {
    sum[i] += value(first + unsigned((a * height.out + b) * width.out + c), a, b, c, own + i);
  });
  Vec<T, N> out;
  DL_UNROLL
  for (int i = 0; i < N; ++i) out.at[i] = narrow<T>(sum[i]);
  *reinterpret_cast<Vec<T, N>*>(dx + element) = out;
}

template <class T>
DL_DEVICE void pool_max_grad(const T* dy, const long long* index, T* dx, const Pool& pool) {
  gather_grad<1>(dx, pool,
                 [&](unsigned at, int, int, int, int own) { return index[at] == own ? widen(dy[at]) : wide<T>(0); });
}

template <class T>
DL_DEVICE void pool_avg(const T* x, T* y, const Pool& pool) {
  const unsigned element = blockIdx.x * kBlock + threadIdx.x;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, pool);
  const T* own = x + (unsigned long long)place.plane * depth.in * height.in * width.in;
  wide<T> sum = wide<T>(0);
  each_tap(pool, place, [&](int a, int b, int c) { sum += widen(own[(a * height.in + b) * width.in + c]); });
  y[element] = narrow<T>(sum / count_of<wide<T>>(pool, place.at[0], place.at[1], place.at[2]));
}

template <class T>
DL_DEVICE void pool_avg_grad(const T* dy, T* dx, const Pool& pool) {
  const auto share = [&](unsigned at, int a, int b, int c, int) {
    return widen(dy[at]) / count_of<wide<T>>(pool, a, b, c);
  };
  if (pool.vectors) gather_grad<kPerVector<T>>(dx, pool, share);
  else gather_grad<1>(dx, pool, share);
}

#define DL_POOL(T, suffix)                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                            \
      pool_max_##suffix(const T* x, T* y, long long* index, Pool pool) {                                          \
    pool_max(x, y, index, pool);                                                                                  \
  }                                                                                                               \
  DL_EXPORT(pool_max_##suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                            \
      pool_max_grad_##suffix(const T* dy, const long long* index, T* dx, Pool pool) {                             \
    pool_max_grad(dy, index, dx, pool);                                                                           \
  }                                                                                                               \
  DL_EXPORT(pool_max_grad_##suffix)                                                                               \
  extern "C" __global__ void __launch_bounds__(kBlock) pool_avg_##suffix(const T* x, T* y, Pool pool) {           \
    pool_avg(x, y, pool);                                                                                         \
  }                                                                                                               \
  DL_EXPORT(pool_avg_##suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlock, 4) pool_avg_grad_##suffix(const T* dy, T* dx, Pool pool) { \
    pool_avg_grad(dy, dx, pool);                                                                                  \
  }                                                                                                               \
  DL_EXPORT(pool_avg_grad_##suffix)
DL_FOR_FLOATS(DL_POOL)
