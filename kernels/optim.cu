// Update rules of the optimizers, in place on up to 64 parameters at once.
//
// optim_<rule>_<t>(tensors, settings): elements of each parameter p, its gradient g and its states, with the formulas
// of
//   dlcore/optim/kernels.py. Block b works on 4 tiles of 256 vectors of the tensor that `first_block` says.
//   Grid: blocks of all tensors; block: 256; no shared memory.
// optim_multiply_<t>(tensors, factor): the number states[2] of each tensor. Grid: 1; block: 64.
// LAMB scales the step of a tensor by its trust, |p| / |step|, which is the number states[2]:
// optim_norms_<t>(tensors, settings, partial): partial[b] = sums of p * p and of step * step over the tiles of block b.
//   Grid and block as a rule's; shared: a number a warp.
// optim_trust_<t>(tensors, partial, blocks): trust of each tensor from its blocks' sums, in their order. Grid: tensors;
//   block: 256; shared: a number a warp.
#include "row.cuh"

constexpr int kTensors = 64, kStates = 3, kTilesPerBlock = 4;

struct Tensors {
  unsigned long long param[kTensors], grad[kTensors], state[kStates][kTensors];  // addresses; 0 for no state
  unsigned long long elements[kTensors];
  unsigned first_block[kTensors];
  int count;
};

// What a rule needs, by its names in dlcore/optim/kernels.py; each rule uses some.
struct Settings {
  double lr;            // of this step, corrections of the first steps included
  double weight_decay;  // times p is added to g
  double shrink;        // p is multiplied with it first
  double beta1, beta2;  // decays of the averages; momentum is beta1
  double eps;
  double gain;  // of SGD's gradient in its velocity
  double root;  // by which the root of the second moment is divided
  double next;  // nadam: what the first moment is multiplied with, before its correction
  double mu;    // nadam: momentum of the next step
  int nesterov;
};

template <class R>
DL_DEVICE void average(R& mean, R x, double decay) {
  mean = mean * R(decay) + R(1 - decay) * x;
}

template <class R>
DL_DEVICE R decayed(R g, R p, const Settings& s) {
  return s.weight_decay == 0 ? g : g + R(s.weight_decay) * p;
}

template <class R>
struct State {
  R value[kStates] = {};
  bool present[kStates];
};

// kArrays: how many states are arrays of the parameter's shape; kResident: blocks of f32 that a multiprocessor holds at
// least (0: as many as ptxas likes), so that none spills and most hold 48 warps.
template <int ARRAYS, int RESIDENT = 0>
struct Rule {
  static constexpr int kArrays = ARRAYS, kResident = RESIDENT;
};

struct Sgd : Rule<1> {  // states: momentum_buffer
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    if (state.present[0]) {
      R& velocity = state.value[0];
      velocity = velocity * R(s.beta1) + R(s.gain) * g;
      g = s.nesterov ? g + R(s.beta1) * velocity : velocity;
    }
    p -= R(s.lr) * g;
  }
};

struct Adam : Rule<3> {  // states: exp_avg, exp_avg_sq, max_exp_avg_sq
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    p *= R(s.shrink);
    g = decayed(g, p, s);
    average(state.value[0], g, s.beta1);
    average(state.value[1], g * g, s.beta2);
    R square = state.value[1];
    if (state.present[2]) {
      const R largest = state.value[2];
      square = state.value[2] = largest != largest || largest > square ? largest : square;
    }
    p -= R(s.lr) * state.value[0] / (sqrt(square) / R(s.root) + R(s.eps));
  }
};

struct Adamax : Rule<2, 6> {  // states: exp_avg, exp_inf
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    average(state.value[0], g, s.beta1);
    const R old = R(s.beta2) * state.value[1], now = fabs(g) + R(s.eps);
    state.value[1] = old != old || old > now ? old : now;
    p -= R(s.lr) * state.value[0] / state.value[1];
  }
};

struct Nadam : Rule<2, 6> {  // states: exp_avg, exp_avg_sq, mu_product (one number)
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    average(state.value[0], g, s.beta1);
    average(state.value[1], g * g, s.beta2);
    const R scale = sqrt(state.value[1] / R(s.root)) + R(s.eps), product = state.value[2];
    p -= R(s.lr) / (R(1) - product) * g / scale;
    p -= R(s.next) / (R(1) - product * R(s.mu)) * state.value[0] / scale;
  }
};

struct RmsProp : Rule<3, 4> {  // states: square_avg, grad_avg, momentum_buffer
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    average(state.value[0], g * g, s.beta2);
    average(state.value[1], g, s.beta2);
    const R centre = state.present[1] ? state.value[1] * state.value[1] : R(0);
    R step = g / (sqrt(state.value[0] - centre) + R(s.eps));
    state.value[2] = state.value[2] * R(s.beta1) + step;
    if (state.present[2]) step = state.value[2];
    p -= R(s.lr) * step;
  }
};

struct Adagrad : Rule<1> {  // states: square_sum
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    state.value[0] += g * g;
    p -= R(s.lr) * g / (sqrt(state.value[0]) + R(s.eps));
  }
};

struct Adadelta : Rule<2, 6> {  // states: square_avg, delta_avg
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    g = decayed(g, p, s);
    average(state.value[0], g * g, s.beta2);
    const R delta = sqrt(state.value[1] + R(s.eps)) / sqrt(state.value[0] + R(s.eps)) * g;
    average(state.value[1], delta * delta, s.beta2);
    p -= R(s.lr) * delta;
  }
};

struct Lion : Rule<1> {  // states: exp_avg
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    p *= R(s.shrink);
    const R way = R(s.beta1) * state.value[0] + R(1 - s.beta1) * g;
    p -= R(s.lr) * (way > R(0) ? R(1) : way < R(0) ? R(-1) : way);
    average(state.value[0], g, s.beta2);
  }
};

struct Lamb : Rule<2> {  // states: exp_avg, exp_avg_sq, trust (one number)
  template <class R>
  DL_DEVICE static R step(R p, R g, State<R>& state, const Settings& s) {
    average(state.value[0], g, s.beta1);
    average(state.value[1], g * g, s.beta2);
    const R scale = sqrt(state.value[1] / R(s.root)) + R(s.eps);
    return state.value[0] / R(s.gain) / scale + R(s.weight_decay) * p;
  }
  template <class R>
  DL_DEVICE static void update(R& p, R g, State<R>& state, const Settings& s) {
    p -= R(s.lr) * state.value[2] * step(p, g, state, s);
  }
};

DL_DEVICE int tensor_of_block(const Tensors& tensors) {
  int low = 0, high = tensors.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (tensors.first_block[middle] <= blockIdx.x) low = middle;
    else high = middle;
  }
  return low;
}

template <class T>
DL_DEVICE T* at(unsigned long long address) {
  return reinterpret_cast<T*>(address);
}

template <class T, class Of>
DL_DEVICE void update_tile(const Tensors& tensors, const Settings& settings, int tensor, unsigned base, bool aligned) {
  constexpr int V = kPerVector<T>;
  const unsigned n = unsigned(tensors.elements[tensor]);
  const int vectors = aligned && n - base >= kTile<T, kBlock> ? kAligned : kSingles;
  T p[V], g[V], value[Of::kArrays][V] = {};
  load_tile<kBlock>(at<T>(tensors.param[tensor]), base, n, threadIdx.x, vectors, T(0), p);
  load_tile<kBlock>(at<T>(tensors.grad[tensor]), base, n, threadIdx.x, vectors, T(0), g);
  State<T> state;
  DL_UNROLL
  for (int k = 0; k < kStates; ++k) {
    T* own = at<T>(tensors.state[k][tensor]);
    state.present[k] = own != nullptr;
    if (own == nullptr) continue;
    if (k < Of::kArrays) load_tile<kBlock>(own, base, n, threadIdx.x, vectors, T(0), value[k < Of::kArrays ? k : 0]);
    else state.value[k] = *own;
  }
  DL_UNROLL
  for (int j = 0; j < V; ++j) {
    DL_UNROLL
    for (int k = 0; k < Of::kArrays; ++k) state.value[k] = value[k][j];
    Of::update(p[j], g[j], state, settings);
    DL_UNROLL
    for (int k = 0; k < Of::kArrays; ++k) value[k][j] = state.value[k];
  }
  store_tile<kBlock>(at<T>(tensors.param[tensor]), base, n, threadIdx.x, vectors, p);
  DL_UNROLL
  for (int k = 0; k < Of::kArrays; ++k)
    if (state.present[k]) store_tile<kBlock>(at<T>(tensors.state[k][tensor]), base, n, threadIdx.x, vectors, value[k]);
}

template <class T, class Of>
DL_DEVICE void update_tensors(const Tensors& tensors, const Settings& settings) {
  const int tensor = tensor_of_block(tensors);
  const unsigned n = unsigned(tensors.elements[tensor]);
  unsigned long long addresses = tensors.param[tensor] | tensors.grad[tensor];
  DL_UNROLL
  for (int k = 0; k < Of::kArrays; ++k) addresses |= tensors.state[k][tensor];
  const unsigned first = (blockIdx.x - tensors.first_block[tensor]) * (kTilesPerBlock * kTile<T, kBlock>);
  DL_ROLLED
  for (int tile = 0; tile < kTilesPerBlock; ++tile) {
    const unsigned base = first + tile * kTile<T, kBlock>;
    if (base < n) update_tile<T, Of>(tensors, settings, tensor, base, addresses % 16 == 0);
  }
}

template <class T>
DL_DEVICE void multiply(const Tensors& tensors, double factor) {
  if (threadIdx.x < unsigned(tensors.count)) *at<T>(tensors.state[kStates - 1][threadIdx.x]) *= T(factor);
}

template <class T>
struct Norms {
  T param, step;  // sums of squares
};

template <class T>
DL_DEVICE void store_norms(Norms<T>* to, Norms<T> own) {
  own.param = join<kBlock>(own.param, Add());
  own.step = join<kBlock>(own.step, Add());
  if (threadIdx.x == 0) *to = own;
}

template <class T>
DL_DEVICE void norms(const Tensors& tensors, const Settings& settings, Norms<T>* partial) {
  constexpr int V = kPerVector<T>;
  const int tensor = tensor_of_block(tensors);
  const unsigned n = unsigned(tensors.elements[tensor]);
  const unsigned long long addresses =
      tensors.param[tensor] | tensors.grad[tensor] | tensors.state[0][tensor] | tensors.state[1][tensor];
  const unsigned first = (blockIdx.x - tensors.first_block[tensor]) * (kTilesPerBlock * kTile<T, kBlock>);
  Norms<T> own = {};
  DL_ROLLED
  for (unsigned base = first; base < n && base - first < kTilesPerBlock * kTile<T, kBlock>; base += kTile<T, kBlock>) {
    const int vectors = n - base < kTile<T, kBlock> ? kSingles : addresses % 16 == 0 ? kAligned : kLoose;
    T p[V], g[V], mean[V], square[V];
    load_tile<kBlock>(at<T>(tensors.param[tensor]), base, n, threadIdx.x, vectors, T(0), p);
    load_tile<kBlock>(at<T>(tensors.grad[tensor]), base, n, threadIdx.x, vectors, T(0), g);
    load_tile<kBlock>(at<T>(tensors.state[0][tensor]), base, n, threadIdx.x, vectors, T(0), mean);
    load_tile<kBlock>(at<T>(tensors.state[1][tensor]), base, n, threadIdx.x, vectors, T(0), square);
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      if (place<T, kBlock>(base, threadIdx.x, j, vectors) >= n) continue;
      State<T> state;
      state.value[0] = mean[j], state.value[1] = square[j];
      const T step = Lamb::step(p[j], g[j], state, settings);
      own.param += p[j] * p[j];
      own.step += step * step;
    }
  }
  store_norms(partial + blockIdx.x, own);
}

template <class T>
DL_DEVICE void trust(const Tensors& tensors, const Norms<T>* partial, unsigned blocks) {
  __shared__ Norms<T> total;
  const int tensor = blockIdx.x;
  const unsigned end = tensor + 1 < tensors.count ? tensors.first_block[tensor + 1] : blocks;
  Norms<T> own = {};
  for (unsigned b = tensors.first_block[tensor] + threadIdx.x; b < end; b += kBlock) {
    own.param += partial[b].param;
    own.step += partial[b].step;
  }
  store_norms(&total, own);
  if (threadIdx.x == 0)
    *at<T>(tensors.state[2][tensor]) =
        total.param != T(0) && total.step != T(0) ? sqrt(total.param) / sqrt(total.step) : T(1);
}

template <class T, int RESIDENT>
constexpr int kResident = sizeof(T) == 4 ? RESIDENT : 0;

#define DL_RULE(Of, name, T, suffix)                                                  \
  extern "C" __global__ void __launch_bounds__(kBlock, (kResident<T, Of::kResident>)) \
      optim_##name##_##suffix(const Tensors tensors, const Settings settings) {       \
    update_tensors<T, Of>(tensors, settings);                                         \
  }                                                                                   \
  DL_EXPORT(optim_##name##_##suffix)
#define DL_RULES(T, suffix)                                                                     \
  DL_RULE(Sgd, sgd, T, suffix)                                                                  \
  DL_RULE(Adam, adam, T, suffix)                                                                \
  DL_RULE(Adamax, adamax, T, suffix)                                                            \
  DL_RULE(Nadam, nadam, T, suffix)                                                              \
  DL_RULE(RmsProp, rmsprop, T, suffix)                                                          \
  DL_RULE(Adagrad, adagrad, T, suffix)                                                          \
  DL_RULE(Adadelta, adadelta, T, suffix)                                                        \
  DL_RULE(Lion, lion, T, suffix)                                                                \
  DL_RULE(Lamb, lamb, T, suffix)                                                                \
  extern "C" __global__ void __launch_bounds__(kBlock, (kResident<T, 6>))                       \
      optim_norms_##suffix(const Tensors tensors, const Settings settings, Norms<T>* partial) { \
    norms<T>(tensors, settings, partial);                                                       \
  }                                                                                             \
  DL_EXPORT(optim_norms_##suffix)                                                               \
  extern "C" __global__ void __launch_bounds__(kBlock)                                          \
      optim_trust_##suffix(const Tensors tensors, const Norms<T>* partial, unsigned blocks) {   \
    trust<T>(tensors, partial, blocks);                                                         \
  }                                                                                             \
  DL_EXPORT(optim_trust_##suffix)                                                               \
  extern "C" __global__ void __launch_bounds__(kTensors)                                        \
      optim_multiply_##suffix(const Tensors tensors, double factor) {                           \
    multiply<T>(tensors, factor);                                                               \
  }                                                                                             \
  DL_EXPORT(optim_multiply_##suffix)
DL_RULES(float, f32)
DL_RULES(double, f64)
