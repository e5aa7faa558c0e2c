// One step of an LSTM and of its gradient; gates in the order i, f, g, o.
//
// lstm_step_<size>_<dtype>(w, h0, lengths, h, c, gates, cell, step): from states h[before] (h0 at first) and weights
//   w[4H, H] to h[now] and c[now]; gates[now] holds the inputs' share of z and receives the gates. cell[N, H] is the
//   running c, in float for 16-bit types. Rows with lengths[row] <= now keep their state, with gates of 0.
// lstm_step_grad_<size>_<dtype>(w, dh, dc, dgates, c0, c, gates, lengths, dz, kept, dcell, step): dz[now] from
//   dz[after], dh[now] and what else flows into the step (dc and dgates may be null); w is [H, 4H] here.
//   kept[N, H] is the gradient that passes by rows without a step, dcell[N, H] that of the running c.
//   After all steps (now = -1) kept becomes the gradient of h0.
//   Grid: row tiles x unit tiles; block: 256. size: narrow (16 rows x 8 units) or wide (64 x 16, gradient 64 x 64);
//   shared: a slab of states and weights, then the sums.
#include "recurrent.cuh"

template <class Tile, class T>
DL_DEVICE void lstm_step(const T* w, const T* h0, const long long* lengths, T* h, T* c, T* gates, wide<T>* cell,
                         const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  const T* before = s.before < 0 ? h0 : h + s.before * states;
  step_of_gates<Tile>(before, w, s, [&](int row, int unit, const R(&sum)[4]) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    T* gate = gates + 4 * (s.now * states + (long long)row * s.hidden) + unit;
    const bool active = taken(lengths, row, s.now);
    R value[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      const R z = sum[g] + widen(gate[g * s.hidden]);
      value[g] = !active ? R(0) : g == 2 ? R(tanh(z)) : sigmoid(z);
      gate[g * s.hidden] = narrow<T>(value[g]);
    }
    const R state = active ? value[1] * cell[at] + value[0] * value[2] : cell[at];
    cell[at] = state;
    c[out] = narrow<T>(state);
    h[out] = active ? narrow<T>(value[3] * tanh(state)) : before[at];
  });
}

template <class Tile, class T>
DL_DEVICE void lstm_step_grad(const T* w, const T* dh, const T* dc, const T* dgates, const T* c0, const T* c,
                              const T* gates, const long long* lengths, T* dz, wide<T>* kept, wide<T>* dcell,
                              const Step& s) {
  using R = wide<T>;
  const long long states = (long long)s.rows * s.hidden;
  const T* later = s.after < 0 ? nullptr : dz + 4 * s.after * states;
  step_of_units<Tile>(later, w, 4 * s.hidden, s, [&](int row, int unit, R sum) {
    const long long at = (long long)row * s.hidden + unit, out = s.now * states + at;
    R dstate = sum + kept[at];
    if (s.now < 0) {
      kept[at] = dstate;
      return;
    }
    dstate += widen(dh[out]);
    const R total_c = dcell[at] + (dc == nullptr ? R(0) : widen(dc[out]));
    const bool active = taken(lengths, row, s.now);
    const long long first = 4 * (s.now * states + (long long)row * s.hidden) + unit;
    R gate[4];
    DL_UNROLL
    for (int g = 0; g < 4; ++g) gate[g] = widen(gates[first + g * s.hidden]);
    const T* earlier = s.before < 0 ? c0 : c + s.before * states;
    const R tanh_c = tanh(widen(c[out])), into_c = total_c + dstate * gate[3] * (R(1) - tanh_c * tanh_c);
    const R into[4] = {into_c * gate[2], into_c * widen(earlier[at]), into_c * gate[0], dstate * tanh_c};
    DL_UNROLL
    for (int g = 0; g < 4; ++g) {
      const R slope = g == 2 ? R(1) - gate[g] * gate[g] : gate[g] * (R(1) - gate[g]);
      const R all = into[g] + (dgates == nullptr ? R(0) : widen(dgates[first + g * s.hidden]));
      dz[first + g * s.hidden] = narrow<T>(active ? all * slope : R(0));
    }
    kept[at] = active ? R(0) : dstate;
    dcell[at] = active ? into_c * gate[1] : total_c;
  });
}

#define DL_LSTM(T, suffix, size, Tile, units)                                                              \
  extern "C" __global__ void __launch_bounds__(256) lstm_step_##size##_##suffix(                           \
      const T* w, const T* h0, const long long* lengths, T* h, T* c, T* gates, wide<T>* cell, Step step) { \
    lstm_step<Tile<T, 4>>(w, h0, lengths, h, c, gates, cell, step);                                        \
  }                                                                                                        \
  DL_EXPORT(lstm_step_##size##_##suffix)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) lstm_step_grad_##size##_##suffix(                      \
      const T* w, const T* dh, const T* dc, const T* dgates, const T* c0, const T* c, const T* gates,      \
      const long long* lengths, T* dz, wide<T>* kept, wide<T>* dcell, Step step) {                         \
    lstm_step_grad<Tile<T, units>>(w, dh, dc, dgates, c0, c, gates, lengths, dz, kept, dcell, step);       \
  }                                                                                                        \
  DL_EXPORT(lstm_step_grad_##size##_##suffix)
#define DL_LSTM_SIZES(T, suffix)            \
  DL_LSTM(T, suffix, narrow, NarrowStep, 1) \
  DL_LSTM(T, suffix, wide, WideStep, 4)
DL_FOR_FLOATS(DL_LSTM_SIZES)
