// Convolutions of f32 and f64 as products of matrices whose operands are gathered while they are loaded (conv.cuh).
//
// conv_forward_<dtype>_<tile>(w, x, bias, y, partial, convolution): rows are output channels, columns pixels of y; w in
//   rows of channels and taps. The gradient of x is the same with dy and w turned round, one launch for the pixels of
//   each residue modulo the stride; bias is null.
// conv_dw_...(dy, x, bias, dw, partial, convolution): rows are output channels, columns input channels and taps.
//   Grid: tiles x splits x groups; block: 128 threads for 128x128 tiles, 64 for 64x64; dynamic shared memory: 8 bytes
//   for each tap and one more (forward).
// conv_reduce_<dtype>(partial, bias, c, convolution): adds up splits of the first. Grid: any; block: 256.
#include "conv_simt.cuh"

using Large = SimtTile<float, 128, 128, 16>;
using Small = SimtTile<float, 64, 64, 8>;
using Double = SimtTile<double, 64, 64, 8>;

template <class Tile, class A, class B, class Out, class T>
DL_DEVICE void convolve(A load_a, B load_b, const Out& out, T* partial, const Product& p, const Share& s) {
  __shared__ __align__(16) T shared[Tile::kStages * (Tile::kSizeA + Tile::kSizeB)];
  T sum[Tile::kRows][Tile::kColumns];
  multiply_simt<Tile>(load_a, load_b, s.k_end - s.k_begin, shared, sum);
  finish_simt<Tile>(p, s, out, partial, shared, sum);
}

template <class Tile, class T>
DL_DEVICE void forward(const T* w, const T* x, const T* bias, T* y, T* partial, const Convolution& v) {
  DL_SHARED(Tap, taps);
  tabulate(v.windows, taps);
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const AlongK<Tile, Tile::kM> load_a(w + batch_offset(p, s.batch, p.a_batch), p.lda, s.row, p.m, s.k_begin);
  const T* images = x + batch_offset(p, s.batch, p.b_batch);
  const Pixels<Tile, Tile::kN> load_b(images, v.windows, taps, s.column, p.n, s.k_begin);
  convolve<Tile>(load_a, load_b, Images<T>(v, s.batch, y, bias), partial, p, s);
}

template <class Tile, class T>
DL_DEVICE void dw(const T* dy, const T* x, const T* bias, T* dw, T* partial, const Convolution& v) {
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const ImagesAlongK<Tile, Tile::kM> load_a(dy + batch_offset(p, s.batch, p.a_batch), v, s.row, s.k_begin);
  const T* images = x + batch_offset(p, s.batch, p.b_batch);
  const Taps<Tile, Tile::kN> load_b(images, v.windows, s.column, p.n, s.k_begin);
  convolve<Tile>(load_a, load_b, RowMajor<T>(p, s.batch, dw, bias), partial, p, s);
}

#define DL_CONV(pass, T, Tile, suffix)                                                                 \
  extern "C" __global__ void __launch_bounds__(Tile::kThreads)                                         \
      conv_##pass##_##suffix(const T* a, const T* b, const T* bias, T* c, T* partial, Convolution v) { \
    pass<Tile>(a, b, bias, c, partial, v);                                                             \
  }                                                                                                    \
  DL_EXPORT(conv_##pass##_##suffix)
#define DL_CONV_PASSES(T, Tile, suffix) \
  DL_CONV(forward, T, Tile, suffix)     \
  DL_CONV(dw, T, Tile, suffix)
DL_CONV_PASSES(float, Large, f32_128)
DL_CONV_PASSES(float, Small, f32_64)
DL_CONV_PASSES(double, Double, f64_64)

#define DL_CONV_REDUCE(T, suffix)                                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                                             \
      conv_reduce_##suffix(const wide<T>* partial, const T* bias, T* c, Convolution v) {                        \
    reduce_splits<Images<T>>(v.product, partial, [&](int batch, int) { return Images<T>(v, batch, c, bias); }); \
  }                                                                                                             \
  DL_EXPORT(conv_reduce_##suffix)
DL_FOR_FLOATS(DL_CONV_REDUCE)
