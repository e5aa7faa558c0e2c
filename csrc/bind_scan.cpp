// _C.scan(kind, a, x, axis, reverse): running sums and products; see scan.h.
#include "bind.h"
#include "scan.h"

namespace dlcore {
namespace {

ScanType type_of(const Array& x) {
  if (x.type() == kFloat32) return ScanType::f32;
  if (x.type() == kFloat64) return ScanType::f64;
  require(x.type() == kInt64, "scan: expected float32, float64 or int64");
  return ScanType::i64;
}

Running kind_of(PyObject* name) {
  const char* const names[] = {"sum", "product", "linear"};
  for (int i = 0; PyUnicode_Check(name) && i < 3; ++i)
    if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) return Running(i);
  throw py::value_error("scan: kind must be one of sum, product, linear");
}

bool alike(const Array& a, const Array& x) {
  bool same = a.type() == x.type() && a.ndim() == x.ndim();
  for (int i = 0; same && i < a.ndim(); ++i) same = a.dim(i) == x.dim(i);
  return same;
}

PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != 5) throw py::type_error("scan: expected (kind, factors, x, axis, reverse)");
    const Array x(args[2], "scan");
    const long axis = PyLong_AsLong(args[3]);
    if (axis == -1 && PyErr_Occurred()) throw py::error_already_set();
    require(axis >= 0 && axis < x.ndim(), "scan: no such axis");
    require(x.plain(), "scan: expected arrays in row-major order");
    Scan s{kind_of(args[0]),   type_of(x), 1,        x.dim(int(axis)), x.size(int(axis) + 1),
           args[4] == Py_True, nullptr,    x.data(), nullptr};
    for (int i = 0; i < axis; ++i) s.outer *= x.dim(i);
    require((s.kind == Running::linear) == (args[1] != Py_None), "scan: factors are for linear scans");
    if (args[1] != Py_None) {
      const Array a(args[1], "scan");
      require(a.plain() && alike(a, x), "scan: expected two arrays of one shape and dtype");
      require(s.type != ScanType::i64, "scan: linear scans are of floats");
      s.a = a.data();
    }
    py::object out = new_array(x.type(), x.ndim(), x.dims(), &s.y);
    unlocked_if_large(x.size(), [&] { scan(s); });
    return out;
  });
}

PyMethodDef method = {"scan", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL,
                      "scan(kind, factors, x, axis, reverse): a running sum or product of x along an axis >= 0, or\n"
                      "y[t] = factors[t] * y[t-1] + x[t] (linear); of contiguous arrays."};

}  // namespace

void bind_scan(py::module_& m) { add_function(m, &method); }

}  // namespace dlcore
