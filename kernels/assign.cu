// Elements put into a part of an array.
//
// assign_b<bytes>(x, y, walk): walk's second operand is y, of any strides: y[...] = x[...], x broadcast; a null x is
// the
//   number of 64 bits in walk.scalar. Elements of 1, 2, 4 or 8 bytes whatever they mean. No element of y twice.
//   Grid: any, threads stride over chunks; block: 256; no shared memory.
#include "elementwise.cuh"

template <class T>
DL_DEVICE void assign(const T* x, T* y, const Walk<2>& walk) {
  constexpr int V = kPerVector<T>;
  each_chunk<V>(walk, [&](const Chunk<2>& chunk) {
    Vec<T, V> value;
    load_operand<0>(x, walk, chunk, value);
    if (walk.inner_stride[1] == 1) {
      store_chunk(y, chunk.from[1], chunk.count, walk.vectors, value);
    } else {
      DL_UNROLL
      for (int j = 0; j < V; ++j)
        if (j < chunk.count) y[chunk.from[1] + j * walk.inner_stride[1]] = value.at[j];
    }
  });
}

#define DL_ASSIGN(T, bytes)                                                     \
  extern "C" __global__ void __launch_bounds__(256)                             \
      assign_b##bytes(const T* x, T* y, const __grid_constant__ Walk<2> walk) { \
    assign(x, y, walk);                                                         \
  }                                                                             \
  DL_EXPORT(assign_b##bytes)
DL_ASSIGN(unsigned char, 1)
DL_ASSIGN(unsigned short, 2)
DL_ASSIGN(unsigned, 4)
DL_ASSIGN(unsigned long long, 8)
