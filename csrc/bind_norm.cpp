// _C.batch_norm and the other normalisations, with their gradients.
#include "bind_tail.h"
#include "isa.h"

namespace dlcore {
namespace {

// The operands of one call: contiguous arrays of the dtype of x, and new arrays for the results.
class Call {
 public:
  Call(const char* name, const py::object& x) : name_(name), x_(x.ptr(), name) {
    if ((x_.type() != kFloat32 && x_.type() != kFloat64) || !x_.native())
      throw py::type_error(std::string(name) + ": expected float32 or float64");
    require_form(x_);
  }
  const Array& x() const { return x_; }

  // Data of an operand of n elements; null for None.
  const void* operand(const py::object& object, Index n) const {
    if (object.is_none()) return nullptr;
    const Array a(object.ptr(), name_);
    if (a.type() != x_.type() || !a.native()) throw py::type_error(std::string(name_) + ": operands differ in dtype");
    require_form(a);
    if (a.size() != n) throw py::value_error(std::string(name_) + ": an operand has the wrong size");
    return a.data();
  }
  py::object like_x(void** data) const { return new_array(x_.type(), x_.ndim(), x_.dims(), data); }
  py::object vector(Index n, void** data) const {
    const Py_intptr_t shape = n;
    return new_array(x_.type(), 1, &shape, data);
  }

  // x as [N, C, S]
  template <class P>
  void channels(P& p) const {
    require(x_.ndim() >= 2, "norm: expected x[N,C,...]");
    p.n = x_.dim(0), p.c = x_.dim(1), p.s = 1;
    for (int i = 2; i < x_.ndim(); ++i) p.s *= x_.dim(i);
  }
  // x as [rows, D]
  template <class P>
  void rows(P& p) const {
    require(x_.ndim() >= 1, "norm: expected x[...,D]");
    p.d = x_.dim(x_.ndim() - 1);
    p.rows = p.d == 0 ? 0 : x_.size() / p.d;
  }
  template <class P>
  void run(void (*NormKernels::Of::*kernel)(const P&), const P& p) const {
    const NormKernels& all = kernels().norm;
    unlocked_if_large(x_.size(), [&] { ((x_.type() == kFloat32 ? all.f32 : all.f64).*kernel)(p); });
  }

 private:
  void require_form(const Array& a) const {
    if (!a.contiguous() || !a.aligned()) throw py::value_error(std::string(name_) + ": expected contiguous arrays");
  }
  const char* name_;
  const Array x_;
};

// then: a chain that goes on with y and `others`, in place.
TailArguments tail(const py::object& then, const py::args& others, const py::object& y) {
  PyObject* const* items = &PyTuple_GET_ITEM(others.ptr(), 0);
  return {then.ptr(), items, Py_ssize_t(others.size()), Array(y.ptr(), "norm")};
}

py::tuple batch_norm(const py::object& x, const py::object& scale, const py::object& bias, const py::args& others,
                     double eps, const py::object& then) {
  const Call call("batch_norm", x);
  ChannelNorm p{};
  call.channels(p);
  p.eps = eps, p.x = call.x().data(), p.scale = call.operand(scale, p.c), p.bias = call.operand(bias, p.c);
  py::object y = call.like_x(&p.y), mean = call.vector(p.c, &p.mean), var = call.vector(p.c, &p.var);
  const TailArguments more = tail(then, others, y);
  p.tail = more.tail();
  call.run(&NormKernels::Of::batch, p);
  return py::make_tuple(y, mean, var);
}

py::object batch_norm_inference(const py::object& x, const py::object& mean, const py::object& var,
                                const py::object& scale, const py::object& bias, const py::args& others, double eps,
                                const py::object& then) {
  const Call call("batch_norm_inference", x);
  ChannelNorm p{};
  call.channels(p);
  p.eps = eps, p.x = call.x().data(), p.scale = call.operand(scale, p.c), p.bias = call.operand(bias, p.c);
  p.mean = const_cast<void*>(call.operand(mean, p.c)), p.var = const_cast<void*>(call.operand(var, p.c));
  py::object y = call.like_x(&p.y);
  const TailArguments more = tail(then, others, y);
  p.tail = more.tail();
  call.run(&NormKernels::Of::inference, p);
  return y;
}

py::object group_norm(const py::object& x, const py::object& scale, const py::object& bias, Index groups, double eps) {
  const Call call("group_norm", x);
  ChannelNorm p{};
  call.channels(p);
  require(groups > 0 && p.c % groups == 0, "group_norm: the channels do not split into groups");
  p.groups = groups, p.eps = eps, p.x = call.x().data();
  p.scale = call.operand(scale, p.c), p.bias = call.operand(bias, p.c);
  py::object y = call.like_x(&p.y);
  call.run(&NormKernels::Of::group, p);
  return y;
}

py::tuple channel_gradient(const Call& call, ChannelNormGrad& p, const py::object& dy, const py::object& scale,
                           void (*NormKernels::Of::*kernel)(const ChannelNormGrad&)) {
  p.dy = call.operand(dy, call.x().size()), p.x = call.x().data(), p.scale = call.operand(scale, p.c);
  py::object dx = call.like_x(&p.dx), dscale = call.vector(p.c, &p.dscale), dbias = call.vector(p.c, &p.dbias);
  call.run(kernel, p);
  return py::make_tuple(dx, dscale, dbias);
}

py::tuple batch_norm_grad(const py::object& dy, const py::object& dmean, const py::object& dvar, const py::object& x,
                          const py::object& scale, const py::object& mean, const py::object& var, double eps) {
  const Call call("batch_norm_grad", x);
  ChannelNormGrad p{};
  call.channels(p);
  p.eps = eps, p.dmean = call.operand(dmean, p.c), p.dvar = call.operand(dvar, p.c);
  p.mean = call.operand(mean, p.c), p.var = call.operand(var, p.c);
  return channel_gradient(call, p, dy, scale, &NormKernels::Of::batch_grad);
}

py::tuple group_norm_grad(const py::object& dy, const py::object& x, const py::object& scale, Index groups,
                          double eps) {
  const Call call("group_norm_grad", x);
  ChannelNormGrad p{};
  call.channels(p);
  require(groups > 0 && p.c % groups == 0, "group_norm: the channels do not split into groups");
  p.groups = groups, p.eps = eps;
  return channel_gradient(call, p, dy, scale, &NormKernels::Of::group_grad);
}

py::object row_norm(const char* name, const py::object& x, const py::object& scale, const py::object& bias, double eps,
                    bool centre) {
  const Call call(name, x);
  RowNorm p{};
  call.rows(p);
  p.eps = eps, p.centre = centre, p.x = call.x().data();
  p.scale = call.operand(scale, p.d), p.bias = call.operand(bias, p.d);
  py::object y = call.like_x(&p.y);
  call.run(&NormKernels::Of::rows, p);
  return y;
}

py::tuple row_norm_grad(const char* name, const py::object& dy, const py::object& x, const py::object& scale,
                        const py::args& others, double eps, const py::object& then, bool centre) {
  const Call call(name, x);
  RowNormGrad p{};
  call.rows(p);
  p.eps = eps, p.centre = centre, p.x = call.x().data();
  p.dy = call.operand(dy, call.x().size()), p.scale = call.operand(scale, p.d);
  py::object dx = call.like_x(&p.dx), dscale = call.vector(p.d, &p.dscale);
  const TailArguments more = tail(then, others, dx);
  p.tail = more.tail();
  if (!centre) {
    call.run(&NormKernels::Of::rows_grad, p);
    return py::make_tuple(dx, dscale);
  }
  py::object dbias = call.vector(p.d, &p.dbias);
  call.run(&NormKernels::Of::rows_grad, p);
  return py::make_tuple(dx, dscale, dbias);
}

}  // namespace

void bind_norm(py::module_& m) {
  using py::arg;
  const py::object none = py::none();
  m.def("batch_norm", batch_norm, arg("x"), arg("scale") = none, arg("bias") = none, arg("eps") = 1e-5,
        arg("then") = none);
  m.def("batch_norm_inference", batch_norm_inference, arg("x"), arg("mean"), arg("var"), arg("scale") = none,
        arg("bias") = none, arg("eps") = 1e-5, arg("then") = none);
  m.def("batch_norm_grad", batch_norm_grad, arg("dy"), arg("dmean"), arg("dvar"), arg("x"), arg("scale"), arg("mean"),
        arg("var"), arg("eps") = 1e-5);
  m.def("group_norm", group_norm, arg("x"), arg("scale") = none, arg("bias") = none, arg("groups") = 1,
        arg("eps") = 1e-5);
  m.def("group_norm_grad", group_norm_grad, arg("dy"), arg("x"), arg("scale") = none, arg("groups") = 1,
        arg("eps") = 1e-5);
  m.def(
      "layer_norm",
      [](const py::object& x, const py::object& scale, const py::object& bias, double eps) {
        return row_norm("layer_norm", x, scale, bias, eps, true);
      },
      arg("x"), arg("scale") = none, arg("bias") = none, arg("eps") = 1e-5);
  m.def(
      "rms_norm",
      [](const py::object& x, const py::object& scale, double eps) {
        return row_norm("rms_norm", x, scale, py::none(), eps, false);
      },
      arg("x"), arg("scale") = none, arg("eps") = 1e-5);
  m.def(
      "layer_norm_grad",
      [](const py::object& dy, const py::object& x, const py::object& scale, const py::args& others, double eps,
         const py::object& then) { return row_norm_grad("layer_norm_grad", dy, x, scale, others, eps, then, true); },
      arg("dy"), arg("x"), arg("scale") = none, arg("eps") = 1e-5, arg("then") = none);
  m.def(
      "rms_norm_grad",
      [](const py::object& dy, const py::object& x, const py::object& scale, const py::args& others, double eps,
         const py::object& then) { return row_norm_grad("rms_norm_grad", dy, x, scale, others, eps, then, false); },
      arg("dy"), arg("x"), arg("scale") = none, arg("eps") = 1e-5, arg("then") = none);
}

}  // namespace dlcore
