// One step of a plain recurrent network and of its gradient; activation 0 is tanh, 1 relu.
//
// rnn_step_<size>_<dtype>(w, h0, lengths, h, activation, step): h[now] holds the inputs' share of the sum and receives
//   the states; the rest of the sum is that of h[before] (h0 at first) and weights w[H, H]. Rows with
//   lengths[row] <= now keep their state.
// rnn_step_grad_<size>_<dtype>(w, dh, h, lengths, dz, kept, activation, step): dz[now] from dz[after] and dh[now]; w is
//   transposed here. kept[N, H] is the gradient that passes by rows without a step. After all steps (now = -1) it
//   becomes that of h0.
//   Grid, block, sizes and shared memory as in lstm.cu; units of a lane stand for gates, forward too.
#include "recurrent.cuh"

template <class Tile, class T>
DL_DEVICE void rnn_step(const T* w, const T* h0, const long long* lengths, T* h, int activation, const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  const T* before = s.before < 0 ? h0 : h + s.before * states;
  step_of_units<Tile>(before, w, s.hidden, s, [&](int row, int unit, R sum) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    const R z = sum + widen(h[out]);
    const R next = activation == 0 ? R(tanh(z)) : z > R(0) ? z : R(0);
    h[out] = taken(lengths, row, s.now) ? narrow<T>(next) : before[at];
  });
}

template <class Tile, class T>
DL_DEVICE void rnn_step_grad(const T* w, const T* dh, const T* h, const long long* lengths, T* dz, wide<T>* kept,
                             int activation, const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  step_of_units<Tile>(s.after < 0 ? nullptr : dz + s.after * states, w, s.hidden, s, [&](int row, int unit, R sum) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    R dstate = sum + kept[at];
    if (s.now < 0) {
      kept[at] = dstate;
      return;
    }
    dstate += widen(dh[out]);
    const bool active = taken(lengths, row, s.now);
    const R y = widen(h[out]), slope = activation == 0 ? R(1) - y * y : y > R(0) ? R(1) : R(0);
    dz[out] = narrow<T>(active ? dstate * slope : R(0));
    kept[at] = active ? R(0) : dstate;
  });
}

#define DL_RNN(T, suffix, size, Tile, units)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      rnn_step_##size##_##suffix(const T* w, const T* h0, const long long* lengths, T* h, int activation, Step step) { \
    rnn_step<Tile<T, units>>(w, h0, lengths, h, activation, step);                                                     \
  }                                                                                                                    \
  DL_EXPORT(rnn_step_##size##_##suffix)                                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      rnn_step_grad_##size##_##suffix(const T* w, const T* dh, const T* h, const long long* lengths, T* dz,            \
                                      wide<T>* kept, int activation, Step step) {                                      \
    rnn_step_grad<Tile<T, units>>(w, dh, h, lengths, dz, kept, activation, step);                                      \
  }                                                                                                                    \
  DL_EXPORT(rnn_step_grad_##size##_##suffix)
#define DL_RNN_SIZES(T, suffix)            \
  DL_RNN(T, suffix, narrow, NarrowStep, 1) \
  DL_RNN(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_RNN_SIZES)
