// Products of f32 and f64 matrices by multiply-adds.
//
// gemm_<layout>_<dtype>_<tile>(a, b, bias, c, partial, product): see `Product` of gemm.cuh. Layouts: nn, both
// row-major; nt, B given as its transpose [n, k]; tn, A given as its transpose [k, m]. bias[n] may be null; partial
// only where k is split. Names that end in _any take every alignment, the others lines that start at multiples of 16
// bytes.
//   Grid: tiles x splits x batches; block: 128 threads for 128x128 tiles, 64 for 64x64; static shared memory.
// gemm_reduce_<dtype>(partial, bias, c, product): adds up splits. Grid: any; block: 256.
#include "gemm_simt.cuh"

using Large = SimtTile<float, 128, 128, 16>;
using Small = SimtTile<float, 64, 64, 8>;
using Double = SimtTile<double, 64, 64, 8>;

template <class Tile, template <class, int> class A, template <class, int> class B, class T>
DL_DEVICE void gemm(const T* a, const T* b, const T* bias, T* c, T* partial, const Product& p) {
  __shared__ __align__(16) T shared[Tile::kStages * (Tile::kSizeA + Tile::kSizeB)];
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  A<Tile, Tile::kM> load_a(a + batch_offset(p, s.batch, p.a_batch), p.lda, s.row, p.m, s.k_begin);
  B<Tile, Tile::kN> load_b(b + batch_offset(p, s.batch, p.b_batch), p.ldb, s.column, p.n, s.k_begin);
  T sum[Tile::kRows][Tile::kColumns];
  multiply_simt<Tile>(load_a, load_b, s.k_end - s.k_begin, shared, sum);
  finish_simt<Tile>(p, s, RowMajor<T>(p, s.batch, c, bias), partial, shared, sum);
}

template <class Tile, int LINES>
using Vectors = AlongLines<Tile, LINES, kPerVector<typename Tile::Element>>;
template <class Tile, int LINES>
using Elements = AlongLines<Tile, LINES, 1>;

#define DL_GEMM(name, T, Tile, A, B)                                             \
  extern "C" __global__ void __launch_bounds__(Tile::kThreads)                   \
      name(const T* a, const T* b, const T* bias, T* c, T* partial, Product p) { \
    gemm<Tile, A, B>(a, b, bias, c, partial, p);                                 \
  }                                                                              \
  DL_EXPORT(name)
#define DL_GEMM_F32(Tile, size)                                    \
  DL_GEMM(gemm_nn_f32_##size, float, Tile, AlongK, Vectors)        \
  DL_GEMM(gemm_nn_f32_##size##_any, float, Tile, AlongK, Elements) \
  DL_GEMM(gemm_nt_f32_##size##_any, float, Tile, AlongK, AlongK)   \
  DL_GEMM(gemm_tn_f32_##size, float, Tile, Vectors, Vectors)       \
  DL_GEMM(gemm_tn_f32_##size##_any, float, Tile, Elements, Elements)
DL_GEMM_F32(Large, 128)
DL_GEMM_F32(Small, 64)
DL_GEMM(gemm_nn_f64_64_any, double, Double, AlongK, Elements)
DL_GEMM(gemm_nt_f64_64_any, double, Double, AlongK, AlongK)
DL_GEMM(gemm_tn_f64_64_any, double, Double, Elements, Elements)

#define DL_GEMM_REDUCE(T, suffix)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                         \
      gemm_reduce_##suffix(const wide<T>* partial, const T* bias, T* c, Product p) {                        \
    reduce_splits<RowMajor<T>>(p, partial, [&](int batch, int) { return RowMajor<T>(p, batch, c, bias); }); \
  }                                                                                                         \
  DL_EXPORT(gemm_reduce_##suffix)
DL_FOR_FLOATS(DL_GEMM_REDUCE)
