// Convolutions of f16 and bf16 on tensor cores, with sums in f32: those that conv_patch.cu is not for.
//
// conv_forward_<dtype>_<tile>, conv_dw_<dtype>_<tile>: as in conv.cu, but images and w are channels last, their
// channels
//   padded with zeros to multiples of 16 bytes: x [groups][image][pixel][channel], w [groups][output
//   channel][tap][channel], dy like x; y is [image][channel][pixel] all the same, and dw [groups][output
//   channel][tap][channel]. Grid: tiles x splits x groups; block: 128 threads; dynamic shared memory:
//   that of gemm_tensor.cu, then 8 bytes for each tap and one more (forward).
// conv_channels_last_b<bytes>(x, y, channels_last): brings operands into that form: x[group][line][channel] of any
//   strides, where a line is a number of four digits; elements of any type of that size.
//   Grid: lines / 32 x padded channels / 32 x groups; block: 32 x 8.
#include "conv_mma.cuh"

template <class T>
using Large = MmaTile<T, 128, 128>;
template <class T>
using Small = MmaTile<T, 64, 64>;

template <class Tile, class A, class B, class Out, class T>
DL_DEVICE void convolve(A load_a, B load_b, const Out& out, T* shared, float* partial, const Product& p,
                        const Share& s) {
  float sum[Tile::kDown][Tile::kAcross][4];
  multiply_mma<Tile>(load_a, load_b, s.k_end - s.k_begin, shared, sum);
  finish_mma<Tile>(p, s, out, partial, reinterpret_cast<float*>(shared), sum);
}

template <class Tile, class T>
DL_DEVICE void forward(const T* w, const T* x, const T* bias, T* y, float* partial, const Convolution& v) {
  DL_SHARED(T, shared);
  Tap* taps = reinterpret_cast<Tap*>(reinterpret_cast<char*>(shared) + Tile::kBytes);
  tabulate(v.windows, taps);
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const T* rows = w + batch_offset(p, s.batch, p.a_batch);
  const T* images = x + batch_offset(p, s.batch, p.b_batch);
  const MmaAlongK<Tile, Tile::kM, true> load_a(rows, p.lda, s.row, p.m, s.k_begin);
  const MmaPixels<Tile, Tile::kN> load_b(images, v.windows, taps, s.column, p.n, s.k_begin);
  convolve<Tile>(load_a, load_b, Images<T>(v, s.batch, y, bias), shared, partial, p, s);
}

template <class Tile, class T>
DL_DEVICE void dw(const T* dy, const T* x, const T* bias, T* dw, float* partial, const Convolution& v) {
  DL_SHARED(T, shared);
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const T* rows = dy + batch_offset(p, s.batch, p.a_batch);
  const T* images = x + batch_offset(p, s.batch, p.b_batch);
  const MmaAlongLines<Tile, Tile::kM, true> load_a(rows, p.lda, s.row, p.lda, s.k_begin);
  const MmaTaps<Tile, Tile::kN> load_b(images, v.windows, s.column, p.n, s.k_begin);
  convolve<Tile>(load_a, load_b, RowMajor<T>(p, s.batch, dw, bias), shared, partial, p, s);
}

#define DL_CONV(pass, T, Tile, suffix)                                                                     \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                     \
      conv_##pass##_##suffix(const T* a, const T* b, const T* bias, T* c, float* partial, Convolution v) { \
    pass<Tile<T>>(a, b, bias, c, partial, v);                                                              \
  }                                                                                                        \
  DL_EXPORT(conv_##pass##_##suffix)
#define DL_CONV_PASSES(T, suffix)          \
  DL_CONV(forward, T, Large, suffix##_128) \
  DL_CONV(forward, T, Small, suffix##_64)  \
  DL_CONV(dw, T, Large, suffix##_128)      \
  DL_CONV(dw, T, Small, suffix##_64)
DL_CONV_PASSES(__half, f16)
DL_CONV_PASSES(__nv_bfloat16, bf16)

// ---- channels last

struct ChannelsLast {
  Digits line;
  int channel, group;  // elements of x from one to the next
  unsigned lines, channels, padded;
};

constexpr int kSide = 32;

template <class T>
DL_DEVICE void channels_last(const T* x, T* y, const ChannelsLast& v) {
  __shared__ T tile[kSide][kSide + 4 / sizeof(T)];  // columns begin in different banks
  const unsigned line = blockIdx.x * kSide, channel = blockIdx.y * kSide;
  x += (long long)blockIdx.z * v.group;
  y += (long long)blockIdx.z * v.lines * v.padded;
  if (line + threadIdx.x < v.lines) {
    const T* from = x + offset_of(v.line, line + threadIdx.x);
    DL_UNROLL
    for (int i = threadIdx.y; i < kSide; i += 8)
      tile[i][threadIdx.x] = channel + i < v.channels ? from[(long long)(channel + i) * v.channel] : T(0);
  }
  __syncthreads();
  if (channel + threadIdx.x < v.padded) {
    DL_UNROLL
    for (int i = threadIdx.y; i < kSide; i += 8)
      if (line + i < v.lines) y[(long long)(line + i) * v.padded + channel + threadIdx.x] = tile[threadIdx.x][i];
  }
}

#define DL_CHANNELS_LAST(T, bytes)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256) conv_channels_last_b##bytes(const T* x, T* y, ChannelsLast v) { \
    channels_last(x, y, v);                                                                                         \
  }                                                                                                                 \
  DL_EXPORT(conv_channels_last_b##bytes)
DL_CHANNELS_LAST(unsigned short, 2)
DL_CHANNELS_LAST(unsigned, 4)
