// Convolution: checks of shapes, dtypes and memory for `conv.h`.
#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

constexpr Index kMost = Index(1) << 31, kMostStride = 16;

// A contiguous array of 4 axes (1 for the bias) in the dtype of the others.
Array operand(PyObject* object, const char* name, int ndim) {
  const Array x(object, name);
  require(x.ndim() == ndim, "conv2d: wrong number of dimensions");
  require(x.type() == kFloat32 || x.type() == kFloat64, "conv2d: expected float32 or float64");
  require(x.native() && x.aligned() && x.contiguous(),
          "conv2d: expected contiguous, aligned arrays in native byte order");
  return x;
}

void read_pair(PyObject* pair, Index least, Index most, std::ptrdiff_t* to) {
  if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
    throw py::type_error("conv2d: stride, padding and dilation must be pairs of integers");
  for (int i = 0; i < 2; ++i) {
    to[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(pair, i), PyExc_OverflowError);
    if (to[i] == -1 && PyErr_Occurred()) throw py::error_already_set();
    require(to[i] >= least && to[i] <= most, "conv2d: stride, padding or dilation out of range");
  }
}

Index outputs(Index size, Index kernel, Index stride, Index padding, Index dilation) {
  const Index room = size + 2 * padding - (kernel - 1) * dilation - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// The convolution of x, w and y whose attributes are args[0..3].
Conv2d describe(const Array& x, const Array& w, const Array& y, PyObject* const* args) {
  Conv2d c{x.dim(0), x.dim(1), x.dim(2), x.dim(3), w.dim(0), w.dim(2), w.dim(3), y.dim(2), y.dim(3), {}, {}, {}, 0};
  require(x.type() == w.type() && x.type() == y.type(), "conv2d: arrays differ in dtype");
  read_pair(args[0], 1, kMostStride, c.stride);
  read_pair(args[1], 0, kMost, c.padding);
  read_pair(args[2], 1, kMost, c.dilation);
  c.groups = PyNumber_AsSsize_t(args[3], PyExc_OverflowError);
  if (c.groups == -1 && PyErr_Occurred()) throw py::error_already_set();
  require(c.C > 0 && c.H > 0 && c.W > 0 && c.O > 0 && c.KH > 0 && c.KW > 0, "conv2d: expected non-empty x[0] and w");
  require(c.groups >= 1 && c.C % c.groups == 0 && c.O % c.groups == 0 && w.dim(1) == c.C / c.groups,
          "conv2d: expected x[N,C,H,W] w[O,C/groups,KH,KW]");
  require(c.KH < kMost && c.KW < kMost && c.H < kMost && c.W < kMost, "conv2d: too large");
  require(y.dim(0) == c.N && y.dim(1) == c.O && c.P > 0 && c.Q > 0 &&
              c.P == outputs(c.H, c.KH, c.stride[0], c.padding[0], c.dilation[0]) &&
              c.Q == outputs(c.W, c.KW, c.stride[1], c.padding[1], c.dilation[1]),
          "conv2d: expected y[N,O,P,Q] of the sizes that x, w and the attributes give");
  return c;
}

// Of contiguous arrays.
bool overlap(const Array& a, const Array& b) {
  const auto end = [](const Array& x) {
    Index n = x.type() == kFloat32 ? 4 : 8;
    for (int i = 0; i < x.ndim(); ++i) n *= x.dim(i);
    return static_cast<const char*>(x.data()) + n;
  };
  return a.data() < end(b) && b.data() < end(a);
}

void check_out(const Array& out, std::initializer_list<const Array*> operands) {
  require(out.writeable(), "conv2d: out is read-only");
  for (const Array* x : operands) require(!overlap(out, *x), "conv2d: out overlaps an operand");
}

template <class T>
const ConvFunctions<T>& functions() {
  if constexpr (sizeof(T) == 4) return kernels().conv.f32;
  else return kernels().conv.f64;
}

// f(zero of the arrays' type), with the GIL released.
template <class F>
py::object run(const Array& out, F f) {
  py::gil_scoped_release unlocked;
  out.type() == kFloat32 ? f(float()) : f(double());
  return py::none();
}

void require_count(Py_ssize_t count, Py_ssize_t expected, const char* usage) {
  if (count != expected) throw py::type_error(usage);
}

constexpr char kForward[] =
    "conv2d(x, w, b, out, stride, padding, dilation, groups)\n\n"
    "out[N,O,P,Q] = the cross-correlation of x[N,C,H,W] with w[O,C/groups,KH,KW], plus b[O] unless it is None.";
constexpr char kDx[] =
    "conv2d_dx(dy, w, out, stride, padding, dilation, groups)\n\n"
    "out[N,C,H,W] = the gradient of conv2d with respect to x.";
constexpr char kDw[] =
    "conv2d_dw(dy, x, out, stride, padding, dilation, groups)\n\n"
    "out[O,C/groups,KH,KW] = the gradient of conv2d with respect to w.";

PyObject* conv2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 8, kForward);
    const Array x = operand(args[0], "conv2d: x", 4), w = operand(args[1], "conv2d: w", 4);
    const Array out = operand(args[3], "conv2d: out", 4);
    const Conv2d c = describe(x, w, out, args + 4);
    check_out(out, {&x, &w});
    const void* bias = nullptr;
    if (args[2] != Py_None) {
      const Array b = operand(args[2], "conv2d: b", 1);
      require(b.dim(0) == c.O && b.type() == x.type(), "conv2d: expected b[O] in the dtype of x");
      check_out(out, {&b});
      bias = b.data();
    }
    return run(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>().forward(c, static_cast<const T*>(x.data()), static_cast<const T*>(w.data()),
                             static_cast<const T*>(bias), static_cast<T*>(out.data()));
    });
  });
}

PyObject* conv2d_dx(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 7, kDx);
    const Array dy = operand(args[0], "conv2d_dx: dy", 4), w = operand(args[1], "conv2d_dx: w", 4);
    const Array out = operand(args[2], "conv2d_dx: out", 4);
    const Conv2d c = describe(out, w, dy, args + 3);
    check_out(out, {&dy, &w});
    return run(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>().dx(c, static_cast<const T*>(dy.data()), static_cast<const T*>(w.data()),
                        static_cast<T*>(out.data()));
    });
  });
}

PyObject* conv2d_dw(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 7, kDw);
    const Array dy = operand(args[0], "conv2d_dw: dy", 4), x = operand(args[1], "conv2d_dw: x", 4);
    const Array out = operand(args[2], "conv2d_dw: out", 4);
    const Conv2d c = describe(x, out, dy, args + 3);
    check_out(out, {&dy, &x});
    return run(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>().dw(c, static_cast<const T*>(x.data()), static_cast<const T*>(dy.data()),
                        static_cast<T*>(out.data()));
    });
  });
}

template <class F>
PyMethodDef method(const char* name, F f, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)), METH_FASTCALL, doc};
}
PyMethodDef methods[] = {method("conv2d", conv2d, kForward), method("conv2d_dx", conv2d_dx, kDx),
                         method("conv2d_dw", conv2d_dw, kDw)};

}  // namespace

void bind_conv(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
