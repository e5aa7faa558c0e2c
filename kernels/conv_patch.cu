// Convolutions of several taps on tensor cores: f16 and bf16 with sums in f32; f32 rounded to tf32, for who asks for
// it.
//
// conv_patch_forward_<dtype>_<tile>(w, x, bias, y, partial, patches): rows are output channels, columns the pixels of
//   boxes of y (conv_patch.cuh). x [group][image][channel][pixel] and y of any strides; w is channels last, see
//   conv_tensor.cu. The gradient of x is the same with dy and w turned round, as in conv.cu.
//   Grid: tiles x splits x groups; block: 128 threads; dynamic shared memory: three stages of w, two patches of 64
//   bytes a pixel, then 4 bytes for each pixel of a patch and for each tap.
// conv_patch_reduce_<dtype>(partial, bias, y, patches): adds up splits. Grid: any; block: 256.
#include "conv_patch.cuh"

template <class T>
using Large = MmaTile<T, 128, 128>;
template <class T>
using Small = MmaTile<T, 64, 64>;

template <class Tile, class T>
DL_DEVICE void forward(const T* w, const T* x, const T* bias, T* y, float* partial, const Patches& v) {
  DL_SHARED(T, shared);
  const Product& p = v.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  const Digits4 box = box_of(v, s.column / Tile::kN);
  char* const patches = reinterpret_cast<char*>(shared) + Tile::kStages * Tile::kSizeA * sizeof(T);
  int* const elements = reinterpret_cast<int*>(patches + 2 * 64 * 32 * v.rounds);
  tabulate_patch<Tile::kThreads>(v, box, elements);
  for (int i = threadIdx.x; i < v.taps; i += Tile::kThreads) elements[32 * v.rounds + i] = shift_of(v, i);
  __syncthreads();
  const int begin = s.k_begin / Tile::kSlab, slab = begin / most(v.taps, 1), tap = begin - slab * v.taps;
  MmaFilters<Tile> load_w(w + batch_offset(p, s.batch, p.a_batch), v, s.row, slab, tap);
  PatchPixels<Tile> load_x(x + batch_offset(p, s.batch, p.b_batch), v, patches, elements, slab, tap,
                           s.k_end / Tile::kSlab);
  float sum[Tile::kDown][Tile::kAcross][4];
  multiply_mma<Tile>(load_w, load_x, s.k_end - s.k_begin, shared, sum);
  finish_mma<Tile>(p, s, Boxes<T>(v, box, s.batch, y, bias), partial, reinterpret_cast<float*>(shared), sum);
}

#define DL_CONV_PATCH(T, Tile, suffix)                                                                      \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                      \
      conv_patch_forward_##suffix(const T* w, const T* x, const T* bias, T* y, float* partial, Patches v) { \
    forward<Tile<T>>(w, x, bias, y, partial, v);                                                            \
  }                                                                                                         \
  DL_EXPORT(conv_patch_forward_##suffix)
DL_CONV_PATCH(__half, Large, f16_128)
DL_CONV_PATCH(__half, Small, f16_64)
DL_CONV_PATCH(__nv_bfloat16, Large, bf16_128)
DL_CONV_PATCH(__nv_bfloat16, Small, bf16_64)
DL_CONV_PATCH(float, Large, tf32_128)

#define DL_CONV_PATCH_REDUCE(T, suffix)                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                      \
      conv_patch_reduce_##suffix(const float* partial, const T* bias, T* y, Patches v) { \
    reduce_splits<Boxes<T>>(v.product, partial, [&](int batch, int column) {             \
      return Boxes<T>(v, box_of(v, column / v.tile), batch, y, bias);                    \
    });                                                                                  \
  }                                                                                      \
  DL_EXPORT(conv_patch_reduce_##suffix)
DL_CONV_PATCH_REDUCE(__half, f16)
DL_CONV_PATCH_REDUCE(__nv_bfloat16, bf16)
DL_CONV_PATCH_REDUCE(float, f32)
