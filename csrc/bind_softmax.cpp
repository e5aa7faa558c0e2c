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

}  // namespace

void bind_softmax(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
