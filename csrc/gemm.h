// Matrix product, as the rest of the program sees it. Its parts, for use inside other kernels: gemm_loops.h.
#pragma once
#include <cstddef>

namespace dlcore {

enum class Activation { none, relu, gelu, tanh, sigmoid };

// C[M,N] = act(A[M,K] B[K,N] + bias), or C + A B instead of A B, for each of `batch` matrices. Strides count elements
// and may be anything for A and B (0 and negative too); a row of C is contiguous, and C overlaps neither A nor B.
template <class T>
struct Matmul {
  std::ptrdiff_t batch, M, N, K;
  const T* a;
  std::ptrdiff_t a_batch, a_row, a_col;
  const T* b;
  std::ptrdiff_t b_batch, b_row, b_col;
  T* c;
  std::ptrdiff_t c_batch, c_row;
  const T* bias;  // [N], or [M] if bias_per_row; null: none
  bool bias_per_row;
  Activation activation;
  bool accumulate;
};

struct GemmKernels {
  void (*f32)(const Matmul<float>&);
  void (*f64)(const Matmul<double>&);
  double (*fma_peak)(double seconds);  // measured float32 FLOP/s of all threads
};

}  // namespace dlcore
