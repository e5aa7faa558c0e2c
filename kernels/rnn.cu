// Steps of a plain recurrent network and of its gradient; activation 0 is tanh, 1 relu.
//
// rnn_step_<size>_<dtype>(w, h0, lengths, h, activation, q, step): h[now] holds the inputs' share of the sum and
// receives
//   the states; the rest of the sum is that of h[before] (h0 at first, null for zeros) and weights w[H, H]. Rows with
//   lengths[row] <= now keep their state.
// rnn_step_grad_<size>_<dtype>(w, dh, h, lengths, dz, kept, dh0, activation, q, step): dz[now] from dz[after] and
// dh[now];
//   w is transposed here. kept[N, H] is the gradient that passes by rows without a step. Step -1, after all others,
//   writes dh0.
// rnn_all_<dtype>, rnn_all_grad_<dtype>(..., q, from, to, barrier): all steps at once.
//   Grid, block, sizes and shared memory as in lstm.cu; units of a lane stand for gates, forward too.
#include "recurrent.cuh"

template <class T>
struct RnnForward {
  using R = wide<T>;
  static constexpr int kGates = 1, kInner = 1;
  const T *weights, *h0;
  const long long* lengths;
  T* h;
  int activation;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.before < 0 ? h0 : h + s.before * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[1]) const {
    const long long at = (long long)row * q.hidden + unit, out = s.now * q.states() + at;
    const R z = sum[0] + widen(h[out]);
    const R next = activation == 0 ? R(tanh(z)) : z > R(0) ? z : R(0);
    const T* before = states(q, s);
    h[out] = taken(lengths, row, s.now) ? narrow<T>(next) : before == nullptr ? T{} : before[at];
  }
};

template <class T>
struct RnnGrad {
  using R = wide<T>;
  static constexpr int kGates = 1, kInner = 1;
  const T *weights, *dh, *h;
  const long long* lengths;
  T* dz;
  R* kept;
  T* dh0;
  int activation;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.after < 0 ? nullptr : dz + s.after * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[1]) const {
    const long long at = (long long)row * q.hidden + unit, out = s.now * q.states() + at;
    const R known = s.after < 0 ? R(0) : sum[0] + kept[at];
    if (s.now < 0) {
      dh0[at] = narrow<T>(known);
      return;
    }
    const R dstate = known + widen(dh[out]), y = widen(h[out]);
    const R slope = activation == 0 ? R(1) - y * y : y > R(0) ? R(1) : R(0);
    const bool active = taken(lengths, row, s.now);
    dz[out] = narrow<T>(active ? dstate * slope : R(0));
    kept[at] = active ? R(0) : dstate;
  }
};

#define DL_FORWARD(T, name, bounds, body, ...)                                                                      \
  extern "C" __global__ void __launch_bounds__ bounds name(const T* w, const T* h0, const long long* lengths, T* h, \
                                                           int activation, Sequence q, __VA_ARGS__) {               \
    const RnnForward<T> family{w, h0, lengths, h, activation};                                                      \
    body;                                                                                                           \
  }                                                                                                                 \
  DL_EXPORT(name)
#define DL_GRADIENT(T, name, bounds, body, ...)                                                                    \
  extern "C" __global__ void __launch_bounds__ bounds name(const T* w, const T* dh, const T* h,                    \
                                                           const long long* lengths, T* dz, wide<T>* kept, T* dh0, \
                                                           int activation, Sequence q, __VA_ARGS__) {              \
    const RnnGrad<T> family{w, dh, h, lengths, dz, kept, dh0, activation};                                         \
    body;                                                                                                          \
  }                                                                                                                \
  DL_EXPORT(name)
#define DL_COMMA ,
#define DL_STEP(T, suffix, size, Tile, units)                                                                   \
  DL_FORWARD(T, rnn_step_##size##_##suffix, (256), one_step<Tile<T DL_COMMA units>>(family, q, step), int step) \
  DL_GRADIENT(T, rnn_step_grad_##size##_##suffix, (256), one_step<Tile<T DL_COMMA units>>(family, q, step), int step)
#define DL_STEPS(T, suffix)                 \
  DL_STEP(T, suffix, narrow, NarrowStep, 1) \
  DL_STEP(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_STEPS)
#define DL_LARGE(T, suffix) DL_STEP(T, suffix, large, LargeStep, 4)
DL_FOR_FLOAT_SUMS(DL_LARGE)
#define DL_ALL(T, suffix)                                                                                            \
  DL_FORWARD(T, rnn_all_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 1>>(family, q, from, to, barrier),       \
             int from, int to, unsigned* barrier)                                                                    \
  DL_GRADIENT(T, rnn_all_grad_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 1>>(family, q, from, to, barrier), \
              int from, int to, unsigned* barrier)
DL_FOR_FLOAT_SUMS(DL_ALL)
