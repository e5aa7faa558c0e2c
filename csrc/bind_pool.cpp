// Pooling: checks of shapes, dtypes and memory for `pool.h`.
#include "bind_images.h"
#include "isa.h"

namespace dlcore {
namespace {

const Require require("pool2d");

Array positions(PyObject* object) {
  const Array i(object, "pool2d: i");
  const int type = i.type();
  require((type == py::detail::npy_api::NPY_LONG_ && sizeof(long) == 8) || type == py::detail::npy_api::NPY_LONGLONG_,
          "expected positions of dtype int64");
  require(i.ndim() == 4 && i.plain(), "expected contiguous, aligned positions[N,C,P,Q]");
  return i;
}

bool same_shape(const Array& a, const Array& b) {
  bool same = true;
  for (int i = 0; i < 4; ++i) same = same && a.dim(i) == b.dim(i);
  return same;
}

// The pooling of x to y whose kernel, stride and padding are args[0..2].
Pool2d describe(const Array& x, const Array& y, PyObject* const* args) {
  Pool2d p{x.dim(0) * x.dim(1), x.dim(2), x.dim(3), y.dim(2), y.dim(3), {}, {}, {}, {1, 1}, false};
  require(x.type() == y.type(), "arrays differ in dtype");
  require(x.dim(0) == y.dim(0) && x.dim(1) == y.dim(1), "expected x[N,C,H,W] and y[N,C,P,Q]");
  require(p.H < kMost && p.W < kMost && p.P < kMost && p.Q < kMost, "too large");
  read_pair(require, args[0], 1, kMost, p.kernel);
  read_pair(require, args[1], 1, kMost, p.stride);
  read_pair(require, args[2], 0, kMost, p.padding);
  return p;
}

template <class T>
const PoolFunctions<T>& functions() {
  if constexpr (sizeof(T) == 4) return kernels().pool.f32;
  else return kernels().pool.f64;
}

constexpr char kMax[] =
    "max_pool2d(x, y, i, kernel, stride, padding, dilation)\n\n"
    "y[N,C,P,Q] = the largest element of each window of x[N,C,H,W], i[N,C,P,Q] its row-major position in H x W.";
constexpr char kMaxGrad[] =
    "max_pool2d_grad(dy, i, out, kernel, stride, padding, dilation)\n\n"
    "out[N,C,H,W] = dy[N,C,P,Q], each added at its position i.";
constexpr char kAvg[] =
    "avg_pool2d(x, out, kernel, stride, padding, count_padding)\n\n"
    "out[N,C,P,Q] = the mean of each window of x[N,C,H,W].";
constexpr char kAvgGrad[] =
    "avg_pool2d_grad(dy, out, kernel, stride, padding, count_padding)\n\n"
    "out[N,C,H,W] = dy[N,C,P,Q], each spread over its window.";

PyObject* max_pool2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 7, kMax);
    const Array x = operand(require, args[0], 4), y = operand(require, args[1], 4), i = positions(args[2]);
    Pool2d p = describe(x, y, args + 3);
    read_pair(require, args[6], 1, kMost, p.dilation);
    require(same_shape(i, y), "positions and y differ in shape");
    check_out(require, y, {&x, &i});
    check_out(require, i, {&x});
    with_type(x, [&](auto zero) {
      using T = decltype(zero);
      functions<T>().max(p, static_cast<const T*>(x.data()), static_cast<T*>(y.data()),
                         static_cast<std::int64_t*>(i.data()));
    });
    return py::none();
  });
}

PyObject* max_pool2d_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 7, kMaxGrad);
    const Array dy = operand(require, args[0], 4), i = positions(args[1]), dx = operand(require, args[2], 4);
    Pool2d p = describe(dx, dy, args + 3);
    read_pair(require, args[6], 1, kMost, p.dilation);
    require(same_shape(i, dy), "positions and dy differ in shape");
    check_out(require, dx, {&dy, &i});
    with_type(dy, [&](auto zero) {
      using T = decltype(zero);
      functions<T>().max_grad(p, static_cast<const T*>(dy.data()), static_cast<const std::int64_t*>(i.data()),
                              static_cast<T*>(dx.data()));
    });
    return py::none();
  });
}

// The arguments (operand, out, kernel, stride, padding, count_padding); f(pooling, operand, out, zero of their type).
template <class F>
py::object average(PyObject* const* args, bool gradient, F f) {
  const Array from = operand(require, args[0], 4), to = operand(require, args[1], 4);
  Pool2d p = gradient ? describe(to, from, args + 2) : describe(from, to, args + 2);
  p.count_padding = PyObject_IsTrue(args[5]) == 1;
  check_out(require, to, {&from});
  with_type(from, [&](auto zero) { f(p, from.data(), to.data(), zero); });
  return py::none();
}

PyObject* avg_pool2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 6, kAvg);
    return average(args, false, [](const Pool2d& p, const void* x, void* y, auto zero) {
      using T = decltype(zero);
      functions<T>().avg(p, static_cast<const T*>(x), static_cast<T*>(y));
    });
  });
}

PyObject* avg_pool2d_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    require_count(count, 6, kAvgGrad);
    return average(args, true, [](const Pool2d& p, const void* dy, void* dx, auto zero) {
      using T = decltype(zero);
      functions<T>().avg_grad(p, static_cast<const T*>(dy), static_cast<T*>(dx));
    });
  });
}

PyMethodDef methods[] = {method("max_pool2d", max_pool2d, kMax), method("max_pool2d_grad", max_pool2d_grad, kMaxGrad),
                         method("avg_pool2d", avg_pool2d, kAvg), method("avg_pool2d_grad", avg_pool2d_grad, kAvgGrad)};

}  // namespace

void bind_pool(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
