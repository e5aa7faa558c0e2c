// Elements of one operand or the other.
//
// select_where_b<bytes>(condition, x, other, y, walk): y[i] = condition[i] ? x[i] : other[i] of broadcast operands, as
//   elementwise.cuh says; elements of 1, 2, 4 or 8 bytes whatever they mean, numbers in walk.scalar as their bits.
// select_triangle_b<bytes>(x, y, columns, elements, matrix, k, lower): x[..., r, c] where c - r <= k, or >= k if not
//   lower, else 0; x and y contiguous, matrix: elements of one.
//   Grid: any, threads stride over elements; block: 256; no shared memory.
#include "elementwise.cuh"

template <class T>
DL_DEVICE void where(const bool* condition, const T* x, const T* other, T* y, const Walk<3>& walk) {
  constexpr int V = kPerVector<T>;
  each_chunk<V>(walk, [&](const Chunk<3>& chunk) {
    Vec<bool, V> choice;
    Vec<T, V> yes, no;
    load_operand<0>(condition, walk, chunk, choice);
    load_operand<1>(x, walk, chunk, yes);
    load_operand<2>(other, walk, chunk, no);
    DL_UNROLL
    for (int j = 0; j < V; ++j) yes.at[j] = choice.at[j] ? yes.at[j] : no.at[j];
    store_chunk(y, chunk.out, chunk.count, walk.vectors, yes);
  });
}

template <class T>
DL_DEVICE void triangle(const T* x, T* y, unsigned columns, unsigned elements, unsigned matrix, long long k,
                        int lower) {
  DL_TWICE
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < elements; i += gridDim.x * blockDim.x) {
    const unsigned place = i % matrix, row = place / columns;
    const long long diagonal = (long long)(place - row * columns) - row;
    y[i] = (lower ? diagonal <= k : diagonal >= k) ? x[i] : T(0);
  }
}

#define DL_SELECT(T, bytes)                                                                             \
  extern "C" __global__ void __launch_bounds__(256) select_where_b##bytes(                              \
      const bool* condition, const T* x, const T* other, T* y, const __grid_constant__ Walk<3> walk) {  \
    where(condition, x, other, y, walk);                                                                \
  }                                                                                                     \
  DL_EXPORT(select_where_b##bytes)                                                                      \
  extern "C" __global__ void __launch_bounds__(256) select_triangle_b##bytes(                           \
      const T* x, T* y, unsigned columns, unsigned elements, unsigned matrix, long long k, int lower) { \
    triangle(x, y, columns, elements, matrix, k, lower);                                                \
  }                                                                                                     \
  DL_EXPORT(select_triangle_b##bytes)
DL_SELECT(unsigned char, 1)
DL_SELECT(unsigned short, 2)
DL_SELECT(unsigned, 4)
DL_SELECT(unsigned long long, 8)
