// Convolutions of f32 and f64 as products of matrices whose operands are gathered while they are loaded (conv.cuh).
//
// conv_forward_<dtype>_<tile>(w, x, bias, y, partial, convolution): rows are output channels, columns pixels of y.
// conv_dx_...(w, dy, bias, dx, partial, convolution): rows are input channels, columns those pixels of dx that are
// alike
//   modulo the stride (one launch for each residue); bias is null.
// conv_dw_...(dy, x, bias, dw, partial, convolution): rows are output channels, columns input channels and taps.
//   Grid: tiles x splits x groups; block: 128 threads for 128x128 tiles, 64 for 64x64; static shared memory.
// conv_reduce_<dtype>(partial, bias, c, convolution): adds up splits of the first two. Grid: any; block: 256.
#include "conv_simt.cuh"

using Large = SimtTile<float, 128, 128, 16>;
using Small = SimtTile<float, 64, 64, 8>;
using Double = SimtTile<double, 64, 64, 8>;

template <class Tile, class A, class Out, class T>
DL_DEVICE void convolve(A load_a, const T* b, const Out& out, T* partial, const Convolution& v, const Share& s) {
  __shared__ __align__(16) T shared[Tile::kStages * (Tile::kSizeA + Tile::kSizeB)];
  const Product& p = v.product;
  GatherLines<Tile, Tile::kN> load_b(b + batch_offset(p, s.batch, p.b_batch), v.b, s.column, p.n, s.k_begin);
  T sum[Tile::kRows][Tile::kColumns];
  multiply_simt<Tile>(load_a, load_b, s.k_end - s.k_begin, shared, sum);
  finish_simt<Tile>(p, s, out, partial, shared, sum);
}

template <class Tile, class T>
DL_DEVICE void forward(const T* w, const T* x, const T* bias, T* y, T* partial, const Convolution& v) {
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const AlongK<Tile, Tile::kM> load(w + batch_offset(p, s.batch, p.a_batch), p.lda, s.row, p.m, s.k_begin);
  convolve<Tile>(load, x, Images<T>(v, s.batch, y, bias), partial, v, s);
}

template <class Tile, class T>
DL_DEVICE void dx(const T* w, const T* dy, const T* bias, T* dx, T* partial, const Convolution& v) {
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const T* a = w + v.a_origin + batch_offset(p, s.batch, p.a_batch);
  const GatherAlongK<Tile, Tile::kM> load(a, v.a, p.lda, s.row, p.m, s.k_begin);
  convolve<Tile>(load, dy, Images<T>(v, s.batch, dx, bias), partial, v, s);
}

template <class Tile, class T>
DL_DEVICE void dw(const T* dy, const T* x, const T* bias, T* dw, T* partial, const Convolution& v) {
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const GatherAlongK<Tile, Tile::kM> load(dy + batch_offset(p, s.batch, p.a_batch), v.a, p.lda, s.row, p.m, s.k_begin);
  convolve<Tile>(load, x, RowMajor<T>(p, s.batch, dw, bias), partial, v, s);
}

#define DL_CONV(pass, T, Tile, suffix)                                                                 \
  extern "C" __global__ void __launch_bounds__(Tile::kThreads)                                         \
      conv_##pass##_##suffix(const T* a, const T* b, const T* bias, T* c, T* partial, Convolution v) { \
    pass<Tile>(a, b, bias, c, partial, v);                                                             \
  }                                                                                                    \
  DL_EXPORT(conv_##pass##_##suffix)
#define DL_CONV_PASSES(T, Tile, suffix) \
  DL_CONV(forward, T, Tile, suffix)     \
  DL_CONV(dx, T, Tile, suffix)          \
  DL_CONV(dw, T, Tile, suffix)
DL_CONV_PASSES(float, Large, f32_128)
DL_CONV_PASSES(float, Small, f32_64)
DL_CONV_PASSES(double, Double, f64_64)

#define DL_CONV_REDUCE(T, suffix)                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                        \
      conv_reduce_##suffix(const wide<T>* partial, const T* bias, T* c, Convolution v) {                   \
    reduce_splits<Images<T>>(v.product, partial, [&](int batch) { return Images<T>(v, batch, c, bias); }); \
  }                                                                                                        \
  DL_EXPORT(conv_reduce_##suffix)
DL_CONV_REDUCE(float, f32)
DL_CONV_REDUCE(double, f64)
