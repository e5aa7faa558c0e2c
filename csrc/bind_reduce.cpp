// _C.sum(x, axis=None, keepdims=False) and the like.
#include <memory>

#include "bind.h"
#include "isa.h"
#include "strided.h"

namespace dlcore {
namespace {

struct Arguments {
  PyObject* x;
  PyObject* axis = Py_None;  // sum_to: the shape
  bool keepdims = false;
  double correction = 0;
};

Arguments read_arguments(const char* name, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (count != 1) throw py::type_error(std::string(name) + ": expected one array, then keywords");
  Arguments found{args[0]};
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject *key = PyTuple_GET_ITEM(names, i), *value = args[count + i];
    const auto is = [key](const char* text) { return PyUnicode_CompareWithASCIIString(key, text) == 0; };
    if (is("axis") || is("shape")) found.axis = value;
    else if (is("keepdims")) found.keepdims = PyObject_IsTrue(value) == 1;
    else if (is("correction")) found.correction = PyFloat_AsDouble(value);
    else throw py::type_error(std::string(name) + ": unexpected keyword argument");
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return found;
}

Index read_index(PyObject* value) {
  const Py_ssize_t i = PyNumber_AsSsize_t(value, PyExc_OverflowError);
  if (i == -1 && PyErr_Occurred()) throw py::error_already_set();
  return i;
}

// Which axes of x are reduced, and the shape of the result.
struct Axes {
  bool reduced[kMaxRank] = {};
  int rank = 0;
  Py_intptr_t shape[kMaxRank];

  Axes(const Array& x, const Arguments& args, bool is_shape) {
    if (is_shape) read_shape(x, args.axis);
    else read_axes(x, args.axis, args.keepdims);
  }

 private:
  void mark(const Array& x, PyObject* axis) {
    Index i = read_index(axis);
    i += i < 0 ? x.ndim() : 0;
    require(i >= 0 && i < x.ndim(), "reduction: axis out of range");
    reduced[i] = true;
  }
  void read_axes(const Array& x, PyObject* axis, bool keepdims) {
    if (axis == Py_None)
      for (int i = 0; i < x.ndim(); ++i) reduced[i] = true;
    else if (PyTuple_Check(axis))
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(axis); ++i) mark(x, PyTuple_GET_ITEM(axis, i));
    else mark(x, axis);
    for (int i = 0; i < x.ndim(); ++i)
      if (!reduced[i]) shape[rank++] = x.dim(i);
      else if (keepdims) shape[rank++] = 1;
  }
  void read_shape(const Array& x, PyObject* target) {
    if (!PyTuple_Check(target)) throw py::type_error("sum_to: shape must be a tuple");
    rank = int(PyTuple_GET_SIZE(target));
    require(rank <= x.ndim(), "sum_to: the shape has more axes than x");
    const int lead = x.ndim() - rank;
    for (int i = 0; i < x.ndim(); ++i) {
      const Index want = i < lead ? 1 : (shape[i - lead] = read_index(PyTuple_GET_ITEM(target, i - lead)));
      reduced[i] = i < lead || (want == 1 && x.dim(i) != 1);
      require(reduced[i] || want == x.dim(i), "sum_to: x does not come from that shape");
    }
  }
};

// The array as x[A, K, B, L]; copied, kept axes first, where its memory does not have that form.
class View {
 public:
  View(const Array& x, const bool* reduced, bool rows) : rows_(rows) {
    if (!group(x, reduced)) copy(x, reduced);
  }
  const Reduction& reduction() const { return view_; }

 private:
  // Puts runs of neighbouring axes of one kind into A, K, B, L; false where that does not fit.
  bool group(const Array& x, const bool* reduced) {
    Index size[4] = {1, 1, 1, 1}, stride = itemsize(x);
    int at = 3;
    for (int i = x.ndim() - 1; i >= 0; --i) {
      if (x.dim(i) == 1) continue;
      if (x.stride(i) != stride && x.dim(i) != 0) return false;
      stride *= x.dim(i);
      while (at >= 0 && (at % 2 == 0) != reduced[i]) --at;
      if (at < 0) return false;
      size[at] *= x.dim(i);
    }
    view_ = {x.data(), size[0], size[1], size[2], size[3]};
    return !rows_ || (view_.a == 1 && view_.l == 1);
  }
  void copy(const Array& x, const bool* reduced) {
    StridedMap map;
    map.count = 1, map.out_itemsize = itemsize(x);
    map.operand[0].data = static_cast<const char*>(x.data()), map.operand[0].itemsize = itemsize(x);
    Index size[2] = {1, 1};
    for (const bool wanted : {false, true})
      for (int i = 0; i < x.ndim(); ++i)
        if (reduced[i] == wanted) {
          map.dim[map.rank] = x.dim(i), map.operand[0].stride[map.rank++] = x.stride(i);
          size[wanted] *= x.dim(i);
        }
    scratch_ = std::make_unique<Scratch>(std::size_t(size[0] * size[1] * itemsize(x)));
    map.out = static_cast<char*>(scratch_->data());
    view_ = {scratch_->data(), 1, size[0], size[1], 1};
    if (size[0] * size[1] == 0) return;
    map.coalesce();
    const ElementwiseKernels& kernel = kernels().elementwise;
    map.run(x.type() == kFloat32 ? kernel.f32[k_copy] : kernel.f64[k_copy]);
  }
  static Index itemsize(const Array& x) { return x.type() == kFloat64 ? 8 : 4; }

  const bool rows_;  // whether only x[K, B] will do
  Reduction view_{};
  std::unique_ptr<Scratch> scratch_;
};

enum class What { sum, mean, var, std, norm, max, min };

template <class T>
void write(const double* from, Index n, double divisor, bool root, void* out) {
  T* y = static_cast<T*>(out);
  for (Index i = 0; i < n; ++i) y[i] = T(root ? __builtin_sqrt(from[i] / divisor) : from[i] / divisor);
}

// Runs the kernels; result is double[outputs].
void run(What what, const ReduceKernels::Of& kernel, Reduction& r, double* result) {
  if (what == What::max) return kernel.max(r, result);
  if (what == What::min) return kernel.min(r, result);
  if (what == What::norm) return kernel.deviations(r, result);  // from 0
  kernel.sum(r, result);
  if (what != What::var && what != What::std) return;
  const Scratch means(std::size_t(r.outputs()) * sizeof(double));
  double* mean = static_cast<double*>(means.data());
  for (Index i = 0; i < r.outputs(); ++i) mean[i] = result[i] / double(r.length());
  r.shift = mean;
  kernel.deviations(r, result);
}

void compute(What what, int type, Reduction r, double correction, void* out) {
  const Scratch scratch(std::size_t(r.outputs()) * sizeof(double));
  double* result = static_cast<double*>(scratch.data());
  const ReduceKernels& all = kernels().reduce;
  run(what, type == kFloat32 ? all.f32 : all.f64, r, result);
  const double left = double(r.length()) - correction;
  const bool divided = what == What::mean || what == What::var || what == What::std;
  const double divisor = !divided ? 1 : left > 0 ? left : 0;
  (type == kFloat32 ? write<float> : write<double>)(result, r.outputs(), divisor,
                                                    what == What::std || what == What::norm, out);
}

void check(const Array& x, const char* name) {
  if ((x.type() != kFloat32 && x.type() != kFloat64) || !x.native())
    throw py::type_error(std::string(name) + ": expected float32 or float64");
}

PyObject* reduce(const char* name, What what, PyObject* const* args, Py_ssize_t count, PyObject* names, bool to_shape) {
  return guarded([&]() -> py::object {
    const Arguments given = read_arguments(name, args, count, names);
    const Array x(given.x, name);
    check(x, name);
    const Axes axes(x, given, to_shape);
    const View view(x, axes.reduced, false);
    const Reduction& r = view.reduction();
    require(r.length() > 0 || r.outputs() == 0 || (what != What::max && what != What::min),
            "max, min: no element to choose from");
    void* out;
    const py::object made = new_array(x.type(), axes.rank, axes.shape, &out);
    unlocked_if_large(r.length() * r.outputs(), [&] { compute(what, x.type(), r, given.correction, out); });
    return made;
  });
}

PyObject* locate(const char* name, bool largest, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&]() -> py::object {
    const Arguments given = read_arguments(name, args, count, names);
    const Array x(given.x, name);
    check(x, name);
    const Axes axes(x, given, false);
    const View view(x, axes.reduced, true);
    const Reduction& r = view.reduction();
    require(r.b > 0 || r.k == 0, "argmax, argmin: no element to choose from");
    void* out;
    const py::object made = new_array(kInt64, axes.rank, axes.shape, &out);
    const ReduceKernels::Of& kernel = x.type() == kFloat32 ? kernels().reduce.f32 : kernels().reduce.f64;
    unlocked_if_large(r.k * r.b,
                      [&] { (largest ? kernel.argmax : kernel.argmin)(r.k, r.b, r.x, static_cast<long long*>(out)); });
    return made;
  });
}

#define DL_REDUCE(name, what, to_shape)                                                        \
  PyObject* call_##name(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) { \
    return reduce(#name, What::what, args, count, names, to_shape);                            \
  }
#define DL_LOCATE(name, largest)                                                               \
  PyObject* call_##name(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) { \
    return locate(#name, largest, args, count, names);                                         \
  }
DL_REDUCE(sum, sum, false)
DL_REDUCE(mean, mean, false)
DL_REDUCE(var, var, false)
DL_REDUCE(std, std, false)
DL_REDUCE(norm, norm, false)
DL_REDUCE(max, max, false)
DL_REDUCE(min, min, false)
DL_REDUCE(sum_to, sum, true)
DL_LOCATE(argmax, true)
DL_LOCATE(argmin, false)

#define DL_METHOD(name)                                                                                            \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_##name)), METH_FASTCALL | METH_KEYWORDS, \
   nullptr}
PyMethodDef methods[] = {DL_METHOD(sum), DL_METHOD(mean), DL_METHOD(var),    DL_METHOD(std),    DL_METHOD(norm),
                         DL_METHOD(max), DL_METHOD(min),  DL_METHOD(sum_to), DL_METHOD(argmax), DL_METHOD(argmin)};

}  // namespace

void bind_reduce(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
