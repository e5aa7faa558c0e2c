// Walks of broadcast operands of any strides. The host merges axes and finds what can move 16 bytes at a time.
#pragma once
#include "types.cuh"

constexpr int kMaxAxes = 6;

// One call of an element-wise kernel with N operands and a contiguous output; strides count elements.
template <int N>
struct Walk {
  unsigned chunks;  // vectors of the output, a row's last one perhaps partial; below 2^31
  unsigned chunks_per_row;
  long long inner;                // size of the last axis
  long long stride[N][kMaxAxes];  // of the outer axes, last first
  long long inner_stride[N];      // of the last axis: 1, 0 or any
  unsigned shape[kMaxAxes];       // of the outer axes, last first
  int axes;                       // how many outer axes there are
  int vectors;                    // whether rows move in whole vectors
  double scalar[N];               // the value of an operand without memory
};

// Where each operand's row begins.
template <int N>
DL_DEVICE void row_offsets(const Walk<N>& walk, unsigned row, long long (&offset)[N]) {
  DL_UNROLL
  for (int k = 0; k < N; ++k) offset[k] = 0;
  DL_ROLLED
  for (int axis = 0; axis < walk.axes; ++axis) {
    const unsigned next = row / walk.shape[axis], index = row - next * walk.shape[axis];
    DL_UNROLL
    for (int k = 0; k < N; ++k) offset[k] += index * walk.stride[k][axis];
    row = next;
  }
}

// `count` elements of an operand from `at` on, one vector where that is possible.
template <class T, int V>
DL_DEVICE void load_chunk(const T* x, long long at, long long stride, int count, bool vectors, double scalar,
                          Vec<T, V>& chunk) {
  if (x == nullptr || stride == 0) {
    const T value = x == nullptr ? by_value<T>(scalar) : x[at];
    DL_UNROLL
    for (int j = 0; j < V; ++j) chunk.at[j] = value;
  } else if (vectors && stride == 1 && count == V) {
    chunk = *reinterpret_cast<const Vec<T, V>*>(x + at);
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j) chunk.at[j] = j < count ? x[at + j * stride] : T{};
  }
}

template <class T, int V>
DL_DEVICE void store_chunk(T* y, long long at, int count, bool vectors, const Vec<T, V>& chunk) {
  if (vectors && count == V) {
    *reinterpret_cast<Vec<T, V>*>(y + at) = chunk;
  } else {
    DL_UNROLL
    for (int j = 0; j < V; ++j)
      if (j < count) y[at + j] = chunk.at[j];
  }
}
