// One step of a GRU and of its gradient; r, z, n along the weights, r, z, n, m (the states' share of n) as gates.
//
// gru_step_<size>_<dtype>(w, h0, b, lengths, inputs, h, gates, state, step): from states h[before] (h0 at first),
//   weights w[3H, H] and their bias b[3H] (may be null) to h[now] and gates[now][N, 4H]; inputs[now][N, 3H] is the
//   inputs' share. state[N, H] is the running h, in float for 16-bit types. Rows with lengths[row] <= now keep theirs.
// gru_step_grad_<size>_<dtype>(w, dh, dgates, h0, h, gates, lengths, dinputs, dstates, kept, step): dinputs[now] and
//   dstates[now], the gradients of both shares, from dstates[after] and dh[now] (dgates may be null); w is [H, 3H]
//   here. kept[N, H] is the gradient that passes beside the product. After all steps (now = -1) it becomes that of h0.
//   Grid, block, sizes and shared memory as in lstm.cu.
#include "recurrent.cuh"

template <class Tile, class T>
DL_DEVICE void gru_step(const T* w, const T* h0, const T* b, const long long* lengths, const T* inputs, T* h, T* gates,
                        wide<T>* state, const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  step_of_gates<Tile>(s.before < 0 ? h0 : h + s.before * states, w, s, [&](int row, int unit, const R(&sum)[3]) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    const T* input = inputs + 3 * (s.now * states + (long long)row * s.hidden) + unit;
    T* gate = gates + 4 * (s.now * states + (long long)row * s.hidden) + unit;
    const bool active = taken(lengths, row, s.now);
    R share[3];
    DL_UNROLL
    for (int g = 0; g < 3; ++g) share[g] = sum[g] + (b == nullptr ? R(0) : widen(b[g * s.hidden + unit]));
    const R r = sigmoid(widen(input[0]) + share[0]), z = sigmoid(widen(input[s.hidden]) + share[1]);
    const R n = tanh(widen(input[2 * s.hidden]) + r * share[2]);
    const R value[4] = {r, z, n, share[2]};
    DL_UNROLL
    for (int g = 0; g < 4; ++g) gate[g * s.hidden] = narrow<T>(active ? value[g] : R(0));
    const R next = active ? (R(1) - z) * n + z * state[at] : state[at];
    state[at] = next;
    h[out] = narrow<T>(next);
  });
}

template <class Tile, class T>
DL_DEVICE void gru_step_grad(const T* w, const T* dh, const T* dgates, const T* h0, const T* h, const T* gates,
                             const long long* lengths, T* dinputs, T* dstates, wide<T>* kept, const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  const T* later = s.after < 0 ? nullptr : dstates + 3 * s.after * states;
  step_of_units<Tile>(later, w, 3 * s.hidden, s, [&](int row, int unit, R sum) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    R dstate = sum + kept[at];
    if (s.now < 0) {
      kept[at] = dstate;
      return;
    }
    dstate += widen(dh[out]);
    const bool active = taken(lengths, row, s.now);
    const long long first = s.now * states + (long long)row * s.hidden;
    R gate[4], more[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      gate[g] = widen(gates[4 * first + g * s.hidden + unit]);
      more[g] = dgates == nullptr ? R(0) : widen(dgates[4 * first + g * s.hidden + unit]);
    }
    const R r = gate[0], z = gate[1], n = gate[2], before = widen((s.before < 0 ? h0 : h + s.before * states)[at]);
    const R dn = (dstate * (R(1) - z) + more[2]) * (R(1) - n * n);
    const R dr = (dn * gate[3] + more[0]) * r * (R(1) - r);
    const R dz = (dstate * (before - n) + more[1]) * z * (R(1) - z);
    const R shared[3] = {dr, dz, dn * r + more[3]};
    DL_UNROLL
    for (int g = 0; g < 3; ++g) {
      const long long to = 3 * first + g * s.hidden + unit;
      dinputs[to] = narrow<T>(!active ? R(0) : g == 2 ? dn : shared[g]);
      dstates[to] = narrow<T>(active ? shared[g] : R(0));
    }
    kept[at] = active ? dstate * z : dstate;
  });
}

#define DL_GRU(T, suffix, size, Tile, units)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      gru_step_##size##_##suffix(const T* w, const T* h0, const T* b, const long long* lengths, const T* inputs, T* h, \
                                 T* gates, wide<T>* state, Step step) {                                                \
    gru_step<Tile<T, 3>>(w, h0, b, lengths, inputs, h, gates, state, step);                                            \
  }                                                                                                                    \
  DL_EXPORT(gru_step_##size##_##suffix)                                                                                \
  extern "C" __global__ void __launch_bounds__(256) gru_step_grad_##size##_##suffix(                                   \
      const T* w, const T* dh, const T* dgates, const T* h0, const T* h, const T* gates, const long long* lengths,     \
      T* dinputs, T* dstates, wide<T>* kept, Step step) {                                                              \
    gru_step_grad<Tile<T, units>>(w, dh, dgates, h0, h, gates, lengths, dinputs, dstates, kept, step);                 \
  }                                                                                                                    \
  DL_EXPORT(gru_step_grad_##size##_##suffix)
#define DL_GRU_SIZES(T, suffix)            \
  DL_GRU(T, suffix, narrow, NarrowStep, 1) \
  DL_GRU(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_GRU_SIZES)
