#include "gemm.h"

#include "gemm_pack.h"
#include "gemm_store.h"
#include "isa.h"

namespace dlcore {
namespace DL_ISA {
namespace {

template <class T>
void packed(const Matmul<T>& p, const T* a, const T* b, const Store<T>& store) {
  const int width = num_threads();
  const GemmSpace<T> space(width, p.N, p.K);
  team().run([&](int tid, int nt) {
    gemm_in_team(tid, nt, p.M, p.N, p.K, PackRows<T>{a, p.a_row, p.a_col}, PackColumns<T>{b, p.b_row, p.b_col}, store,
                 space);
  });
}

// Without terms to add: only the epilogue.
template <class T>
void no_terms(const Matmul<T>& p, const Store<T>& store) {
  const T zeros[Tiling<T>::NR] = {};
  for (Index m = 0; m < p.M; ++m)
    for (Index n = 0; n < p.N; n += Tiling<T>::NR)
      store.tile(m, n, 1, int(smaller<Index>(Tiling<T>::NR, p.N - n)), zeros, true, true);
}

template <class T>
void matmul(const Matmul<T>& p) {
  if (p.M <= 0 || p.N <= 0) return;
  for (Index i = 0; i < p.batch; ++i) {
    const T* a = p.a + i * p.a_batch;
    const T* b = p.b + i * p.b_batch;
    const Store<T> store{p.c + i * p.c_batch, p.c_row, p.bias, p.bias_per_row, p.activation, p.accumulate};
    if (p.K <= 0) no_terms(p, store);
    else packed(p, a, b, store);
  }
}

double fma_peak(double) { return 0; }

}  // namespace

void fill_gemm(Kernels& kernels) { kernels.gemm = {matmul<float>, matmul<double>, fma_peak}; }

}  // namespace DL_ISA
}  // namespace dlcore
