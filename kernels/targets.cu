// One-hot vectors and the target weights of cross-entropy.
//
// targets_<dtype>(labels, weight, y, record, t): y[n, c, i] = w[c] * (share + (keep where labels[n, i] = c)), and 0
//   where labels[n, i] = ignored; weight null: 1. A label that is no class is noted in `record`, if there is one.
//   Contiguous; less than 2^31 elements.
//   Grid: any, threads stride over y; block: 256; no shared memory.
#include "refuse.cuh"
#include "types.cuh"

struct Targets {
  double keep, share;
  long long ignored;
  unsigned classes, inner, elements;
};

template <class T>
DL_DEVICE void targets(const long long* labels, const T* weight, T* y, Record* record, const Targets& t) {
  using R = wide<T>;
  const R keep = R(t.keep), share = R(t.share);
  DL_TWICE
  for (unsigned at = blockIdx.x * blockDim.x + threadIdx.x; at < t.elements; at += gridDim.x * blockDim.x) {
    const unsigned row = at / t.inner, n = row / t.classes, c = row - n * t.classes;
    const unsigned from = n * t.inner + (at - row * t.inner);
    const long long label = labels[from];
    if (record != nullptr && c == 0 && (label < 0 || label >= t.classes)) refuse(record, from, label);
    const R value = (label == c ? keep : R(0)) + share;
    y[at] = narrow<T>(label == t.ignored ? R(0) : weight == nullptr ? value : value * R(widen(weight[c])));
  }
}

#define DL_TARGETS(T, suffix)                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                 \
      targets_##suffix(const long long* labels, const T* weight, T* y, Record* record, Targets t) { \
    targets(labels, weight, y, record, t);                                                          \
  }                                                                                                 \
  DL_EXPORT(targets_##suffix)
DL_FOR_FLOATS(DL_TARGETS)
DL_TARGETS(int, i32)
DL_TARGETS(long long, i64)
DL_TARGETS(unsigned char, b8)
