#include "gemm.h"

#include <time.h>

#include "gemm_dot.h"
#include "gemm_pack.h"
#include "gemm_store.h"
#include "isa.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr double kWorthATeam = 3e5;  // multiply-adds: some microseconds
constexpr Index kThin = 48;          // rows or columns, up to which dot products are faster than packing
constexpr Index kShortSum = 128;     // below: adding up the lanes costs more than packing
// Rows of A up to which B is not packed. Where each row of B is on another page, reading it so is slow.
constexpr Index kFew = 40, kVeryFew = 24, kPage = 4096;

template <class T>
double work_of(const Matmul<T>& p) {
  return double(p.M) * double(p.N) * double(p.K);
}

template <class T>
void multiply(const Matmul<T>& p, const T* a, const T* b, const Store<T>& store) {
  const Index M = p.M, N = p.N, K = p.K;
  const int limit = work_of(p) < kWorthATeam ? 1 : num_threads();
  if (p.a_col == 1 && p.b_row == 1 && K >= kShortSum && smaller(M, N) <= kThin)
    return team().run([&](int tid, int nt) { dot_in_team(tid, nt, M, N, K, a, p.a_row, b, p.b_col, store); }, limit);
  const PackRows<T> rows(a, p.a_row, p.a_col, N * K);
  Store<T> starting = store;
  starting.starts = store.bias != nullptr && !store.bias_per_row;
  const auto run = [&](const auto& columns) {
    GemmSpace<T> space(limit, M, N, K, rows.in_place(), columns.in_place);
    team().run([&](int tid, int nt) { gemm_in_team(tid, nt, M, N, K, rows, columns, starting, space); }, limit);
  };
  if (p.b_col == 1 && M <= (p.b_row * Index(sizeof(T)) < kPage ? kFew : kVeryFew)) run(ReadColumns<T>{b, p.b_row});
  else run(PackColumns<T>{b, p.b_row, p.b_col});
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
  const auto items = [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Store<T> store{p.c + i * p.c_batch, p.c_row, p.bias, p.bias_per_row, p.activation, p.accumulate};
      if (p.K <= 0) no_terms(p, store);
      else multiply(p, p.a + i * p.a_batch, p.b + i * p.b_batch, store);
    }
  };
  const double work = work_of(p);
  if (work < kWorthATeam || p.batch >= 4 * num_threads())  // a thread takes whole products
    parallel_for(0, p.batch, 1 + Index(kWorthATeam / (work + 1)), items);
  else items(0, p.batch);
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Chains of multiply-adds in registers, enough of them to hide the latency of each.
float fma_chains(Index n, float start) {
  constexpr int kChains = 12;
  vec<float> x[kChains], factor = broadcast(0.999f), total = {};
  static_for<kChains>([&](auto i) DL_INLINE_LAMBDA { x[i] = broadcast(start + float(i)); });
  for (Index k = 0; k < n; ++k) static_for<kChains>([&](auto i) DL_INLINE_LAMBDA { x[i] = fma(x[i], factor, factor); });
  static_for<kChains>([&](auto i) DL_INLINE_LAMBDA { total += x[i]; });
  return sum<float>(total);
}

double fma_peak(double seconds) {
  constexpr Index kSteps = 100000;
  constexpr double kFlops = 2.0 * 12 * lanes<float> * kSteps;
  const int limit = num_threads();
  const Scratch scratch(sizeof(double) * size_t(limit));
  double* const rate = static_cast<double*>(scratch.data());
  team().run(
      [=](int tid, int nt) {
        const double start = now();
        double flops = 0, elapsed = 0;
        volatile float value = 0;  // each round depends on the one before, so that none is optimised away
        while (elapsed < seconds) {
          value = fma_chains(kSteps, value);
          flops += kFlops;
          elapsed = now() - start;
        }
        rate[tid] = flops / elapsed;
        team().barrier();
        for (int i = 1; tid == 0 && i < nt; ++i) rate[0] += rate[i];
      },
      limit);
  return rate[0];
}

}  // namespace

void fill_gemm(Kernels& kernels) { kernels.gemm = {matmul<float>, matmul<double>, fma_peak}; }

}  // namespace DL_ISA
}  // namespace dlcore
