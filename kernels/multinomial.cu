// Draws of classes with given weights, with the bits of the reference: its order of additions is sequential.
//
// multinomial_sums_<dtype>(p, sums, rows, classes): running sums of each row, one thread a row.
// multinomial_draw_<dtype>(sums, key, y, classes, count, draws): y[r, d] = how many running sums of row r are at most
//   u times the last, u the uniform number r * count + d of the key. draws: rows x count.
// multinomial_race_<dtype>(p, key, y, n): y[i] = -log(u) / p[i], u from word i: the order of these is a draw of all
//   classes without replacement. y is double.
//   A thread takes the four words of a block of Philox.
//   Grid: any, threads stride; block: 256; no shared memory. Rows and arrays that allow it move in vectors of 16 bytes.
#include "philox.cuh"
#include "strided.cuh"

DL_DEVICE unsigned word_of(const long long* key, unsigned i) { return philox(key, i / 4).at[i % 4]; }

DL_DEVICE bool at_vectors(const void* x, const void* y) { return (Word64(x) | Word64(y)) % 16 == 0; }

template <class T>
DL_DEVICE void running_sums(const T* p, T* sums, unsigned rows, unsigned classes) {
  constexpr int V = kPerVector<T>;
  const bool vectors = classes % V == 0 && at_vectors(p, sums);
  for (unsigned row = blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += gridDim.x * blockDim.x) {
    const long long first = (long long)row * classes;
    T sum = 0;
    Vec<T, V> chunk;  // [V] neighbouring classes
    DL_ROLLED
    for (unsigned c = 0; c < classes; c += V) {
      const int count = min(V, int(classes - c));
      load_chunk(p, first + c, 1, count, vectors, 0, chunk);
      DL_UNROLL
      for (int j = 0; j < V; ++j) chunk.at[j] = sum += chunk.at[j];
      store_chunk(sums, first + c, count, vectors, chunk);
    }
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
  const bool vectors = at_vectors(p, y);
  Vec<T, 4> weight;  // [4] classes, one for each word of a block
  Vec<double, 4> time;
  DL_ROLLED
  for (unsigned block = blockIdx.x * blockDim.x + threadIdx.x; block < (n + 3) / 4; block += gridDim.x * blockDim.x) {
    const int count = min(4, int(n - 4 * block));
    const Words words = philox(key, block);
    load_chunk(p, 4ll * block, 1, count, vectors, 0, weight);
    DL_UNROLL
    for (int j = 0; j < 4; ++j) time.at[j] = -log((double(words.at[j]) + 0.5) * 0x1p-32) / double(weight.at[j]);
    store_chunk(y, 4ll * block, count, vectors, time);
  }
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
