// Steps of an LSTM and of its gradient; gates in the order i, f, g, o.
//
// lstm_step_<size>_<dtype>(w, h0, c0, lengths, h, c, gates, cell, q, step): from states h[before] and weights w[4H, H]
// to
//   h[now] and c[now]; gates[now] holds the inputs' share of z and receives the gates. h0 and c0 come before the first
//   step, null for zeros. cell[N, H] is the running c, in float for 16-bit types. Rows with lengths[row] <= now keep
//   their state, with gates of 0.
// lstm_step_grad_<size>_<dtype>(w, dh, dc, dgates, c0, c, gates, lengths, dz, kept, dcell, dh0, dc0, q, step): dz[now]
//   from dz[after], dh[now] and what else flows into the step (dc and dgates may be null); w is [H, 4H] here.
//   kept[N, H] is the gradient that passes by rows without a step, dcell[N, H] that of the running c.
//   Step -1, after all others, writes dh0 and dc0.
//   Grid: row tiles x unit tiles; block: 256. size: narrow (16 rows x 8 units), wide (64 x 16, gradient 64 x 64) or
//   large (128 x 32, gradient 128 x 128); shared: a slab of states and weights, then the sums.
// lstm_all_<dtype>, lstm_all_grad_<dtype>(..., q, from, to, barrier): the same for steps from, ..., to in one
// cooperative
//   launch. Grid: row groups x units / 8; block: 256; dynamic shared memory: see all_steps. barrier: see dl::grid_sync.
#include "recurrent.cuh"

template <class T>
struct LstmForward {
  using R = wide<T>;
  static constexpr int kGates = 4, kInner = 1;
  const T *weights, *h0, *c0;
  const long long* lengths;
  T *h, *c, *gates;
  R* cell;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.before < 0 ? h0 : h + s.before * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[4]) const {
    const long long at = (long long)row * q.hidden + unit, out = s.now * q.states() + at;
    T* gate = gates + 4 * (s.now * q.states() + (long long)row * q.hidden) + unit;
    const bool active = taken(lengths, row, s.now);
    R value[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      const R z = sum[g] + widen(gate[g * q.hidden]);
      value[g] = !active ? R(0) : g == 2 ? R(tanh(z)) : sigmoid(z);
      gate[g * q.hidden] = narrow<T>(value[g]);
    }
    const R earlier = s.before >= 0 ? cell[at] : c0 == nullptr ? R(0) : widen(c0[at]);
    const R state = active ? value[1] * earlier + value[0] * value[2] : earlier;
    const T* before = states(q, s);
    cell[at] = state;
    c[out] = narrow<T>(state);
    h[out] = active ? narrow<T>(value[3] * tanh(state)) : before == nullptr ? T{} : before[at];
  }
};

template <class T>
struct LstmGrad {
  using R = wide<T>;
  static constexpr int kGates = 1, kInner = 4;
  const T *weights, *dh, *dc, *dgates, *c0, *c, *gates;
  const long long* lengths;
  T* dz;
  R *kept, *dcell;
  T *dh0, *dc0;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.after < 0 ? nullptr : dz + 4 * s.after * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[1]) const {
    const long long at = (long long)row * q.hidden + unit, out = s.now * q.states() + at;
    const R of_h = s.after < 0 ? R(0) : sum[0] + kept[at], of_c = s.after < 0 ? R(0) : dcell[at];
    if (s.now < 0) {
      dh0[at] = narrow<T>(of_h);
      dc0[at] = narrow<T>(of_c);
      return;
    }
    const R dstate = of_h + widen(dh[out]), total_c = of_c + (dc == nullptr ? R(0) : widen(dc[out]));
    const bool active = taken(lengths, row, s.now);
    const long long first = 4 * (s.now * q.states() + (long long)row * q.hidden) + unit;
    R gate[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) gate[g] = widen(gates[first + g * q.hidden]);
    const T* before = s.before < 0 ? c0 : c + s.before * q.states();
    const R earlier = before == nullptr ? R(0) : widen(before[at]);
    const R tanh_c = tanh(widen(c[out])), into_c = total_c + dstate * gate[3] * (R(1) - tanh_c * tanh_c);
    const R into[4] = {into_c * gate[2], into_c * earlier, into_c * gate[0], dstate * tanh_c};
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      const R slope = g == 2 ? R(1) - gate[g] * gate[g] : gate[g] * (R(1) - gate[g]);
      const R all = into[g] + (dgates == nullptr ? R(0) : widen(dgates[first + g * q.hidden]));
      dz[first + g * q.hidden] = narrow<T>(active ? all * slope : R(0));
    }
    kept[at] = active ? R(0) : dstate;
    dcell[at] = active ? into_c * gate[1] : total_c;
  }
};

#define DL_FORWARD(T, name, bounds, body, ...)                                                             \
  extern "C" __global__ void __launch_bounds__ bounds name(const T* w, const T* h0, const T* c0,           \
                                                           const long long* lengths, T* h, T* c, T* gates, \
                                                           wide<T>* cell, Sequence q, __VA_ARGS__) {       \
    const LstmForward<T> family{w, h0, c0, lengths, h, c, gates, cell};                                    \
    body;                                                                                                  \
  }                                                                                                        \
  DL_EXPORT(name)
#define DL_GRADIENT(T, name, bounds, body, ...)                                                                  \
  extern "C" __global__ void __launch_bounds__ bounds name(                                                      \
      const T* w, const T* dh, const T* dc, const T* dgates, const T* c0, const T* c, const T* gates,            \
      const long long* lengths, T* dz, wide<T>* kept, wide<T>* dcell, T* dh0, T* dc0, Sequence q, __VA_ARGS__) { \
    const LstmGrad<T> family{w, dh, dc, dgates, c0, c, gates, lengths, dz, kept, dcell, dh0, dc0};               \
    body;                                                                                                        \
  }                                                                                                              \
  DL_EXPORT(name)
#define DL_COMMA ,
#define DL_STEP(T, suffix, size, Tile, units)                                                                \
  DL_FORWARD(T, lstm_step_##size##_##suffix, (256), one_step<Tile<T DL_COMMA 4>>(family, q, step), int step) \
  DL_GRADIENT(T, lstm_step_grad_##size##_##suffix, (256), one_step<Tile<T DL_COMMA units>>(family, q, step), int step)
#define DL_STEPS(T, suffix)                 \
  DL_STEP(T, suffix, narrow, NarrowStep, 1) \
  DL_STEP(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_STEPS)
#define DL_LARGE(T, suffix) DL_STEP(T, suffix, large, LargeStep, 4)
DL_FOR_FLOAT_SUMS(DL_LARGE)
#define DL_ALL(T, suffix)                                                                                             \
  DL_FORWARD(T, lstm_all_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 4>>(family, q, from, to, barrier),       \
             int from, int to, unsigned* barrier)                                                                     \
  DL_GRADIENT(T, lstm_all_grad_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 1>>(family, q, from, to, barrier), \
              int from, int to, unsigned* barrier)
DL_FOR_FLOAT_SUMS(DL_ALL)
