// Recurrent layers over whole sequences, and their gradients: the formulas of dlcore/ops/{lstm,gru,rnn}.py.
#pragma once
#include <cstddef>

namespace dlcore {

// What all layers share: T steps of N sequences of H units. Arrays are contiguous; those of weights may have any
// strides.
template <class T>
struct Sequences {
  std::ptrdiff_t steps, rows, units;
  bool reverse;
  const long long* lengths;  // [N], or null: T for all
  const T* w;                // w_hh[G*H,H]
  std::ptrdiff_t w_row, w_col;
};

// gates[T,N,4*H] comes with the products with x and becomes the gates. h0, c0[N,H], b[4*H]: null for zeros.
template <class T>
struct Lstm {
  Sequences<T> of;
  const T *h0, *c0, *b;
  T *h, *c, *gates;
};
// dc and dgates may be null. dh0 and dc0[N,H]: null if not wanted.
template <class T>
struct LstmGrad {
  Sequences<T> of;
  const T *dh, *dc, *dgates, *c0, *c, *gates;
  T *dz, *dh0, *dc0;
};

// inputs[T,N,3*H]: the products with x. h0, b_ih, b_hh: null for zeros.
template <class T>
struct Gru {
  Sequences<T> of;
  const T *h0, *b_ih, *b_hh, *inputs;
  T *h, *gates;
};
template <class T>
struct GruGrad {
  Sequences<T> of;
  const T *dh, *dgates, *h0, *h, *gates;
  T *dinputs, *dstates, *dh0;
};

// h[T,N,H] comes with the products with x and becomes the states. h0, b: null for zeros.
template <class T>
struct Rnn {
  Sequences<T> of;
  bool relu;  // else tanh
  const T *h0, *b;
  T* h;
};
template <class T>
struct RnnGrad {
  Sequences<T> of;
  bool relu;
  const T *dh, *h;
  T *dz, *dh0;
};

struct RecurrentKernels {
  template <class T>
  struct Of {
    void (*lstm)(const Lstm<T>&);
    void (*lstm_grad)(const LstmGrad<T>&);
    void (*gru)(const Gru<T>&);
    void (*gru_grad)(const GruGrad<T>&);
    void (*rnn)(const Rnn<T>&);
    void (*rnn_grad)(const RnnGrad<T>&);
  };
  Of<float> f32;
  Of<double> f64;
};

}  // namespace dlcore
