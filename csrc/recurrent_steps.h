// The steps of a recurrent layer: each multiplies the rows that the step before made with weights that stay packed for
// all steps, and a cell makes new rows of the product: gates and states, or on the way back their gradients.
//
// A thread owns some units of all sequences and keeps their part of the products to itself; of what it makes it packs
// its part for the next product, in which all threads read all parts. So a step has one barrier. Where there are enough
// sequences for the weights to be read by each thread, threads own sequences, and steps have none.
//
//   cell  Type; kGrad: whether steps go backwards; kGates: blocks of H rows of w
//         Sequences<Type> of
//         const Type* first() const        [N,K], what the first step multiplies, or null
//         const Type* made(Step) const     [N,K], what a step made
//         bool keeps() const               the product is added to what the cell left of the one before
//         Type* rest() const               [N,H], where the product after the last step goes, or null
//         void row(Step, Index n, bool held, const Owned<Type>&) const
//                                          takes a step of sequence n for the thread's units; held: past its end
//   with K = H and products [N,kGates*H], or if kGrad K = kGates*H and products [N,H]
#pragma once
#include "gemm_dot.h"
#include "gemm_pack.h"
#include "gemm_store.h"
#include "recurrent.h"

namespace dlcore {
namespace DL_ISA {

// Time indices of a step and of the one before it, of which there is none for the first; start: nothing was made yet.
struct Step {
  Index now, before;
  bool first, start;

  // The row of states[T,N,H] that the step starts from, where the first starts from `initial`, perhaps null.
  template <class T>
  DL_INLINE const T* from(const T* initial, const T* states, Index row, Index rows_of_step, Index units) const {
    if (!first) return states + (before * rows_of_step + row) * units;
    return initial == nullptr ? nullptr : initial + row * units;
  }
};

// Some units, a vector of them; count: of type I<lanes<T>> where they are all there.
template <class T, class Count>
struct Units {
  Index u;
  Count count;

  DL_INLINE vec<T> get(const T* row) const {  // zeros of null
    if (row == nullptr) return vec<T>{};
    if constexpr (sizeof(count) == sizeof(I<1>)) return load(row + u);
    else return load(row + u, count);
  }
  DL_INLINE void put(T* row, vec<T> x) const {
    if constexpr (sizeof(count) == sizeof(I<1>)) store(row + u, x);
    else store(row + u, x, count);
  }
  DL_INLINE void fetch(const T* row) const { __builtin_prefetch(row + u, 1); }
};

// A thread's units in one sequence, and the blocks of its product.
template <class T>
struct Owned {
  Range units;
  T* product;
  Index block;

  // f(units, s) for all of them, a vector at a time; s[q*block] on is block q of the product.
  template <class F>
  DL_INLINE void each(const F& f) const {
    constexpr int W = lanes<T>;
    Index u = units.begin;
    T* s = product;
    for (; u + W <= units.end; u += W, s += W) f(Units<T, I<W>>{u, {}}, s);
    if (u < units.end) f(Units<T, Index>{u, units.end - u}, s);
  }
};

// ---- few rows

inline constexpr int kThinRows = 3, kThinVectors = 4;

// c[i*ldc + j] = (add ? c : 0) + sum over k of a[k*MR + i] b[k*NR + j] of NR = 4 vectors of columns. A single row makes
// two sums of each column, for the latency of one is too long.
template <class T, int MR>
void thin(Index K, const T* a, const T* b, T* c, Index ldc, bool add) {
  constexpr int W = lanes<T>, V = kThinVectors, Sums = MR == 1 ? 2 : 1;
  vec<T> acc[Sums][MR][V] = {};
  const auto term = [&](Index k, auto sum) DL_INLINE_LAMBDA {
    vec<T> y[MR];
    static_for<MR>([&](auto i) DL_INLINE_LAMBDA { y[i] = broadcast(a[k * MR + i]); });
    static_for<V>([&](auto v) DL_INLINE_LAMBDA {
      const vec<T> x = load(b + (k * V + v) * W);
      static_for<MR>([&](auto i) DL_INLINE_LAMBDA { acc[sum][i][v] = fma(y[i], x, acc[sum][i][v]); });
    });
  };
  Index k = 0;
  for (; k + Sums <= K; k += Sums) static_for<Sums>([&](auto sum) DL_INLINE_LAMBDA { term(k + sum, sum); });
  if (k < K) term(k, I<0>());
  static_for<MR>([&](auto i) DL_INLINE_LAMBDA {
    static_for<V>([&](auto v) DL_INLINE_LAMBDA {
      T* at = c + i * ldc + v * W;
      vec<T> x = acc[0][i][v];
      if constexpr (Sums == 2) x += acc[1][i][v];
      store(at, add ? load(at) + x : x);
    });
  });
}

template <class T>
using ThinKernel = void (*)(Index, const T*, const T*, T*, Index, bool);
template <class T>
constexpr ThinKernel<T> thin_kernels[] = {nullptr, thin<T, 1>, thin<T, 2>, thin<T, 3>};

// ---- sizes and memory

// The product of a step, [N,K] times [K, blocks*H]; how it is divided among at most `limit` threads; their memory.
template <class T>
class StepPlan {
 public:
  static constexpr Index kPad = 64 / sizeof(T);    // keeps rows of products from being powers of two apart
  static constexpr Index kFewWeights = 256 << 10;  // bytes that stay in L2
  static constexpr Index kRowsNear = 4;            // of a thread, to multiply as fast as it reads weights from L2
  static constexpr Index kRowsFar = 16;            // and from L3
  static constexpr Index kFewRows = 48;            // up to which dot products are faster than packing for one step
  static constexpr double kWorthATeam = 3e5;       // multiply-adds: some microseconds
  static constexpr double kWorthABarrier = 3e4;    // multiply-adds of a thread in one step: some barriers

  const Sequences<T> of;
  const bool grad;
  const Index K, blocks;
  const bool thin;
  const int width;      // of a panel of weights
  const bool in_place;  // the only product is made of weights that are not packed
  const bool by_rows;   // threads own sequences, not units
  const int limit;

  StepPlan(const Sequences<T>& of, bool grad, Index gates)
      : of(of),
        grad(grad),
        K(grad ? gates * of.units : of.units),
        blocks(grad ? 1 : gates),
        thin(of.rows <= kThinRows),
        width(thin ? kThinVectors * lanes<T> : Tiling<T>::NR),
        in_place(!grad && of.steps == 1 && of.w_col == 1 && of.rows <= kFewRows),
        by_rows(of.rows >= num_threads() * (weights() * Index(sizeof(T)) <= kFewWeights ? kRowsNear : kRowsFar)),
        limit(threads()),
        w_size_(in_place ? 0 : K * blocks * columns()),
        a_size_(of.rows == 1 ? 0 : of.rows * K),
        scratch_(sizeof(T) * size_t(w_size_ + 2 * a_size_ + of.rows * (blocks * columns() + limit * kPad))) {}

  // Of thread tid, which owns units from u, and rows from n on. Threads that own sequences share the weights.
  DL_INLINE T* weights(int tid, Index u) const { return memory() + (by_rows ? 0 : K * blocks * (u + tid * width)); }
  DL_INLINE T* made(Index turn, Index n) const { return memory() + w_size_ + turn % 2 * a_size_ + n * K; }
  DL_INLINE T* product(int tid, Index u, Index n, Index ld) const {
    T* const all = made(0, 0) + 2 * a_size_;
    return by_rows ? all + n * ld : all + of.rows * (blocks * (u + tid * width) + tid * kPad);
  }

 private:
  DL_INLINE Index weights() const { return K * blocks * of.units; }
  DL_INLINE Index columns() const { return of.units + limit * width; }  // units of all threads, in whole panels
  DL_INLINE T* memory() const { return static_cast<T*>(scratch_.data()); }
  int threads() const {
    const double step = double(of.rows) * double(weights()), all = step * double(of.steps);
    const double worth = all < 2 * kWorthATeam ? 1 : by_rows ? all / kWorthATeam : step / kWorthABarrier;
    return int(larger(1.0, smaller(worth, double(num_threads()))));
  }
  const Index w_size_, a_size_;
  const Scratch scratch_;
};

// ---- a thread's part

template <class T>
class StepPart {
 public:
  DL_INLINE StepPart(const StepPlan<T>& plan, int tid, int nt)
      : plan_(plan),
        tid_(tid),
        nt_(nt),
        rows_(plan.by_rows ? part_of(plan.of.rows, 1, tid, nt) : Range{0, plan.of.rows}),
        units_(plan.by_rows ? Range{0, plan.of.units} : part_of(plan.of.units, lanes<T>, tid, nt)),
        panels_(rows_.end - rows_.begin, Tiling<T>::MR),
        block_((units_.end - units_.begin + plan.width - 1) / plan.width * plan.width),
        ld_(plan.blocks * block_ + StepPlan<T>::kPad),
        w_(plan.weights(tid, units_.begin)),
        product_(plan.product(tid, units_.begin, rows_.begin, ld_)) {}

  void pack_weights() const {
    const Sequences<T>& p = plan_.of;
    Index panel = 0;
    for (Index q = 0; q < plan_.blocks; ++q)
      for (Index u = units_.begin; u < units_.end; u += plan_.width, ++panel) {
        if (plan_.by_rows && panel % nt_ != tid_) continue;
        T* const to = w_ + panel * plan_.width * plan_.K;
        const int n = int(smaller<Index>(plan_.width, units_.end - u));
        if (plan_.grad) pack_panel(p.w + u * p.w_col, p.w_col, p.w_row, n, plan_.K, to, plan_.width);
        else pack_panel(p.w + (q * p.units + u) * p.w_row, p.w_row, p.w_col, n, plan_.K, to, plan_.width);
      }
    if (plan_.by_rows) team().barrier();
  }

  // Packs of rows [N,K] those of the own sequences and units; returns what the product of a step reads when all threads
  // have done so. A single row is there already.
  const T* pack(const T* from, Index turn) const {
    const Index K = plan_.K;
    if (plan_.of.rows == 1) return from;
    T* const to = plan_.made(turn, rows_.begin);
    for (Index i = 0; i < panels_.count; ++i) {
      const Index n = panels_.begin(i), height = panels_.size(i);
      for (Index k = units_.begin; k < K; k += plan_.of.units)
        pack_panel(from + (rows_.begin + n) * K + k, K, 1, int(height), units_.end - units_.begin,
                   to + n * K + k * height, int(height));
    }
    return to;
  }

  void clear() const { __builtin_memset(product_, 0, size_t((rows_.end - rows_.begin) * ld_) * sizeof(T)); }

  // All row panels in groups that stay near together with what belongs to them: f(first panel, last, rows).
  template <class F>
  void each_group(const F& f) const {
    constexpr Index kGroup = 16;
    for (Index i = 0; i < panels_.count; i += kGroup) {
      const Range group{i, smaller(i + kGroup, panels_.count)};
      f(group, Range{rows_.begin + panels_.begin(group.begin), rows_.begin + panels_.begin(group.end)});
    }
  }

  void multiply(Range group, const T* a, bool add) const {
    const Index width = plan_.width, K = plan_.K, own = units_.end - units_.begin;
    const T* b = w_;
    for (Index q = 0; q < plan_.blocks; ++q)
      for (Index u = 0; u < own; u += width, b += width * K) {
        T* const c = product_ + q * block_ + u;
        if (plan_.thin) thin_kernels<T>[rows_.end - rows_.begin](K, a, b, c, ld_, add);
        else panel(group, a, b, int((smaller(width, own - u) + lanes<T> - 1) / lanes<T>), c, add);
      }
  }

  // The product of rows `from`[N,K], where nothing is packed.
  void multiply_in_place(const T* from) const {
    const Sequences<T>& p = plan_.of;
    for (Index q = 0; q < plan_.blocks; ++q)
      dot_in_team(0, 1, rows_.end - rows_.begin, units_.end - units_.begin, plan_.K, from + rows_.begin * plan_.K,
                  plan_.K, p.w + (q * p.units + units_.begin) * p.w_row, p.w_row,
                  Store<T>{product_ + q * block_, ld_, nullptr, false, Activation::none, false});
  }

  DL_INLINE Owned<T> owned(Index row) const { return {units_, product_ + (row - rows_.begin) * ld_, block_}; }

 private:
  void panel(Range group, const T* a, const T* b, int vectors, T* c, bool add) const {
    constexpr Index NR = Tiling<T>::NR, kBlock = 256;  // whose part of a panel stays in L1
    const Index count = group.end - group.begin, step = k_step(plan_.K, kBlock);
    for (Index k = 0; k < plan_.K; k += step) {
      const Index kc = smaller(step, plan_.K - k);
      for (Index i = group.begin; i < group.end; ++i) {
        const Index n = panels_.begin(i), height = panels_.size(i);
        const T* const next = b + (k + kc + (i - group.begin) * kc / count) * NR;
        micro_kernels<T>().run[vectors][height]({kc,
                                                 {a + n * plan_.K + k * height, 1, height, int(height)},
                                                 {b + k * NR, NR, int(NR), next, (NR + count - 1) / count},
                                                 c + n * ld_,
                                                 ld_,
                                                 add || k > 0,
                                                 nullptr});
      }
    }
  }

  const StepPlan<T>& plan_;
  const int tid_, nt_;
  const Range rows_, units_;
  const Panels panels_;
  const Index block_, ld_;
  T* const w_;
  T* const product_;
};

// ---- all steps

template <class T>
DL_INLINE Step step_of(const Sequences<T>& p, Index k, bool start) {
  const Index now = p.reverse ? p.steps - 1 - k : k;
  return {now, p.reverse ? now + 1 : now - 1, k == 0, start};
}

template <class Cell>
void take_steps(const Cell& cell) {
  using T = typename Cell::Type;
  const Sequences<T>& p = cell.of;
  if (p.rows == 0 || p.units == 0) return;
  const StepPlan<T> plan(p, Cell::kGrad, Cell::kGates);
  const auto job = [&](int tid, int nt) {
    const StepPart<T> part(plan, tid, nt);
    const T* rows = nullptr;  // of the next product
    const auto publish = [&](const T* made, Index turn) {
      rows = part.pack(made, turn);
      if (!plan.by_rows) team().barrier();
    };
    const T* const first = cell.first();
    const bool packs = !plan.in_place && (first != nullptr || p.steps > 1 || cell.rest() != nullptr);
    part.clear();
    if (packs) part.pack_weights();
    if (first != nullptr) packs ? publish(first, 0) : part.multiply_in_place(first);
    for (Index k = 0; k < p.steps; ++k) {
      const Step step = step_of(p, Cell::kGrad ? p.steps - 1 - k : k, k == 0);
      part.each_group([&](Range group, Range sequences) {
        if (rows != nullptr) part.multiply(group, rows, cell.keeps());
        for (Index n = sequences.begin; n < sequences.end; ++n)
          cell.row(step, n, p.lengths != nullptr && p.lengths[n] <= step.now, part.owned(n));
      });
      if (k + 1 < p.steps || cell.rest() != nullptr) publish(cell.made(step), k + 1);
    }
    if (cell.rest() == nullptr) return;
    part.each_group([&](Range group, Range sequences) {
      part.multiply(group, rows, cell.keeps());
      for (Index n = sequences.begin; n < sequences.end; ++n)
        part.owned(n).each([&](auto u, const T* s) { u.put(cell.rest() + n * p.units, load(s)); });
    });
  };
  team().run(job, plan.limit);
}

}  // namespace DL_ISA
}  // namespace dlcore
