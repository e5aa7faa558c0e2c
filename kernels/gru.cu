// Steps of a GRU and of its gradient; r, z, n along the weights, r, z, n, m (the states' share of n) as gates.
//
// gru_step_<size>_<dtype>(w, h0, b, lengths, inputs, h, gates, state, q, step): from states h[before] (h0 at first,
// null
//   for zeros), weights w[3H, H] and their bias b[3H] (may be null) to h[now] and gates[now][N, 4H]; inputs[now][N, 3H]
//   is the inputs' share. state[N, H] is the running h, in float for 16-bit types. Rows with lengths[row] <= now keep
//   theirs.
// gru_step_grad_<size>_<dtype>(w, dh, dgates, h0, h, gates, lengths, dinputs, dstates, kept, dh0, q, step):
// dinputs[now]
//   and dstates[now], the gradients of both shares, from dstates[after] and dh[now] (dgates may be null); w is [H, 3H]
//   here. kept[N, H] is the gradient that passes beside the product. Step -1, after all others, writes dh0.
// gru_all_<dtype>, gru_all_grad_<dtype>(..., q, from, to, barrier): all steps at once.
//   Grid, block, sizes and shared memory as in lstm.cu.
#include "recurrent.cuh"

template <class T>
struct GruForward {
  using R = wide<T>;
  static constexpr int kGates = 3, kInner = 1;
  const T *weights, *h0, *b;
  const long long* lengths;
  const T* inputs;
  T *h, *gates;
  R* state;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.before < 0 ? h0 : h + s.before * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[3]) const {
    const long long at = (long long)row * q.hidden + unit, first = s.now * q.states() + (long long)row * q.hidden;
    const T* input = inputs + 3 * first + unit;
    T* gate = gates + 4 * first + unit;
    const bool active = taken(lengths, row, s.now);
    R share[3];
    DL_UNROLL
    for (int g = 0; g < 3; ++g) share[g] = sum[g] + (b == nullptr ? R(0) : widen(b[g * q.hidden + unit]));
    const R r = sigmoid(widen(input[0]) + share[0]), z = sigmoid(widen(input[q.hidden]) + share[1]);
    const R n = tanh(widen(input[2 * q.hidden]) + r * share[2]);
    const R value[4] = {r, z, n, share[2]};
    DL_UNROLL
    for (int g = 0; g < 4; ++g) gate[g * q.hidden] = narrow<T>(active ? value[g] : R(0));
    const R earlier = s.before >= 0 ? state[at] : h0 == nullptr ? R(0) : widen(h0[at]);
    const R next = active ? (R(1) - z) * n + z * earlier : earlier;
    state[at] = next;
    h[first + unit] = narrow<T>(next);
  }
};

template <class T>
struct GruGrad {
  using R = wide<T>;
  static constexpr int kGates = 1, kInner = 3;
  const T *weights, *dh, *dgates, *h0, *h, *gates;
  const long long* lengths;
  T *dinputs, *dstates;
  R* kept;
  T* dh0;

  DL_DEVICE const T* states(const Sequence& q, const Step& s) const {
    return s.after < 0 ? nullptr : dstates + 3 * s.after * q.states();
  }
  DL_DEVICE void finish(const Sequence& q, const Step& s, int row, int unit, const R (&sum)[1]) const {
    const long long at = (long long)row * q.hidden + unit, first = s.now * q.states() + (long long)row * q.hidden;
    const R known = s.after < 0 ? R(0) : sum[0] + kept[at];
    if (s.now < 0) {
      dh0[at] = narrow<T>(known);
      return;
    }
    const R dstate = known + widen(dh[first + unit]);
    const bool active = taken(lengths, row, s.now);
    R gate[4], more[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      gate[g] = widen(gates[4 * first + g * q.hidden + unit]);
      more[g] = dgates == nullptr ? R(0) : widen(dgates[4 * first + g * q.hidden + unit]);
    }
    const T* before = s.before < 0 ? h0 : h + s.before * q.states();
    const R r = gate[0], z = gate[1], n = gate[2], earlier = before == nullptr ? R(0) : widen(before[at]);
    const R dn = (dstate * (R(1) - z) + more[2]) * (R(1) - n * n);
    const R dr = (dn * gate[3] + more[0]) * r * (R(1) - r);
    const R dz = (dstate * (earlier - n) + more[1]) * z * (R(1) - z);
    const R shared[3] = {dr, dz, dn * r + more[3]};
    DL_UNROLL
    for (int g = 0; g < 3; ++g) {
      const long long to = 3 * first + g * q.hidden + unit;
      dinputs[to] = narrow<T>(!active ? R(0) : g == 2 ? dn : shared[g]);
      dstates[to] = narrow<T>(active ? shared[g] : R(0));
    }
    kept[at] = active ? dstate * z : dstate;
  }
};

#define DL_FORWARD(T, name, bounds, body, ...)                                                                        \
  extern "C" __global__ void __launch_bounds__ bounds name(const T* w, const T* h0, const T* b,                       \
                                                           const long long* lengths, const T* inputs, T* h, T* gates, \
                                                           wide<T>* state, Sequence q, __VA_ARGS__) {                 \
    const GruForward<T> family{w, h0, b, lengths, inputs, h, gates, state};                                           \
    body;                                                                                                             \
  }                                                                                                                   \
  DL_EXPORT(name)
#define DL_GRADIENT(T, name, bounds, body, ...)                                                                    \
  extern "C" __global__ void __launch_bounds__ bounds name(                                                        \
      const T* w, const T* dh, const T* dgates, const T* h0, const T* h, const T* gates, const long long* lengths, \
      T* dinputs, T* dstates, wide<T>* kept, T* dh0, Sequence q, __VA_ARGS__) {                                    \
    const GruGrad<T> family{w, dh, dgates, h0, h, gates, lengths, dinputs, dstates, kept, dh0};                    \
    body;                                                                                                          \
  }                                                                                                                \
  DL_EXPORT(name)
#define DL_COMMA ,
#define DL_STEP(T, suffix, size, Tile, units)                                                               \
  DL_FORWARD(T, gru_step_##size##_##suffix, (256), one_step<Tile<T DL_COMMA 3>>(family, q, step), int step) \
  DL_GRADIENT(T, gru_step_grad_##size##_##suffix, (256), one_step<Tile<T DL_COMMA units>>(family, q, step), int step)
#define DL_STEPS(T, suffix)                 \
  DL_STEP(T, suffix, narrow, NarrowStep, 1) \
  DL_STEP(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_STEPS)
#define DL_LARGE(T, suffix) DL_STEP(T, suffix, large, LargeStep, 4)
DL_FOR_FLOAT_SUMS(DL_LARGE)
#define DL_ALL(T, suffix)                                                                                            \
  DL_FORWARD(T, gru_all_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 3>>(family, q, from, to, barrier),       \
             int from, int to, unsigned* barrier)                                                                    \
  DL_GRADIENT(T, gru_all_grad_##suffix, (256, 1), all_steps<NarrowStep<T DL_COMMA 1>>(family, q, from, to, barrier), \
              int from, int to, unsigned* barrier)
DL_FOR_FLOAT_SUMS(DL_ALL)
