// Draws of classes with given weights, with the bits of the reference: its order of additions is sequential.
//
// multinomial_sums_<dtype>(p, sums, rows, classes): running sums of each row, one thread a row.
// multinomial_draw_<dtype>(sums, key, y, classes, count, draws): y[r, d] = how many running sums of row r are at most
//   u times the last, u the uniform number r * count + d of the key. draws: rows x count.
// multinomial_race_<dtype>(p, key, y, n): y[i] = -log(u) / p[i], u from word i: the order of these is a draw of all
//   classes without replacement. y is double.
//   Grid: any, threads stride; block: 256; no shared memory.
#include "philox.cuh"

DL_DEVICE unsigned word_of(const long long* key, unsigned i) { return philox(key, i / 4).at[i % 4]; }

template <class T>
DL_DEVICE void running_sums(const T* p, T* sums, unsigned rows, unsigned classes) {
  for (unsigned row = blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += gridDim.x * blockDim.x) {
    const long long first = (long long)row * classes;
    T sum = 0;
    DL_ROLLED
    for (unsigned c = 0; c < classes; ++c) sums[first + c] = sum += p[first + c];
  }
}

template <class T>
DL_DEVICE void draw(const T* sums, const long long* key, long long* y, unsigned classes, unsigned count,
                    unsigned draws) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < draws; i += gridDim.x * blockDim.x) {
    const T* row = sums + (long long)(i / count) * classes;
    const T u = T(unit(word_of(key, i))) * row[classes - 1];
    unsigned low = 0, high = classes;
    while (low < high) {
      const unsigned middle = low + (high - low) / 2;
      if (row[middle] <= u) low = middle + 1;
      else high = middle;
    }
    y[i] = low;
  }
}

template <class T>
DL_DEVICE void race(const T* p, const long long* key, double* y, unsigned n) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    y[i] = -log((double(word_of(key, i)) + 0.5) * 0x1p-32) / double(p[i]);
}

#define DL_MULTINOMIAL(T, suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                          \
      multinomial_sums_##suffix(const T* p, T* sums, unsigned rows, unsigned classes) {                      \
    running_sums(p, sums, rows, classes);                                                                    \
  }                                                                                                          \
  DL_EXPORT(multinomial_sums_##suffix)                                                                       \
  extern "C" __global__ void __launch_bounds__(256) multinomial_draw_##suffix(                               \
      const T* sums, const long long* key, long long* y, unsigned classes, unsigned count, unsigned draws) { \
    draw(sums, key, y, classes, count, draws);                                                               \
  }                                                                                                          \
  DL_EXPORT(multinomial_draw_##suffix)                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                          \
      multinomial_race_##suffix(const T* p, const long long* key, double* y, unsigned n) {                   \
    race(p, key, y, n);                                                                                      \
  }                                                                                                          \
  DL_EXPORT(multinomial_race_##suffix)
DL_MULTINOMIAL(float, f32)
DL_MULTINOMIAL(double, f64)
