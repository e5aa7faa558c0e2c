// Convolution: checks of shapes, dtypes and memory for `conv.h`.
#include "bind_images.h"
#include "bind_tail.h"
#include "isa.h"

namespace dlcore {
namespace {

constexpr Index kMostStride = 16;
const Require require("conv2d");

Index outputs(Index size, Index kernel, Index stride, Index padding, Index dilation) {
  const Index room = size + 2 * padding - (kernel - 1) * dilation - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// The convolution of x, w and y whose attributes are args[0..3].
Conv2d describe(const Array& x, const Array& w, const Array& y, PyObject* const* args) {
  Conv2d c{x.dim(0), x.dim(1), x.dim(2), x.dim(3), w.dim(0), w.dim(2), w.dim(3), y.dim(2), y.dim(3), {}, {}, {}, 0, {}};
  require(x.type() == w.type() && x.type() == y.type(), "arrays differ in dtype");
  read_pair(require, args[0], 1, kMostStride, c.stride);
  read_pair(require, args[1], 0, kMost, c.padding);
  read_pair(require, args[2], 1, kMost, c.dilation);
  c.groups = PyNumber_AsSsize_t(args[3], PyExc_OverflowError);
  if (c.groups == -1 && PyErr_Occurred()) throw py::error_already_set();
  require(c.C > 0 && c.H > 0 && c.W > 0 && c.O > 0 && c.KH > 0 && c.KW > 0, "expected non-empty x[0] and w");
  require(c.groups >= 1 && c.C % c.groups == 0 && c.O % c.groups == 0 && w.dim(1) == c.C / c.groups,
          "expected x[N,C,H,W] w[O,C/groups,KH,KW]");
  require(c.KH < kMost && c.KW < kMost && c.H < kMost && c.W < kMost, "too large");
  require(y.dim(0) == c.N && y.dim(1) == c.O && c.P > 0 && c.Q > 0 &&
              c.P == outputs(c.H, c.KH, c.stride[0], c.padding[0], c.dilation[0]) &&
              c.Q == outputs(c.W, c.KW, c.stride[1], c.padding[1], c.dilation[1]),
          "expected y[N,O,P,Q] of the sizes that x, w and the attributes give");
  return c;
}

template <class T>
const ConvFunctions<T>& functions(bool winograd = false) {
  if constexpr (sizeof(T) == 4) return winograd ? kernels().conv.winograd : kernels().conv.f32;
  else return kernels().conv.f64;
}

void require_winograd(const Conv2d& c, const Array& x) {
  require(x.type() == kFloat32 && c.KH == 3 && c.KW == 3 && c.groups == 1 && c.stride[0] == 1 && c.stride[1] == 1 &&
              c.dilation[0] == 1 && c.dilation[1] == 1,
          "Winograd's algorithm is for float32, kernels of 3 x 3, stride and dilation 1, one group");
}

// Of the arguments from `own` on.
TailArguments tail(PyObject* const* args, Py_ssize_t count, Py_ssize_t own, const Array& out) {
  if (count <= own) return {Py_None, nullptr, 0, out};
  return {args[own], args + own + 1, count - own - 1, out};
}

constexpr char kForward[] =
    "conv2d(x, w, b, out, stride, padding, dilation, groups, then=None, *others)\n\n"
    "out[N,O,P,Q] = the cross-correlation of x[N,C,H,W] with w[O,C/groups,KH,KW], plus b[O] unless it is None.\n"
    "then: a chain that goes on with out and arrays of its shape, in place.";
constexpr char kDx[] =
    "conv2d_dx(dy, w, out, stride, padding, dilation, groups, then=None, *others)\n\n"
    "out[N,C,H,W] = the gradient of conv2d with respect to x.";
constexpr char kDw[] =
    "conv2d_dw(dy, x, out, stride, padding, dilation, groups)\n\n"
    "out[O,C/groups,KH,KW] = the gradient of conv2d with respect to w.";

template <bool Winograd>
PyObject* conv2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count < 8) throw py::type_error(kForward);
    const Array x = operand(require, args[0], 4), w = operand(require, args[1], 4);
    const Array out = operand(require, args[3], 4);
    Conv2d c = describe(x, w, out, args + 4);
    if (Winograd) require_winograd(c, x);
    const TailArguments more = tail(args, count, 8, out);
    c.tail = more.tail();
    check_out(require, out, {&x, &w});
    const void* bias = nullptr;
    if (args[2] != Py_None) {
      const Array b = operand(require, args[2], 1);
      require(b.dim(0) == c.O && b.type() == x.type(), "expected b[O] in the dtype of x");
      check_out(require, out, {&b});
      bias = b.data();
    }
    with_type(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>(Winograd).forward(c, static_cast<const T*>(x.data()), static_cast<const T*>(w.data()),
                                     static_cast<const T*>(bias), static_cast<T*>(out.data()));
    });
    return py::none();
  });
}

template <bool Winograd>
PyObject* conv2d_dx(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count < 7) throw py::type_error(kDx);
    const Array dy = operand(require, args[0], 4), w = operand(require, args[1], 4);
    const Array out = operand(require, args[2], 4);
    Conv2d c = describe(out, w, dy, args + 3);
    if (Winograd) require_winograd(c, dy);
    const TailArguments more = tail(args, count, 7, out);
    c.tail = more.tail();
    check_out(require, out, {&dy, &w});
    with_type(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>(Winograd).dx(c, static_cast<const T*>(dy.data()), static_cast<const T*>(w.data()),
                                static_cast<T*>(out.data()));
    });
    return py::none();
  });
}

template <bool Winograd>
PyObject* conv2d_dw(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 7, kDw);
    const Array dy = operand(require, args[0], 4), x = operand(require, args[1], 4);
    const Array out = operand(require, args[2], 4);
    const Conv2d c = describe(x, out, dy, args + 3);
    if (Winograd) require_winograd(c, x);
    check_out(require, out, {&dy, &x});
    with_type(out, [&](auto zero) {
      using T = decltype(zero);
      functions<T>(Winograd).dw(c, static_cast<const T*>(x.data()), static_cast<const T*>(dy.data()),
                                static_cast<T*>(out.data()));
    });
    return py::none();
  });
}

constexpr char kWinograd[] = "conv2d, by Winograd's algorithm: for 3 x 3 kernels, stride and dilation 1, one group";
constexpr char kDxWinograd[] = "conv2d_dx, by Winograd's algorithm";
constexpr char kDwWinograd[] = "conv2d_dw, by Winograd's algorithm";

PyMethodDef methods[] = {
    method("conv2d", conv2d<false>, kForward),  method("conv2d_winograd", conv2d<true>, kWinograd),
    method("conv2d_dx", conv2d_dx<false>, kDx), method("conv2d_dx_winograd", conv2d_dx<true>, kDxWinograd),
    method("conv2d_dw", conv2d_dw<false>, kDw), method("conv2d_dw_winograd", conv2d_dw<true>, kDwWinograd)};

}  // namespace

void bind_conv(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
