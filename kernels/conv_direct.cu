// Convolutions without a product of matrices, and those by the textbook's product.
//
// conv_few_forward_<dtype>(x, w, bias, y, few): so few channels and taps that loading takes longer than multiplying.
// All
//   of w lies in shared memory; a thread has four pixels and goes through the channels of y, 16 at a time.
//   Grid: pixels / 512; block: 128; dynamic shared memory: 8 bytes for each k and one more, rounded up to 16, then w as
//   [k][channels rounded up to 16, and 4] in f32 (f64).
// conv_im2col_b<bytes>(x, columns, windows, ks, pixels, count): columns[image][channel and tap][pixel], elements of any
//   type of that size. Grid: any; block: 256.
// conv_col2im_<dtype>(columns, x, planes): adds up what im2col spread. Grid: any; block: 256.
#include "conv.cuh"

// Contiguous planes x[image, channel] and y[image, channel], and how windows of the one meet pixels of the other.
struct Planes {
  int in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
  Divisor by_kernel[3], by_stride[3], in_axis[3];
  unsigned count;  // elements of x
};

// Coordinates of a number that counts pixels of all planes; returns the plane.
DL_DEVICE unsigned plane_of(unsigned number, const Divisor (&axes)[3], int (&at)[3]) {
  DL_UNROLL
  for (int i = 2; i >= 0; --i) {
    const unsigned rest = quotient(number, axes[i]);
    at[i] = int(number - rest * axes[i].size);
    number = rest;
  }
  return number;
}

DL_DEVICE int flat(const int (&at)[3], const int (&size)[3]) { return (at[0] * size[1] + at[1]) * size[2] + at[2]; }
DL_DEVICE int volume(const int (&size)[3]) { return size[0] * size[1] * size[2]; }

// Calls f(tap, output pixel) for every window that sees input `at`, by that tap.
template <class F>
DL_DEVICE void for_windows_that_see(const Planes& v, const int (&at)[3], F f) {
  int to[3];
  DL_ROLLED
  for (int tap = 0; tap < volume(v.kernel); ++tap) {
    int taps[3];
    plane_of(tap, v.by_kernel, taps);
    bool seen = true;
    DL_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int far = at[i] + v.padding[i] - taps[i] * v.dilation[i];
      to[i] = int(quotient(unsigned(far), v.by_stride[i]));
      seen = seen && far >= 0 && to[i] * v.stride[i] == far && to[i] < v.out[i];
    }
    if (seen) f(tap, flat(to, v.out));
  }
}

struct Few {
  Windows windows;          // their taps are k's: channel, then three coordinates
  Divisor area;             // pixels of an image of y
  unsigned pixels, stride;  // of all images; numbers of w in shared memory from a k to the next
  int channels;             // of y
};

constexpr int kFewThreads = 128, kOwn = 4, kTogether = 16;  // pixels of a thread, channels

// w[channel][k] as [k][channel]; neighbouring lanes take 8 k's of 4 channels, which lie in different banks.
template <class T>
DL_DEVICE void load_filters(const T* w, wide<T>* filters, const Few& v) {
  const int taps = v.windows.taps, k = threadIdx.x % 8, padded = v.stride - 4;
  DL_ROLLED
  for (int first = 0; first < taps; first += 8) {
    DL_ROLLED
    for (int channel = threadIdx.x / 8; first + k < taps && channel < padded; channel += kFewThreads / 8)
      filters[(first + k) * v.stride + channel] =
          channel < v.channels ? widen(w[channel * taps + first + k]) : wide<T>(0);
  }
}

template <class T>
DL_DEVICE void few_forward(const T* x, const T* w, const T* bias, T* y, const Few& v) {
  constexpr int V = kPerVector<wide<T>>;
  DL_SHARED(Tap, taps);
  wide<T>* const filters = reinterpret_cast<wide<T>*>(taps + (v.windows.taps + 2) / 2 * 2);
  load_filters(w, filters, v);
  tabulate(v.windows, taps);
  int offset[kOwn];
  unsigned outside[kOwn];
  long long to[kOwn];
  x += v.windows.origin;
  const unsigned first = blockIdx.x * (kFewThreads * kOwn) + threadIdx.x;
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const unsigned number = first + i * kFewThreads, image = quotient(number, v.area);
    const Position pixel = position_of(v.windows.pixel, number);
    offset[i] = pixel.offset;
    outside[i] = number < v.pixels ? outside_of(v.windows, pixel) : ~0u;
    to[i] = (long long)image * (v.channels - 1) * v.area.size + number;
  }
  DL_ROLLED
  for (int channel = 0; channel < v.channels; channel += kTogether) {
    wide<T> sum[kOwn][kTogether] = {};
    DL_ROLLED
    for (int k = 0; k < v.windows.taps; ++k) {
      const Tap tap = taps[k];
      wide<T> own[kOwn];
      DL_UNROLL
      for (int i = 0; i < kOwn; ++i) own[i] = tap.bits & outside[i] ? wide<T>(0) : widen(x[offset[i] + tap.offset]);
      DL_UNROLL
      for (int j = 0; j < kTogether; j += V) {
        using Chunk = Vec<wide<T>, V>;
        const Chunk filter = *reinterpret_cast<const Chunk*>(filters + k * v.stride + channel + j);
        DL_UNROLL
        for (int e = 0; e < V; ++e) DL_UNROLL
        for (int i = 0; i < kOwn; ++i) sum[i][j + e] = multiply_add(own[i], filter.at[e], sum[i][j + e]);
      }
    }
    DL_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      if (channel + j >= v.channels) continue;
      const wide<T> plus = bias ? widen(bias[channel + j]) : wide<T>(0);
      T* const row = y + (long long)(channel + j) * v.area.size;
      DL_UNROLL
      for (int i = 0; i < kOwn; ++i)
        if (first + i * kFewThreads < v.pixels) row[to[i]] = narrow<T>(sum[i][j] + plus);
    }
  }
}

template <class T>
DL_DEVICE void im2col(const T* x, T* columns, const Windows& v, unsigned ks, unsigned pixels, unsigned count) {
  DL_ROLLED
  for (unsigned i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
    const unsigned row = i / pixels, image = row / ks, k = row - image * ks, channel = quotient(k, v.inner);
    const Position pixel = position_of(v.pixel, image * pixels + (i - row * pixels));
    const Position tap = position_of(v.tap, k - channel * v.inner.size);
    bool inside = true;
    DL_UNROLL
    for (int axis = 0; axis < 3; ++axis)
      inside = inside && unsigned(v.start[axis] + pixel.at[axis] + tap.at[axis]) < unsigned(v.limit[axis]);
    columns[i] = inside ? x[(long long)v.origin + pixel.offset + tap.offset + int(channel) * v.channel] : T(0);
  }
}

template <class T>
DL_DEVICE void col2im(const T* columns, T* x, const Planes& v) {
  const int area = volume(v.out), taps = volume(v.kernel);
  DL_ROLLED
  for (unsigned i = blockIdx.x * 256 + threadIdx.x; i < v.count; i += gridDim.x * 256) {
    int at[3];
    const long long plane = plane_of(i, v.in_axis, at);
    wide<T> sum = 0;
    for_windows_that_see(v, at, [&](int tap, int to) { sum += widen(columns[(plane * taps + tap) * area + to]); });
    x[i] = narrow<T>(sum);
  }
}

#define DL_CONV_DIRECT(T, suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(kFewThreads)                                                  \
      conv_few_forward_##suffix(const T* x, const T* w, const T* bias, T* y, Few v) {                        \
    few_forward(x, w, bias, y, v);                                                                           \
  }                                                                                                          \
  DL_EXPORT(conv_few_forward_##suffix)                                                                       \
  extern "C" __global__ void __launch_bounds__(256) conv_col2im_##suffix(const T* columns, T* x, Planes v) { \
    col2im(columns, x, v);                                                                                   \
  }                                                                                                          \
  DL_EXPORT(conv_col2im_##suffix)
DL_FOR_FLOATS(DL_CONV_DIRECT)

#define DL_CONV_IM2COL(T, bytes)                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                           \
      conv_im2col_b##bytes(const T* x, T* columns, Windows v, unsigned ks, unsigned pixels, unsigned count) { \
    im2col(x, columns, v, ks, pixels, count);                                                                 \
  }                                                                                                           \
  DL_EXPORT(conv_im2col_b##bytes)
DL_CONV_IM2COL(unsigned short, 2)
DL_CONV_IM2COL(unsigned, 4)
DL_CONV_IM2COL(unsigned long long, 8)
