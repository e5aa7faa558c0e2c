// _C.lstm(...) and the like, in place: csrc/recurrent.h says what the arrays hold and which may be None.
#include <algorithm>
#include <array>

#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

using Object = py::object;

// The sizes T, N, H of a call and its dtype, which all arrays are held against.
class Sizes {
 public:
  Sizes(const char* name, const Object& states) : name_(name), states_(states.ptr(), name) {
    check(states_.ndim() == 3, "expected arrays [T,N,H]");
    check(states_.type() == kFloat32 || states_.type() == kFloat64, "expected float32 or float64");
  }
  bool wide() const { return states_.type() == kFloat64; }

  // The memory of a contiguous array [T,N,size*H], [N,H] or [size*H], or null of None.
  template <class T>
  T* steps(const Object& array, Index size) const {
    return memory<T>(array, std::array<Index, 3>{states_.dim(0), states_.dim(1), size * states_.dim(2)});
  }
  template <class T>
  T* state(const Object& array) const {
    return memory<T>(array, std::array<Index, 2>{states_.dim(1), states_.dim(2)});
  }
  template <class T>
  T* bias(const Object& array, Index size) const {
    return memory<T>(array, std::array<Index, 1>{size * states_.dim(2)});
  }

  template <class T>
  Sequences<T> sequences(const Object& lengths, const Object& w_hh, Index gates, bool reverse) const {
    const Array w(w_hh.ptr(), name_);
    const Index H = states_.dim(2), item = sizeof(T);
    check(w.ndim() == 2 && w.dim(0) == gates * H && w.dim(1) == H, "w_hh has the wrong shape");
    check(w.type() == states_.type() && w.aligned() && w.native(), "expected arrays of one dtype");
    const auto stride = [&](int i) { return w.dim(i) <= 1 ? 0 : w.stride(i) / item; };
    return {states_.dim(0), states_.dim(1), H, reverse, counts(lengths), static_cast<const T*>(w.data()),
            stride(0),      stride(1)};
  }

  template <class F>
  void run(const F& f) const {
    unlocked_if_large(states_.size() * states_.dim(2), f);
  }

 private:
  void check(bool condition, const char* message) const {
    if (!condition) throw py::value_error(std::string(name_) + ": " + message);
  }

  template <class T, std::size_t D>
  T* memory(const Object& array, const std::array<Index, D>& shape) const {
    if (array.is_none()) return nullptr;
    const Array x(array.ptr(), name_);
    check(x.type() == states_.type() && x.plain(), "expected contiguous arrays of one dtype");
    check(x.ndim() == int(D) && std::equal(shape.begin(), shape.end(), x.dims()), "an array has the wrong shape");
    check(std::is_const_v<T> || x.writeable(), "a result is read-only");
    return static_cast<T*>(x.data());
  }

  const long long* counts(const Object& lengths) const {
    if (lengths.is_none()) return nullptr;
    const Array x(lengths.ptr(), name_);
    check(x.type() == kInt64 && x.plain() && x.ndim() == 1 && x.dim(0) == states_.dim(1),
          "expected contiguous int64 lengths[N]");
    return static_cast<const long long*>(x.data());
  }

  const char* const name_;
  const Array states_;
};

template <class T>
const RecurrentKernels::Of<T>& kernels_of() {
  if constexpr (sizeof(T) == 4) return kernels().recurrent.f32;
  else return kernels().recurrent.f64;
}

// f(float()) or f(double())
template <class F>
void with_type(const Sizes& sizes, const F& f) {
  if (sizes.wide()) f(double());
  else f(float());
}

void lstm(const Object& h0, const Object& c0, const Object& w_hh, const Object& b, const Object& lengths,
          const Object& h, const Object& c, const Object& gates, bool reverse) {
  const Sizes sizes("lstm", h);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const Lstm<T> p{sizes.sequences<T>(lengths, w_hh, 4, reverse),
                    sizes.state<const T>(h0),
                    sizes.state<const T>(c0),
                    sizes.bias<const T>(b, 4),
                    sizes.steps<T>(h, 1),
                    sizes.steps<T>(c, 1),
                    sizes.steps<T>(gates, 4)};
    sizes.run([&] { kernels_of<T>().lstm(p); });
  });
}

void lstm_grad(const Object& dh, const Object& dc, const Object& dgates, const Object& c0, const Object& w_hh,
               const Object& c, const Object& gates, const Object& lengths, const Object& dz, const Object& dh0,
               const Object& dc0, bool reverse) {
  const Sizes sizes("lstm_grad", c);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const LstmGrad<T> p{sizes.sequences<T>(lengths, w_hh, 4, reverse),
                        sizes.steps<const T>(dh, 1),
                        sizes.steps<const T>(dc, 1),
                        sizes.steps<const T>(dgates, 4),
                        sizes.state<const T>(c0),
                        sizes.steps<const T>(c, 1),
                        sizes.steps<const T>(gates, 4),
                        sizes.steps<T>(dz, 4),
                        sizes.state<T>(dh0),
                        sizes.state<T>(dc0)};
    sizes.run([&] { kernels_of<T>().lstm_grad(p); });
  });
}

void gru(const Object& h0, const Object& w_hh, const Object& b_ih, const Object& b_hh, const Object& lengths,
         const Object& inputs, const Object& h, const Object& gates, bool reverse) {
  const Sizes sizes("gru", h);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const Gru<T> p{sizes.sequences<T>(lengths, w_hh, 3, reverse),
                   sizes.state<const T>(h0),
                   sizes.bias<const T>(b_ih, 3),
                   sizes.bias<const T>(b_hh, 3),
                   sizes.steps<const T>(inputs, 3),
                   sizes.steps<T>(h, 1),
                   sizes.steps<T>(gates, 4)};
    sizes.run([&] { kernels_of<T>().gru(p); });
  });
}

void gru_grad(const Object& dh, const Object& dgates, const Object& h0, const Object& w_hh, const Object& h,
              const Object& gates, const Object& lengths, const Object& dinputs, const Object& dstates,
              const Object& dh0, bool reverse) {
  const Sizes sizes("gru_grad", h);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const GruGrad<T> p{sizes.sequences<T>(lengths, w_hh, 3, reverse),
                       sizes.steps<const T>(dh, 1),
                       sizes.steps<const T>(dgates, 4),
                       sizes.state<const T>(h0),
                       sizes.steps<const T>(h, 1),
                       sizes.steps<const T>(gates, 4),
                       sizes.steps<T>(dinputs, 3),
                       sizes.steps<T>(dstates, 3),
                       sizes.state<T>(dh0)};
    sizes.run([&] { kernels_of<T>().gru_grad(p); });
  });
}

void rnn(const Object& h0, const Object& w_hh, const Object& b, const Object& lengths, const Object& h, bool relu,
         bool reverse) {
  const Sizes sizes("rnn", h);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const Rnn<T> p{sizes.sequences<T>(lengths, w_hh, 1, reverse), relu, sizes.state<const T>(h0),
                   sizes.bias<const T>(b, 1), sizes.steps<T>(h, 1)};
    sizes.run([&] { kernels_of<T>().rnn(p); });
  });
}

void rnn_grad(const Object& dh, const Object& w_hh, const Object& h, const Object& lengths, const Object& dz,
              const Object& dh0, bool relu, bool reverse) {
  const Sizes sizes("rnn_grad", h);
  with_type(sizes, [&](auto type) {
    using T = decltype(type);
    const RnnGrad<T> p{sizes.sequences<T>(lengths, w_hh, 1, reverse),
                       relu,
                       sizes.steps<const T>(dh, 1),
                       sizes.steps<const T>(h, 1),
                       sizes.steps<T>(dz, 1),
                       sizes.state<T>(dh0)};
    sizes.run([&] { kernels_of<T>().rnn_grad(p); });
  });
}

}  // namespace

void bind_recurrent(py::module_& m) {
  m.def("lstm", lstm);
  m.def("lstm_grad", lstm_grad);
  m.def("gru", gru);
  m.def("gru_grad", gru_grad);
  m.def("rnn", rnn);
  m.def("rnn_grad", rnn_grad);
}

}  // namespace dlcore
