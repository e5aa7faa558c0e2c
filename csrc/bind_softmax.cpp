// _C.softmax(x) and the like, over the last axis of contiguous arrays.
#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

struct Rows {
  Index rows, n;

  Rows(const Array& x, const char* name) : rows(0), n(0) {
    if ((x.type() != kFloat32 && x.type() != kFloat64) || !x.native())
      throw py::type_error(std::string(name) + ": expected float32 or float64");
    if (x.ndim() == 0 || !x.contiguous() || !x.aligned())
      throw py::value_error(std::string(name) + ": expected a contiguous array with an axis");
    n = x.dim(x.ndim() - 1);
    rows = n == 0 ? 0 : x.size() / n;
  }
};

const SoftmaxKernels::Of& kernels_of(int type) {
  return type == kFloat32 ? kernels().softmax.f32 : kernels().softmax.f64;
}

PyObject* map(const char* name, SoftmaxKernels::Map SoftmaxKernels::Of::* kernel, PyObject* const* args,
              Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != 1) throw py::type_error(std::string(name) + ": expected one array");
    const Array x(args[0], name);
    const Rows size(x, name);
    void* y;
    const py::object made = new_array(x.type(), x.ndim(), x.dims(), &y);
    unlocked_if_large(size.rows * size.n, [&] { (kernels_of(x.type()).*kernel)(size.rows, size.n, x.data(), y); });
    return made;
  });
}

PyObject* gradient(const char* name, SoftmaxKernels::Gradient SoftmaxKernels::Of::* kernel, PyObject* const* args,
                   Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != 2) throw py::type_error(std::string(name) + ": expected two arrays");
    const Array dy(args[0], name), y(args[1], name);
    const Rows size(dy, name), other(y, name);
    require(dy.type() == y.type() && size.n == other.n && size.rows == other.rows, "softmax: dy and y differ");
    void* dx;
    const py::object made = new_array(y.type(), y.ndim(), y.dims(), &dx);
    unlocked_if_large(size.rows * size.n,
                      [&] { (kernels_of(y.type()).*kernel)(size.rows, size.n, dy.data(), y.data(), dx); });
    return made;
  });
}

#define DL_FUNCTION(form, name)                                               \
  PyObject* call_##name(PyObject*, PyObject* const* args, Py_ssize_t count) { \
    return form(#name, &SoftmaxKernels::Of::name, args, count);               \
  }
DL_FUNCTION(map, softmax)
DL_FUNCTION(map, log_softmax)
DL_FUNCTION(gradient, softmax_grad)
DL_FUNCTION(gradient, log_softmax_grad)

#define DL_METHOD(name) \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_##name)), METH_FASTCALL, nullptr}
PyMethodDef methods[] = {DL_METHOD(softmax), DL_METHOD(log_softmax), DL_METHOD(softmax_grad),
                         DL_METHOD(log_softmax_grad)};

// ---- cross-entropy

CrossEntropy problem(const char* name, const Array& logits, const py::object& labels, long long ignored,
                     double smoothing, const std::string& reduction) {
  const Rows size(logits, name);
  const Array of(labels.ptr(), name);
  if (of.type() != kInt64 || !of.plain() || logits.ndim() != 2 || of.size() != logits.dim(0))
    throw py::value_error(std::string(name) + ": expected logits[N,C] and contiguous int64 labels[N]");
  require(reduction == "none" || reduction == "mean" || reduction == "sum", "cross_entropy: unknown reduction");
  const Mean kind = reduction == "none" ? Mean::none : reduction == "mean" ? Mean::mean : Mean::sum;
  const auto* first = static_cast<const long long*>(of.data());
  return {logits.dim(0), size.n, logits.data(), first, ignored, smoothing, kind, nullptr, nullptr};
}

bool are_labels(const py::object& labels, long long classes) {
  const Array of(labels.ptr(), "are_labels");
  if (of.type() != kInt64 || !of.plain()) throw py::type_error("are_labels: expected contiguous int64 labels");
  const auto* at = static_cast<const long long*>(of.data());
  bool all = true;
  for (Index i = 0; i < of.size(); ++i) all = all && at[i] >= 0 && at[i] < classes;
  return all;
}

py::tuple cross_entropy(const py::object& logits, const py::object& labels, long long ignored, double smoothing,
                        const std::string& reduction) {
  const Array x(logits.ptr(), "cross_entropy");
  CrossEntropy p = problem("cross_entropy", x, labels, ignored, smoothing, reduction);
  require(p.n > 0, "cross_entropy: there are no classes");
  const py::object lse = new_array(x.type(), 1, x.dims(), &p.lse);
  const py::object loss = new_array(x.type(), p.reduction == Mean::none, x.dims(), &p.loss);
  unlocked_if_large(x.size(), [&] { kernels_of(x.type()).cross_entropy(p); });
  return py::make_tuple(lse, loss);
}

py::object cross_entropy_grad(const py::object& g_lse, const py::object& g_loss, const py::object& logits,
                              const py::object& lse, const py::object& labels, long long ignored, double smoothing,
                              const std::string& reduction) {
  const char* const name = "cross_entropy_grad";
  const Array x(logits.ptr(), name), to_lse(g_lse.ptr(), name), to_loss(g_loss.ptr(), name), known(lse.ptr(), name);
  CrossEntropyGrad p{problem(name, x, labels, ignored, smoothing, reduction), to_lse.data(), to_loss.data(), nullptr};
  for (const Array* a : {&to_lse, &to_loss, &known})
    if (a->type() != x.type() || !a->plain())
      throw py::type_error(std::string(name) + ": expected contiguous arrays of one dtype");
  require(to_lse.size() == p.of.rows && known.size() == p.of.rows &&
              to_loss.size() == (p.of.reduction == Mean::none ? p.of.rows : 1),
          "cross_entropy_grad: an operand has the wrong size");
  p.of.lse = known.data();
  const py::object made = new_array(x.type(), 2, x.dims(), &p.dlogits);
  unlocked_if_large(x.size(), [&] { kernels_of(x.type()).cross_entropy_grad(p); });
  return made;
}

}  // namespace

void bind_softmax(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
  using py::arg;
  m.def("are_labels", are_labels, arg("labels"), arg("classes"), "Whether 0 <= label < classes for all int64 labels.");
  m.def("cross_entropy", cross_entropy, arg("logits"), arg("labels"), arg("ignore_index") = -100,
        arg("label_smoothing") = 0.0, arg("reduction") = "mean");
  m.def("cross_entropy_grad", cross_entropy_grad, arg("g_lse"), arg("g_loss"), arg("logits"), arg("lse"), arg("labels"),
        arg("ignore_index") = -100, arg("label_smoothing") = 0.0, arg("reduction") = "mean");
}

}  // namespace dlcore
