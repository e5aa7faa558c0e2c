// What the bindings of convolution and pooling share: checks of images and of pairs of integers.
#pragma once
#include <initializer_list>

#include "bind.h"

namespace dlcore {

// Raises ValueError("<op>: <what>").
class Require {
 public:
  explicit Require(const char* op) : op_(op) {}
  void operator()(bool condition, const char* what) const {
    if (!condition) throw py::value_error(std::string(op_) + ": " + what);
  }
  const char* op() const { return op_; }

 private:
  const char* op_;
};

inline constexpr Index kMost = Index(1) << 31;

// A contiguous array of `ndim` axes and of float32 or float64.
inline Array operand(const Require& require, PyObject* object, int ndim) {
  const Array x(object, require.op());
  require(x.ndim() == ndim, "wrong number of dimensions");
  require(x.type() == kFloat32 || x.type() == kFloat64, "expected float32 or float64");
  require(x.plain(), "expected contiguous, aligned arrays in native byte order");
  return x;
}

inline void read_pair(const Require& require, PyObject* pair, Index least, Index most, std::ptrdiff_t* to) {
  if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
    throw py::type_error(std::string(require.op()) + ": attributes must be pairs of integers");
  for (int i = 0; i < 2; ++i) {
    to[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(pair, i), PyExc_OverflowError);
    if (to[i] == -1 && PyErr_Occurred()) throw py::error_already_set();
    require(to[i] >= least && to[i] <= most, "stride, padding, dilation or kernel out of range");
  }
}

// Of contiguous arrays.
inline bool overlap(const Array& a, const Array& b) {
  const auto end = [](const Array& x) {
    Index n = x.type() == kFloat32 ? 4 : 8;
    for (int i = 0; i < x.ndim(); ++i) n *= x.dim(i);
    return static_cast<const char*>(x.data()) + n;
  };
  return a.data() < end(b) && b.data() < end(a);
}

inline void check_out(const Require& require, const Array& out, std::initializer_list<const Array*> operands) {
  require(out.writeable(), "out is read-only");
  for (const Array* x : operands) require(!overlap(out, *x), "out overlaps an operand");
}

// f(zero of the array's type), with the GIL released.
template <class F>
void with_type(const Array& x, F f) {
  py::gil_scoped_release unlocked;
  x.type() == kFloat32 ? f(float()) : f(double());
}

template <class F>
PyMethodDef method(const char* name, F f, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)), METH_FASTCALL, doc};
}

inline void require_count(Py_ssize_t count, Py_ssize_t expected, const char* usage) {
  if (count != expected) throw py::type_error(usage);
}

}  // namespace dlcore
