// Max and average pooling of planes of up to three axes, and their gradients: one thread an element of the result.
//
// Along one axis, output o sees the inputs o * stride - padding + k * dilation for each tap k of the kernel. Gradients
// are gathered: an input adds up the outputs that see it, tap by tap, so that no two threads write one element.
//
// pool_max_<t>(x, y, index, pool): index: row-major position of the largest in its plane; the first of equals, and a
//   NaN where there is one.
// pool_max_grad_<t>(dy, index, dx, pool)
// pool_avg_<t>(x, y, pool), pool_avg_grad_<t>(dy, dx, pool): dilation is 1.
//   Grid: elements of the result / 256 rounded up; block: 256; no shared memory.
#include "types.cuh"

struct Axis {
  int in, out, kernel, stride, padding, dilation;
};
struct Pool {
  Axis axis[3];
  unsigned elements;  // of the result
  int include_pad;    // whether an average counts the padding
};

constexpr int kBlock = 256;

// Position on three axes of an element, and the number of its plane.
struct Place {
  unsigned plane;
  int at[3];
};

DL_DEVICE Place place_of(unsigned element, int size0, int size1, int size2) {
  const unsigned row = element / size2, layer = row / size1, plane = layer / size0;
  return {plane, {int(layer - plane * size0), int(row - layer * size1), int(element - row * size2)}};
}

// The input that tap `tap` of output `out` sees, negative where it lies in the padding.
DL_DEVICE int input_of(const Axis& axis, int out, int tap) {
  const int in = out * axis.stride - axis.padding + tap * axis.dilation;
  return in < axis.in ? in : -1;
}

// The output whose tap `tap` sees input `in`, negative where there is none.
DL_DEVICE int output_of(const Axis& axis, int in, int tap) {
  const int reach = in + axis.padding - tap * axis.dilation, out = reach / axis.stride;
  return out * axis.stride == reach && out < axis.out ? out : -1;
}

// f(position) of each tap whose counterpart exists, in row-major order of the taps: where a window's taps lie among
// the inputs (find = input_of), or which outputs see an input (find = output_of).
template <class Find, class F>
DL_DEVICE void each_tap(const Pool& pool, const Place& place, Find find, F f) {
  DL_ROLLED
  for (int i = 0; i < pool.axis[0].kernel; ++i) {
    const int a = find(pool.axis[0], place.at[0], i);
    if (a < 0) continue;
    DL_ROLLED
    for (int j = 0; j < pool.axis[1].kernel; ++j) {
      const int b = find(pool.axis[1], place.at[1], j);
      if (b < 0) continue;
      DL_ROLLED
      for (int k = 0; k < pool.axis[2].kernel; ++k) {
        const int c = find(pool.axis[2], place.at[2], k);
        if (c >= 0) f(a, b, c);
      }
    }
  }
}

struct Inputs {
  DL_DEVICE int operator()(const Axis& axis, int out, int tap) const { return input_of(axis, out, tap); }
};
struct Outputs {
  DL_DEVICE int operator()(const Axis& axis, int in, int tap) const { return output_of(axis, in, tap); }
};

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
  const Place place = place_of(element, depth.out, height.out, width.out);
  const T* own = x + (unsigned long long)place.plane * depth.in * height.in * width.in;
  R best = R(0);
  int found = -1;
  each_tap(pool, place, Inputs(), [&](int a, int b, int c) {
    const int at = (a * height.in + b) * width.in + c;
    const R value = widen(own[at]);
    if (found < 0 || value > best || value != value) best = value, found = at;
  });
  y[element] = narrow<T>(best);
  index[element] = found;
}

template <class T>
DL_DEVICE void pool_max_grad(const T* dy, const long long* index, T* dx, const Pool& pool) {
  const unsigned element = blockIdx.x * kBlock + threadIdx.x;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, depth.in, height.in, width.in);
  const unsigned long long first = (unsigned long long)place.plane * depth.out * height.out * width.out;
  const long long own = ((long long)place.at[0] * height.in + place.at[1]) * width.in + place.at[2];
  wide<T> sum = wide<T>(0);
  each_tap(pool, place, Outputs(), [&](int a, int b, int c) {
    const unsigned long long at = first + (a * height.out + b) * width.out + c;
    if (index[at] == own) sum += widen(dy[at]);
  });
  dx[element] = narrow<T>(sum);
}

template <class T>
DL_DEVICE void pool_avg(const T* x, T* y, const Pool& pool) {
  const unsigned element = blockIdx.x * kBlock + threadIdx.x;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, depth.out, height.out, width.out);
  const T* own = x + (unsigned long long)place.plane * depth.in * height.in * width.in;
  wide<T> sum = wide<T>(0);
  each_tap(pool, place, Inputs(), [&](int a, int b, int c) { sum += widen(own[(a * height.in + b) * width.in + c]); });
  y[element] = narrow<T>(sum / count_of<wide<T>>(pool, place.at[0], place.at[1], place.at[2]));
}

template <class T>
DL_DEVICE void pool_avg_grad(const T* dy, T* dx, const Pool& pool) {
  const unsigned element = blockIdx.x * kBlock + threadIdx.x;
  if (element >= pool.elements) return;
  const Axis &depth = pool.axis[0], &height = pool.axis[1], &width = pool.axis[2];
  const Place place = place_of(element, depth.in, height.in, width.in);
  const T* own = dy + (unsigned long long)place.plane * depth.out * height.out * width.out;
  wide<T> sum = wide<T>(0);
  each_tap(pool, place, Outputs(), [&](int a, int b, int c) {
    sum += widen(own[(a * height.out + b) * width.out + c]) / count_of<wide<T>>(pool, a, b, c);
  });
  dx[element] = narrow<T>(sum);
}

#define DL_POOL(T, suffix)                                                                                     \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                         \
      pool_max_##suffix(const T* x, T* y, long long* index, Pool pool) {                                       \
    pool_max(x, y, index, pool);                                                                               \
  }                                                                                                            \
  DL_EXPORT(pool_max_##suffix)                                                                                 \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                         \
      pool_max_grad_##suffix(const T* dy, const long long* index, T* dx, Pool pool) {                          \
    pool_max_grad(dy, index, dx, pool);                                                                        \
  }                                                                                                            \
  DL_EXPORT(pool_max_grad_##suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(kBlock) pool_avg_##suffix(const T* x, T* y, Pool pool) {        \
    pool_avg(x, y, pool);                                                                                      \
  }                                                                                                            \
  DL_EXPORT(pool_avg_##suffix)                                                                                 \
  extern "C" __global__ void __launch_bounds__(kBlock) pool_avg_grad_##suffix(const T* dy, T* dx, Pool pool) { \
    pool_avg_grad(dy, dx, pool);                                                                               \
  }                                                                                                            \
  DL_EXPORT(pool_avg_grad_##suffix)
DL_FOR_FLOATS(DL_POOL)
