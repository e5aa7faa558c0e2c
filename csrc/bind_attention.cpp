// _C.attention and its gradients: arrays of any strides but of contiguous columns, for `attention.h`.
#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

// What one call checks its arrays against: the shape and dtype of its results.
class Call {
 public:
  Call(const char* name, const py::object& y, bool causal, double scale) : name_(name), p_{}, type_(0) {
    const Array a(y.ptr(), name);
    type_ = a.type();
    if ((type_ != kFloat32 && type_ != kFloat64) || !a.native())
      throw py::type_error(std::string(name) + ": expected float32 or float64");
    p_.axes = a.ndim() - 2;
    check(p_.axes >= 0 && p_.axes <= Matrices::kMostAxes, "expected 2 to 10 dimensions");
    for (int i = 0; i < p_.axes; ++i) p_.dim[i] = a.dim(i);
    p_.T = a.dim(p_.axes), p_.E = a.dim(p_.axes + 1);
    p_.scale = scale, p_.causal = causal;
  }
  Attention& problem() { return p_; }
  int type() const { return type_; }

  // [..., rows, cols]; axes that are missing or of length 1 are repeated, if it is not a result.
  Matrices matrices(const py::object& object, Index rows, Index cols, bool result = false) const {
    if (object.is_none()) return {};
    const Array a = array(object, p_.axes + 2, result);
    const int nd = a.ndim();
    check(nd >= 2 && a.dim(nd - 2) == rows && a.dim(nd - 1) == cols, "an array has the wrong shape");
    check(cols <= 1 || a.stride(nd - 1) == itemsize(), "expected contiguous columns");
    return leading(a, nd - 2, a.stride(nd - 2), result);
  }
  // [..., rows]
  Matrices vectors(const py::object& object, Index rows, bool result = false) const {
    if (object.is_none()) return {};
    const Array a = array(object, p_.axes + 1, result);
    const int nd = a.ndim();
    check(nd >= 1 && a.dim(nd - 1) == rows, "an array has the wrong shape");
    return leading(a, nd - 1, a.stride(nd - 1), result);
  }

 private:
  Array array(const py::object& object, int most, bool result) const {
    const Array a(object.ptr(), name_);
    if (a.type() != type_ || !a.native()) throw py::type_error(std::string(name_) + ": arrays differ in dtype");
    check(a.aligned() && (!result || a.writeable()) && a.ndim() <= most, "an array is of the wrong form");
    return a;
  }
  Matrices leading(const Array& a, int axes, Index row, bool result) const {
    Matrices m{a.data(), {}, elements(row), 1};
    for (int i = 0; i < axes; ++i) {
      const int to = p_.axes - axes + i;
      check(a.dim(i) == p_.dim[to] || (a.dim(i) == 1 && !result), "leading axes differ");
      m.lead[to] = a.dim(i) == 1 ? 0 : elements(a.stride(i));
    }
    check(!result || axes == p_.axes, "leading axes differ");
    return m;
  }
  Index itemsize() const { return type_ == kFloat32 ? 4 : 8; }
  Index elements(Index bytes) const {
    check(bytes % itemsize() == 0, "a stride is not a multiple of the item size");
    return bytes / itemsize();
  }
  void check(bool condition, const char* what) const {
    if (!condition) throw py::value_error(std::string(name_) + ": " + what);
  }

  const char* const name_;
  Attention p_;
  int type_;
};

void read_operands(Call& call, const py::object& q, const py::object& k, const py::object& v, const py::object& bias,
                   const py::object& y, const py::object& lse, bool forward) {
  Attention& p = call.problem();
  const Array queries(q.ptr(), "attention"), keys(k.ptr(), "attention");
  require(queries.ndim() >= 2 && keys.ndim() >= 2, "attention: expected q[...,T,D] k[...,S,D]");
  p.D = queries.dim(queries.ndim() - 1), p.S = keys.dim(keys.ndim() - 2);
  require(p.T > 0 && p.S > 0 && p.D > 0 && p.E > 0, "attention: expected matrices with elements");
  p.q = call.matrices(q, p.T, p.D), p.k = call.matrices(k, p.S, p.D), p.v = call.matrices(v, p.S, p.E);
  p.bias = call.matrices(bias, p.T, p.S);
  p.y = call.matrices(y, p.T, p.E, forward), p.lse = call.vectors(lse, p.T, forward);
}

const AttentionKernels::Of& kernels_of(int type) {
  return type == kFloat32 ? kernels().attention.f32 : kernels().attention.f64;
}

void attention(const py::object& q, const py::object& k, const py::object& v, const py::object& bias,
               const py::object& y, const py::object& lse, bool causal, double scale) {
  Call call("attention", y, causal, scale);
  read_operands(call, q, k, v, bias, y, lse, true);
  py::gil_scoped_release unlocked;
  kernels_of(call.type()).forward(call.problem());
}

AttentionGrad gradient(Call& call, const py::object& dy, const py::object& dlse) {
  const Attention& p = call.problem();
  return {p, call.matrices(dy, p.T, p.E), call.vectors(dlse, p.T), {}, {}, {}, {}};
}

void attention_grad(const py::object& dy, const py::object& dlse, const py::object& q, const py::object& k,
                    const py::object& v, const py::object& bias, const py::object& y, const py::object& lse,
                    const py::object& dq, const py::object& dk, const py::object& dv, bool causal, double scale) {
  Call call("attention_grad", y, causal, scale);
  read_operands(call, q, k, v, bias, y, lse, false);
  AttentionGrad g = gradient(call, dy, dlse);
  const Attention& p = g.of;
  g.dq = call.matrices(dq, p.T, p.D, true), g.dk = call.matrices(dk, p.S, p.D, true);
  g.dv = call.matrices(dv, p.S, p.E, true);
  py::gil_scoped_release unlocked;
  kernels_of(call.type()).backward(g);
}

void attention_bias_grad(const py::object& dy, const py::object& dlse, const py::object& q, const py::object& k,
                         const py::object& v, const py::object& bias, const py::object& y, const py::object& lse,
                         const py::object& dbias, bool causal, double scale) {
  Call call("attention_bias_grad", y, causal, scale);
  read_operands(call, q, k, v, bias, y, lse, false);
  AttentionGrad g = gradient(call, dy, dlse);
  g.dbias = call.matrices(dbias, g.of.T, g.of.S, true);
  py::gil_scoped_release unlocked;
  kernels_of(call.type()).backward(g);
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def("attention", attention, "attention(q, k, v, bias, y, lse, causal, scale): fills y[...,T,E] and lse[...,T]");
  m.def("attention_grad", attention_grad,
        "attention_grad(dy, dlse, q, k, v, bias, y, lse, dq, dk, dv, causal, scale): fills dq, dk and dv");
  m.def("attention_bias_grad", attention_bias_grad,
        "attention_bias_grad(dy, dlse, q, k, v, bias, y, lse, dbias, causal, scale): fills dbias[...,T,S]");
}

}  // namespace dlcore
