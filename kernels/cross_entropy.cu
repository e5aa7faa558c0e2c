// Cross-entropy of logits with integer labels: logsumexp and loss of each position, their sums, and the gradient.
//
// The weight of class c at a position with label l is t_c = w_c ((1 - s) [c = l] + s / classes), 0 at ignored labels;
// the loss is sum_c t_c (lse - x_c). Of 16-bit logits lse, loss and their gradients are float.
//
// cross_entropy_{warp,block,long}_<t>(x, labels, weight, lse, loss, record, shape): x[rows][classes], as in
//   softmax.cu; where s is not 0, rows are read once more. A label that is no class has no loss, and is noted in
//   `record`.
// cross_entropy_columns_<t>(...): x[rows / inner][classes][inner], one thread a position.
// cross_entropy_part_<t>(loss, labels, weight, parts, total, divisor, shape): parts[b] = sum of loss, sum of w_label,
//   over the positions from b * span on; a single block writes total and divisor instead, as cross_entropy_total does.
//   Grid: rows / span rounded up; block: 256; shared: a number a warp.
// cross_entropy_total_<wide>(parts, count, mean, total, divisor): both sums, the first divided by the second where
//   mean is 1. Grid: 1; block: 256.
// cross_entropy_grad_{warp,block}_<t>(g_lse, g_loss, x, lse, labels, weight, divisor, weights, dx, shape): rows of any
//   length. g_lse: null for zeros. divisor: one number, or null for 1. weights: the sum of the class weights, null
//   where that is `classes`.
// cross_entropy_grad_columns_<t>(...): one thread a position.
#include "exponentials.cuh"
#include "refuse.cuh"

struct Shape {
  long long ignored;  // the label that has no loss
  double smoothing;
  unsigned rows, classes, inner;  // rows: positions
  unsigned span;                  // positions of a part of the sums
  int vectors;                    // of rows and weights, as row.cuh has it
  int per_row;                    // whether g_loss has a number for each position
  int mean;                       // whether label weights are summed
};

template <class T>  // blocks that a multiprocessor holds, of 40 to 80 registers a thread
constexpr int kResident = sizeof(T) == 4   ? 6
                          : sizeof(T) == 2 ? 4
                                           : 3;
template <class T>  // the same of the gradients, 0 for any number
constexpr int kResidentGradients = sizeof(T) == 4 ? 6 : 0;

// What a position's label asks for.
template <class R>
struct Target {
  bool counts, in_range;
  long long label;
  R weight;  // of the label's class; 0 where there is none
};

template <class T>
DL_DEVICE Target<wide<T>> target_of(const long long* labels, const T* weight, unsigned row, const Shape& shape) {
  const long long label = labels[row];
  const bool counts = label != shape.ignored, in_range = label >= 0 && label < shape.classes;
  const wide<T> known = weight == nullptr ? wide<T>(1) : widen(weight[in_range ? label : 0]);
  return {counts, in_range, label, counts && in_range ? known : wide<T>(0)};
}

template <class R>
DL_DEVICE R times_distance(R weight, R distance) {
  return weight == R(0) ? R(0) : weight * distance;
}

template <class R>
DL_DEVICE R logsumexp(const Exponentials<R>& row) {
  return row.top == R(-INFINITY) ? R(NAN) : log(row.total) + row.top;
}

template <class T>
DL_DEVICE Target<wide<T>> checked_target(const long long* labels, const T* weight, unsigned row, Record* record,
                                         const Shape& shape) {
  const Target<wide<T>> target = target_of(labels, weight, row, shape);
  if (target.counts && !target.in_range) refuse(record, row, target.label);
  return target;
}

// The loss from its parts: the distance lse - x of the label, and the weighted sum of those of all classes.
template <class R>
DL_DEVICE R loss_of(const Target<R>& target, R of_label, R of_all, const Shape& shape) {
  if (!target.counts) return R(0);
  const R smoothing = R(shape.smoothing);
  const R sharp = times_distance(R(1 - shape.smoothing) * target.weight, of_label);
  return smoothing == R(0) ? sharp : sharp + R(shape.smoothing / shape.classes) * of_all;
}

// The class weights of a lane's elements of a tile: 0 past the end.
template <int LANES, class T>
DL_DEVICE void load_weights(const T* weight, unsigned base, int lane, const Shape& shape, wide<T> (&w)[kPerVector<T>]) {
  if (weight != nullptr) return load_tile<LANES>(weight, base, shape.classes, lane, shape.vectors, wide<T>(0), w);
  DL_UNROLL
  for (int j = 0; j < kPerVector<T>; ++j)
    w[j] = place<T, LANES>(base, lane, j, shape.vectors) < shape.classes ? wide<T>(1) : wide<T>(0);
}

// sum of w_c (lse - x_c) over a row, the same bits in each lane.
template <int LANES, class T>
DL_DEVICE wide<T> distances(const T* row, wide<T> lse, const T* weight, int lane, const Shape& shape) {
  wide<T> sum = wide<T>(0), x[kPerVector<T>], w[kPerVector<T>];
  DL_ROLLED
  for (unsigned base = 0; base < shape.classes; base += kTile<T, LANES>) {
    load_tile<LANES>(row, base, shape.classes, lane, shape.vectors, wide<T>(0), x);
    load_weights<LANES>(weight, base, lane, shape, w);
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) sum += times_distance(w[j], lse - x[j]);
  }
  return join<LANES>(sum, Add());
}

template <class T, class R>
DL_DEVICE void finish_row(const T* x, const Target<R>& target, unsigned row, R lse, R of_all, R* lse_out, R* loss,
                          const Shape& shape) {
  R of_label = R(0);
  if (target.weight != R(0)) of_label = lse - widen(x[row * shape.classes + unsigned(target.label)]);
  lse_out[row] = lse;
  loss[row] = loss_of(target, of_label, of_all, shape);
}

template <class T, int LANES>
DL_DEVICE void cross_entropy_held(const T* x, const long long* labels, const T* weight, wide<T>* lse_out, wide<T>* loss,
                                  Record* record, const Shape& shape) {
  using R = wide<T>;
  const unsigned n = shape.classes;
  each_row<LANES>(shape.rows, [&](unsigned row, int lane) {
    const T* own = x + (unsigned long long)row * n;
    R held[kTiles<T>][kPerVector<T>] = {};
    each_held<T, LANES>(n, [&](int tile, unsigned base) {
      load_tile<LANES>(own, base, n, lane, shape.vectors, R(-INFINITY), held[tile]);
    });
    const R lse = logsumexp(exponentials_of_held<T, LANES>(held, n));
    const R of_all = shape.smoothing == 0 ? R(0) : distances<LANES>(own, lse, weight, lane, shape);
    if (lane == 0)
      finish_row(x, checked_target(labels, weight, row, record, shape), row, lse, of_all, lse_out, loss, shape);
  });
}

template <class T>
DL_DEVICE void cross_entropy_long(const T* x, const long long* labels, const T* weight, wide<T>* lse_out, wide<T>* loss,
                                  Record* record, const Shape& shape) {
  using R = wide<T>;
  const unsigned n = shape.classes;
  each_row<kBlock>(shape.rows, [&](unsigned row, int lane) {
    const T* own = x + (unsigned long long)row * n;
    Exponentials<R> found;
    R part[kPerVector<T>];
    each_tile<T, kBlock>(n, [&](unsigned base) {
      load_tile<kBlock>(own, base, n, lane, shape.vectors, R(-INFINITY), part);
      found.add(part);
    });
    found.template join_lanes<kBlock>();
    const R lse = logsumexp(found);
    const R of_all = shape.smoothing == 0 ? R(0) : distances<kBlock>(own, lse, weight, lane, shape);
    if (lane == 0)
      finish_row(x, checked_target(labels, weight, row, record, shape), row, lse, of_all, lse_out, loss, shape);
  });
}

template <class T>
DL_DEVICE void cross_entropy_columns(const T* x, const long long* labels, const T* weight, wide<T>* lse_out,
                                     wide<T>* loss, Record* record, const Shape& shape) {
  using R = wide<T>;
  const unsigned position = blockIdx.x * kBlock + threadIdx.x, inner = shape.inner;
  if (position >= shape.rows) return;
  const T* own = x + (unsigned long long)(position / inner) * shape.classes * inner + position % inner;
  const R lse = logsumexp(exponentials_of_column(own, shape.classes, inner));
  const Target<R> target = checked_target(labels, weight, position, record, shape);
  R of_label = R(0), of_all = R(0);
  if (target.weight != R(0)) of_label = lse - widen(own[target.label * inner]);
  if (shape.smoothing != 0) DL_TWICE
  for (unsigned c = 0; c < shape.classes; ++c)
    of_all +=
        times_distance(weight == nullptr ? R(1) : widen(weight[c]), lse - widen(own[(unsigned long long)c * inner]));
  lse_out[position] = lse;
  loss[position] = loss_of(target, of_label, of_all, shape);
}

// ---- sums over positions

template <class R>
struct Sums {
  R loss, weight;
  DL_DEVICE void finish(int mean, R* total, R* divisor) const {
    if (total != nullptr) *total = mean ? loss / weight : loss;
    if (divisor != nullptr) *divisor = weight;
  }
};

template <class T>
DL_DEVICE void cross_entropy_part(const wide<T>* loss, const long long* labels, const T* weight, Sums<wide<T>>* parts,
                                  wide<T>* total, wide<T>* divisor, const Shape& shape) {
  using R = wide<T>;
  const unsigned first = blockIdx.x * shape.span;
  const unsigned end = shape.rows - first < shape.span ? shape.rows : first + shape.span;
  Sums<R> own{R(0), R(0)};
  DL_TWICE
  for (unsigned i = first + threadIdx.x; i < end; i += kBlock) {
    if (loss != nullptr) own.loss += loss[i];
    if (shape.mean) own.weight += target_of(labels, weight, i, shape).weight;
  }
  own = {join<kBlock>(own.loss, Add()), join<kBlock>(own.weight, Add())};
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) own.finish(shape.mean, total, divisor);
  else parts[blockIdx.x] = own;
}

template <class R>
DL_DEVICE void cross_entropy_total(const Sums<R>* parts, unsigned count, int mean, R* total, R* divisor) {
  Sums<R> own{R(0), R(0)};
  for (unsigned i = threadIdx.x; i < count; i += kBlock) {
    own.loss += parts[i].loss;
    own.weight += parts[i].weight;
  }
  own = {join<kBlock>(own.loss, Add()), join<kBlock>(own.weight, Add())};
  if (threadIdx.x == 0) own.finish(mean, total, divisor);
}

// ---- gradient

template <class T>
struct GradientOperands {
  const wide<T>*g_lse, *g_loss;
  const T* x;
  const wide<T>* lse;
  const long long* labels;
  const T* weight;
  const wide<T>*divisor, *weights;
};

// dx_c = p_c (scale sum(t) + g_lse) - scale t_c at one position, with p_c = e**(x_c - lse).
template <class T>
struct CrossEntropyGrad {
  using R = wide<T>;
  Target<R> target;
  R lse, scale, of_p, spread;  // spread: s / classes, and 0 where the label is ignored
  R sharp;                     // 1 - s
  DL_DEVICE CrossEntropyGrad(const GradientOperands<T>& o, unsigned row, const Shape& shape)
      : target(target_of(o.labels, o.weight, row, shape)), lse(o.lse[row]) {
    scale = o.g_loss[shape.per_row ? row : 0] / (o.divisor == nullptr ? R(1) : *o.divisor);
    spread = target.counts ? R(shape.smoothing / shape.classes) : R(0);
    sharp = R(1 - shape.smoothing);
    const R all = o.weights == nullptr ? R(shape.classes) : *o.weights;
    const R sum = sharp * target.weight + (spread == R(0) ? R(0) : spread * all);
    of_p = scale * sum + (o.g_lse == nullptr ? R(0) : o.g_lse[row]);
  }
  DL_DEVICE R operator()(unsigned c, R w, R x) const {
    const R spread_over_all = spread == R(0) ? R(0) : spread * w;
    const R t = spread_over_all + (c == target.label ? sharp * target.weight : R(0));
    return exp(x - lse) * of_p - scale * t;
  }
};

template <class T, int LANES>
DL_DEVICE void cross_entropy_grad_row(const GradientOperands<T>& o, T* dx, unsigned row, int lane, const Shape& shape) {
  const CrossEntropyGrad<T> f(o, row, shape);
  const unsigned long long start = (unsigned long long)row * shape.classes;
  DL_ROLLED
  for (unsigned base = 0; base < shape.classes; base += kTile<T, LANES>) {
    wide<T> part[kPerVector<T>], w[kPerVector<T>];
    load_tile<LANES>(o.x + start, base, shape.classes, lane, shape.vectors, wide<T>(0), part);
    load_weights<LANES>(o.weight, base, lane, shape, w);
    DL_UNROLL
    for (int j = 0; j < kPerVector<T>; ++j) part[j] = f(place<T, LANES>(base, lane, j, shape.vectors), w[j], part[j]);
    store_tile<LANES>(dx + start, base, shape.classes, lane, shape.vectors, part);
  }
}

template <class T, int LANES>
DL_DEVICE void cross_entropy_grad_rows(const GradientOperands<T>& o, T* dx, const Shape& shape) {
  each_row<LANES>(shape.rows,
                  [&](unsigned row, int lane) { cross_entropy_grad_row<T, LANES>(o, dx, row, lane, shape); });
}

template <class T>
DL_DEVICE void cross_entropy_grad_columns(const GradientOperands<T>& o, T* dx, const Shape& shape) {
  const unsigned position = blockIdx.x * kBlock + threadIdx.x, inner = shape.inner;
  if (position >= shape.rows) return;
  const CrossEntropyGrad<T> f(o, position, shape);
  const unsigned long long start = (unsigned long long)(position / inner) * shape.classes * inner + position % inner;
  DL_TWICE
  for (unsigned c = 0; c < shape.classes; ++c) {
    const unsigned long long at = start + (unsigned long long)c * inner;
    dx[at] = narrow<T>(f(c, o.weight == nullptr ? wide<T>(1) : widen(o.weight[c]), widen(o.x[at])));
  }
}

// ---- the kernels

#define DL_COMMA ,
#define DL_FORWARD(way, body, T, suffix)                                                                 \
  extern "C" __global__ void __launch_bounds__(kBlock, kResident<T>)                                     \
      cross_entropy_##way##_##suffix(const T* x, const long long* labels, const T* weight, wide<T>* lse, \
                                     wide<T>* loss, Record* record, Shape shape) {                       \
    cross_entropy_##body(x, labels, weight, lse, loss, record, shape);                                   \
  }                                                                                                      \
  DL_EXPORT(cross_entropy_##way##_##suffix)
#define DL_GRADIENT(way, body, T, suffix)                                                                          \
  extern "C" __global__ void __launch_bounds__(kBlock, kResidentGradients<T>) cross_entropy_grad_##way##_##suffix( \
      const wide<T>* g_lse, const wide<T>* g_loss, const T* x, const wide<T>* lse, const long long* labels,        \
      const T* weight, const wide<T>* divisor, const wide<T>* weights, T* dx, Shape shape) {                       \
    cross_entropy_grad_##body({g_lse, g_loss, x, lse, labels, weight, divisor, weights}, dx, shape);               \
  }                                                                                                                \
  DL_EXPORT(cross_entropy_grad_##way##_##suffix)
#define DL_CROSS_ENTROPY(T, suffix)                                                                                    \
  DL_FORWARD(warp, held<T DL_COMMA kWarp>, T, suffix)                                                                  \
  DL_FORWARD(block, held<T DL_COMMA kBlock>, T, suffix)                                                                \
  DL_FORWARD(long, long<T>, T, suffix)                                                                                 \
  DL_FORWARD(columns, columns<T>, T, suffix)                                                                           \
  DL_GRADIENT(warp, rows<T DL_COMMA kWarp>, T, suffix)                                                                 \
  DL_GRADIENT(block, rows<T DL_COMMA kBlock>, T, suffix)                                                               \
  DL_GRADIENT(columns, columns<T>, T, suffix)                                                                          \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                                 \
      cross_entropy_part_##suffix(const wide<T>* loss, const long long* labels, const T* weight, Sums<wide<T>>* parts, \
                                  wide<T>* total, wide<T>* divisor, Shape shape) {                                     \
    cross_entropy_part<T>(loss, labels, weight, parts, total, divisor, shape);                                         \
  }                                                                                                                    \
  DL_EXPORT(cross_entropy_part_##suffix)
DL_FOR_FLOATS(DL_CROSS_ENTROPY)

#define DL_TOTAL(R, suffix)                                                                                \
  extern "C" __global__ void __launch_bounds__(kBlock)                                                     \
      cross_entropy_total_##suffix(const Sums<R>* parts, unsigned count, int mean, R* total, R* divisor) { \
    cross_entropy_total(parts, count, mean, total, divisor);                                               \
  }                                                                                                        \
  DL_EXPORT(cross_entropy_total_##suffix)
DL_TOTAL(float, f32)
DL_TOTAL(double, f64)
