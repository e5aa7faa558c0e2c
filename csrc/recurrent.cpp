#include "recurrent.h"

#include "isa.h"
#include "recurrent_steps.h"
#include "simd_math.h"

namespace dlcore {
namespace DL_ISA {
namespace {

// Addresses in arrays [T,N,size*H].
template <class T>
struct Place {
  Index row, H;  // row: n + t N
  DL_INLINE Place(const Sequences<T>& p, const Step& step, Index n) : row(step.now * p.rows + n), H(p.units) {}
  template <class P>
  DL_INLINE P* operator()(P* array, Index size) const {
    return array == nullptr ? nullptr : array + row * size * H;
  }
};

// The q-th H numbers of an array; null of null.
template <class T>
DL_INLINE const T* block_of(const T* array, Index q, Index H) {
  return array == nullptr ? nullptr : array + q * H;
}

// A cell makes one gate of all units before the next, for chains of operations are long and those of one unit after
// another would not overlap. Meanwhile it fetches the next row, which may lie where no prefetcher looks.
template <class T>
constexpr auto squashed = [](vec<T> z) DL_INLINE_LAMBDA { return sigmoid_normal(z); };
template <class T>
constexpr auto bent = [](vec<T> z) DL_INLINE_LAMBDA { return tanh(z); };

// ---- LSTM

template <class T>
struct LstmCell {
  using Type = T;
  static constexpr bool kGrad = false;
  static constexpr int kGates = 4;
  const Lstm<T>& p;
  const Sequences<T>& of = p.of;

  const T* first() const { return p.h0; }
  const T* made(const Step& step) const { return p.h + step.now * of.rows * of.units; }
  bool keeps() const { return false; }
  T* rest() const { return nullptr; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const Index H = of.units;
    const Place<T> at(of, step, n);
    const T* const c_before = step.from(p.c0, p.c, n, of.rows, H);
    T *const gates = at(p.gates, 4), *const c = at(p.c, 1), *const h = at(p.h, 1);
    if (held) {
      const T* const h_before = step.from(p.h0, p.h, n, of.rows, H);
      return own.each([&](auto u, const T*) DL_INLINE_LAMBDA {
        u.put(h, u.get(h_before));
        u.put(c, u.get(c_before));
        for (int q = 0; q < 4; ++q) u.put(gates + q * H, vec<T>{});
      });
    }
    const auto make = [&](int q, const auto& gate) {
      own.each([&](auto u, const T* s) DL_INLINE_LAMBDA {
        const vec<T> z = u.get(gates + q * H) + load(s + q * own.block) + u.get(block_of(p.b, q, H));
        u.put(gates + q * H, gate(z));
        u.fetch(gates + (4 + q) * H);
      });
    };
    make(0, squashed<T>);
    make(1, squashed<T>);
    make(2, bent<T>);
    make(3, squashed<T>);
    own.each([&](auto u, const T*) DL_INLINE_LAMBDA {
      const vec<T> i = u.get(gates), f = u.get(gates + H), g = u.get(gates + 2 * H), o = u.get(gates + 3 * H);
      const vec<T> state = f * u.get(c_before) + i * g;
      u.put(c, state);
      u.put(h, o * tanh(state));
      u.fetch(c + H);
      u.fetch(h + H);
    });
  }
};

template <class T>
struct LstmGradCell {
  using Type = T;
  static constexpr bool kGrad = true;
  static constexpr int kGates = 4;
  const LstmGrad<T>& p;
  T* running;  // [N,H], the gradient of c
  const Sequences<T>& of = p.of;

  const T* first() const { return nullptr; }
  const T* made(const Step& step) const { return p.dz + step.now * of.rows * 4 * of.units; }
  bool keeps() const { return of.lengths != nullptr; }
  T* rest() const { return p.dh0; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const Index H = of.units;
    const Place<T> at(of, step, n);
    const T* const c_before = step.from(p.c0, p.c, n, of.rows, H);
    const T *const gates = at(p.gates, 4), *const c = at(p.c, 1), *const dgates = at(p.dgates, 4);
    const T *const dh = at(p.dh, 1), *const more = at(p.dc, 1);
    T *const dz = at(p.dz, 4), *const later = running + n * H;
    const T* const so_far = step.start ? nullptr : later;
    if (held)
      return own.each([&](auto u, T* s) DL_INLINE_LAMBDA {
        store(s, load(s) + u.get(dh));
        u.put(later, u.get(so_far) + u.get(more));
        for (int q = 0; q < 4; ++q) u.put(dz + q * H, vec<T>{});
      });
    T* const of_c = dz + 3 * H;  // tanh(c), for now
    own.each([&](auto u, T*) DL_INLINE_LAMBDA {
      u.put(of_c, tanh(u.get(c)));
      u.fetch(c + H);
      for (int q = 4; q < 8; ++q) u.fetch(gates + q * H);
    });
    own.each([&](auto u, T* s) DL_INLINE_LAMBDA {
      const vec<T> i = u.get(gates), f = u.get(gates + H), g = u.get(gates + 2 * H), o = u.get(gates + 3 * H);
      const vec<T> to_h = load(s) + u.get(dh), bent = u.get(of_c);
      const vec<T> to_c = u.get(so_far) + u.get(more) + to_h * o * (T(1) - bent * bent);
      const auto more_to = [&](int q) DL_INLINE_LAMBDA { return u.get(block_of(dgates, q, H)); };
      const vec<T> to_i = to_c * g + more_to(0), to_f = to_c * u.get(c_before) + more_to(1);
      const vec<T> to_g = to_c * i + more_to(2), to_o = to_h * bent + more_to(3);
      u.put(dz, to_i * (i * (T(1) - i)));
      u.put(dz + H, to_f * (f * (T(1) - f)));
      u.put(dz + 2 * H, to_g * (T(1) - g * g));
      u.put(dz + 3 * H, to_o * (o * (T(1) - o)));
      u.put(later, to_c * f);
      if (keeps()) store(s, vec<T>{});
      if (dh != nullptr) u.fetch(dh + H);
      for (int q = 4; q < 8; ++q) u.fetch(dz + q * H);
    });
  }
};

template <class T>
void lstm(const Lstm<T>& p) {
  take_steps(LstmCell<T>{p});
}

template <class T>
void lstm_grad(const LstmGrad<T>& p) {
  const Scratch unwanted(p.dc0 == nullptr ? sizeof(T) * size_t(p.of.rows * p.of.units) : 0);
  take_steps(LstmGradCell<T>{p, p.dc0 == nullptr ? static_cast<T*>(unwanted.data()) : p.dc0});
}

// ---- GRU

template <class T>
struct GruCell {
  using Type = T;
  static constexpr bool kGrad = false;
  static constexpr int kGates = 3;
  const Gru<T>& p;
  const Sequences<T>& of = p.of;

  const T* first() const { return p.h0; }
  const T* made(const Step& step) const { return p.h + step.now * of.rows * of.units; }
  bool keeps() const { return false; }
  T* rest() const { return nullptr; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const Index H = of.units;
    const Place<T> at(of, step, n);
    const T *const before = step.from(p.h0, p.h, n, of.rows, H), *const inputs = at(p.inputs, 3);
    T *const gates = at(p.gates, 4), *const h = at(p.h, 1);
    if (held)
      return own.each([&](auto u, const T*) DL_INLINE_LAMBDA {
        u.put(h, u.get(before));
        for (int q = 0; q < 4; ++q) u.put(gates + q * H, vec<T>{});
      });
    const auto from_x = [&](auto u, int q)
                            DL_INLINE_LAMBDA { return u.get(inputs + q * H) + u.get(block_of(p.b_ih, q, H)); };
    const auto from_h = [&](auto u, const T* s, int q)
                            DL_INLINE_LAMBDA { return load(s + q * own.block) + u.get(block_of(p.b_hh, q, H)); };
    for (int q = 0; q < 2; ++q)
      own.each([&](auto u, const T* s) DL_INLINE_LAMBDA {
        u.put(gates + q * H, sigmoid_normal(from_x(u, q) + from_h(u, s, q)));
        u.fetch(inputs + (3 + q) * H);
      });
    own.each([&](auto u, const T* s) DL_INLINE_LAMBDA {
      const vec<T> r = u.get(gates), z = u.get(gates + H), m = from_h(u, s, 2), n = tanh(from_x(u, 2) + r * m);
      u.put(h, (T(1) - z) * n + z * u.get(before));
      u.put(gates + 2 * H, n);
      u.put(gates + 3 * H, m);
      u.fetch(inputs + 5 * H);
    });
  }
};

template <class T>
struct GruGradCell {
  using Type = T;
  static constexpr bool kGrad = true;
  static constexpr int kGates = 3;
  const GruGrad<T>& p;
  const Sequences<T>& of = p.of;

  const T* first() const { return nullptr; }
  const T* made(const Step& step) const { return p.dstates + step.now * of.rows * 3 * of.units; }
  bool keeps() const { return true; }
  T* rest() const { return p.dh0; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const Index H = of.units;
    const Place<T> at(of, step, n);
    const T *const before = step.from(p.h0, p.h, n, of.rows, H), *const dh = at(p.dh, 1);
    const T *const gates = at(p.gates, 4), *const dgates = at(p.dgates, 4);
    T *const dinputs = at(p.dinputs, 3), *const dstates = at(p.dstates, 3);
    if (held)
      return own.each([&](auto u, T* s) DL_INLINE_LAMBDA {
        store(s, load(s) + u.get(dh));
        for (int q = 0; q < 3; ++q) {
          u.put(dinputs + q * H, vec<T>{});
          u.put(dstates + q * H, vec<T>{});
        }
      });
    own.each([&](auto u, T* s) DL_INLINE_LAMBDA {
      const vec<T> r = u.get(gates), z = u.get(gates + H), n = u.get(gates + 2 * H), m = u.get(gates + 3 * H);
      const auto more = [&](int q) DL_INLINE_LAMBDA { return u.get(block_of(dgates, q, H)); };
      const vec<T> to_h = load(s) + u.get(dh);
      const vec<T> dn = (to_h * (T(1) - z) + more(2)) * (T(1) - n * n);
      const vec<T> dr = (dn * m + more(0)) * (r * (T(1) - r));
      const vec<T> dz = (to_h * (u.get(before) - n) + more(1)) * (z * (T(1) - z));
      u.put(dinputs, dr);
      u.put(dinputs + H, dz);
      u.put(dinputs + 2 * H, dn);
      u.put(dstates, dr);
      u.put(dstates + H, dz);
      u.put(dstates + 2 * H, dn * r + more(3));
      store(s, to_h * z);
      if (dh != nullptr) u.fetch(dh + H);
      if (before != nullptr) u.fetch(before + H);
      for (int q = 4; q < 8; ++q) u.fetch(gates + q * H);
      for (int q = 3; q < 6; ++q) u.fetch(dinputs + q * H), u.fetch(dstates + q * H);
    });
  }
};

// ---- plain

template <class T>
struct RnnCell {
  using Type = T;
  static constexpr bool kGrad = false;
  static constexpr int kGates = 1;
  const Rnn<T>& p;
  const Sequences<T>& of = p.of;

  const T* first() const { return p.h0; }
  const T* made(const Step& step) const { return p.h + step.now * of.rows * of.units; }
  bool keeps() const { return false; }
  T* rest() const { return nullptr; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const T* const before = step.from(p.h0, p.h, n, of.rows, of.units);
    T* const h = Place<T>(of, step, n)(p.h, 1);
    own.each([&](auto u, const T* s) DL_INLINE_LAMBDA {
      const vec<T> z = u.get(h) + load(s) + u.get(p.b);
      u.put(h, held ? u.get(before) : p.relu ? max(vec<T>{}, z) : tanh(z));
    });
  }
};

template <class T>
struct RnnGradCell {
  using Type = T;
  static constexpr bool kGrad = true;
  static constexpr int kGates = 1;
  const RnnGrad<T>& p;
  const Sequences<T>& of = p.of;

  const T* first() const { return nullptr; }
  const T* made(const Step& step) const { return p.dz + step.now * of.rows * of.units; }
  bool keeps() const { return of.lengths != nullptr; }
  T* rest() const { return p.dh0; }

  void row(const Step& step, Index n, bool held, const Owned<T>& own) const {
    const Place<T> at(of, step, n);
    const T *const dh = at(p.dh, 1), *const h = at(p.h, 1);
    T* const dz = at(p.dz, 1);
    own.each([&](auto u, T* s) DL_INLINE_LAMBDA {
      const vec<T> to_h = load(s) + u.get(dh), y = u.get(h);
      const vec<T> slope = p.relu ? (y > T(0) ? broadcast(T(1)) : vec<T>{}) : T(1) - y * y;
      u.put(dz, held ? vec<T>{} : to_h * slope);
      if (keeps()) store(s, held ? to_h : vec<T>{});
    });
  }
};

template <class T>
void gru(const Gru<T>& p) {
  take_steps(GruCell<T>{p});
}
template <class T>
void gru_grad(const GruGrad<T>& p) {
  take_steps(GruGradCell<T>{p});
}
template <class T>
void rnn(const Rnn<T>& p) {
  take_steps(RnnCell<T>{p});
}
template <class T>
void rnn_grad(const RnnGrad<T>& p) {
  take_steps(RnnGradCell<T>{p});
}

template <class T>
RecurrentKernels::Of<T> of() {
  return {lstm<T>, lstm_grad<T>, gru<T>, gru_grad<T>, rnn<T>, rnn_grad<T>};
}

}  // namespace

void fill_recurrent(Kernels& kernels) { kernels.recurrent = {of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
