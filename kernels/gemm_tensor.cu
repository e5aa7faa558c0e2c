// Products on tensor cores: f16 and bf16 with sums in f32; f32 rounded to tf32 (10 bits of mantissa), for who asks for
// it.
//
// gemm_<layout>_<dtype>_<tile>(a, b, bias, c, partial, product): as in gemm.cu. Only the names that end in _any take
// lines that do not start at multiples of 16 bytes; tf32 has the layout nt only.
//   Grid: tiles x splits x batches; block and dynamic shared memory: 256 threads and 72 KB for 128x256 tiles (_256),
//   128 and 48 KB for 128x128, 128 and 24 KB for 64x64.
#include "gemm_mma.cuh"

template <class T>
using Large = MmaTile<T, 128, 256>;
template <class T>
using Medium = MmaTile<T, 128, 128>;
template <class T>
using Small = MmaTile<T, 64, 64>;

template <class Tile, template <class, int, bool> class A, template <class, int, bool> class B, bool WHOLE, class T>
DL_DEVICE void gemm(const T* a, const T* b, const T* bias, T* c, float* partial, const Product& p) {
  DL_SHARED(T, shared);
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  A<Tile, Tile::kM, WHOLE> load_a(a + batch_offset(p, s.batch, p.a_batch), p.lda, s.row, p.m, s.k_begin);
  B<Tile, Tile::kN, WHOLE> load_b(b + batch_offset(p, s.batch, p.b_batch), p.ldb, s.column, p.n, s.k_begin);
  float sum[Tile::kDown][Tile::kAcross][4];
  multiply_mma<Tile>(load_a, load_b, s.k_end - s.k_begin, shared, sum);
  finish_mma<Tile>(p, s, RowMajor<T>(p, s.batch, c, bias), partial, reinterpret_cast<float*>(shared), sum);
}

#define DL_GEMM(name, T, Tile, A, B, WHOLE)                                          \
  extern "C" __global__ void __launch_bounds__(Tile<T>::kThreads, Tile<T>::kBlocks)  \
      name(const T* a, const T* b, const T* bias, T* c, float* partial, Product p) { \
    gemm<Tile<T>, A, B, WHOLE>(a, b, bias, c, partial, p);                           \
  }                                                                                  \
  DL_EXPORT(name)
#define DL_GEMM_SIZES(layout, T, suffix, A, B)                   \
  DL_GEMM(gemm_##layout##_##suffix##_256, T, Large, A, B, true)  \
  DL_GEMM(gemm_##layout##_##suffix##_128, T, Medium, A, B, true) \
  DL_GEMM(gemm_##layout##_##suffix##_64, T, Small, A, B, true)   \
  DL_GEMM(gemm_##layout##_##suffix##_64_any, T, Small, A, B, false)
#define DL_GEMM_LAYOUTS(T, suffix)                       \
  DL_GEMM_SIZES(nn, T, suffix, MmaAlongK, MmaAlongLines) \
  DL_GEMM_SIZES(nt, T, suffix, MmaAlongK, MmaAlongK)     \
  DL_GEMM_SIZES(tn, T, suffix, MmaAlongLines, MmaAlongLines)
DL_GEMM_LAYOUTS(__half, f16)
DL_GEMM_LAYOUTS(__nv_bfloat16, bf16)
DL_GEMM(gemm_nt_tf32_256, float, Large, MmaAlongK, MmaAlongK, true)
DL_GEMM(gemm_nt_tf32_128, float, Medium, MmaAlongK, MmaAlongK, true)
