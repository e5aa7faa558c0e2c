// Two-dimensional pooling of `planes` images of H x W to P x Q; pairs are (rows, columns).
#pragma once
#include <cstddef>
#include <cstdint>

namespace dlcore {

struct Pool2d {
  std::ptrdiff_t planes, H, W, P, Q;
  std::ptrdiff_t kernel[2], stride[2], padding[2], dilation[2];
  bool count_padding;  // averages: zeros of the padding count
};

template <class T>
struct PoolFunctions {
  // The largest element of each window (the first of equals; NaN is larger than all) and its row-major position.
  void (*max)(const Pool2d&, const T* x, T* y, std::int64_t* i);
  // Each dy added at the position i, if that is in its window.
  void (*max_grad)(const Pool2d&, const T* dy, const std::int64_t* i, T* dx);
  void (*avg)(const Pool2d&, const T* x, T* y);
  void (*avg_grad)(const Pool2d&, const T* dy, T* dx);
};

struct PoolKernels {
  PoolFunctions<float> f32;
  PoolFunctions<double> f64;
};

}  // namespace dlcore
