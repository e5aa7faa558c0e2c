// _C.broadcast_to: another view of an array's memory. NumPy's own costs more than a small op. _C.contiguous: a copy in
// row-major order.
#include "bind.h"
#include "strided.h"

namespace dlcore {
namespace {

// The strides that repeat an array of shape x to `ndim` sizes; false where it does not broadcast to them.
bool repeated(const Array& x, int ndim, const Py_intptr_t* shape, Py_intptr_t* strides) {
  const int added = ndim - x.ndim();
  if (added < 0) return false;
  for (int i = 0; i < ndim; ++i) {
    const Index size = i < added ? 1 : x.dim(i - added);
    if (size != 1 && size != shape[i]) return false;
    strides[i] = size == 1 ? 0 : x.stride(i - added);
  }
  return true;
}

PyObject* broadcast_to(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&]() -> py::object {
    if (count != 1 || names == nullptr || PyTuple_GET_SIZE(names) != 1 || !PyTuple_Check(args[1]))
      throw py::type_error("broadcast_to: expected (x, *, shape: tuple)");
    const Array x(args[0], "broadcast_to");
    const Py_ssize_t ndim = PyTuple_GET_SIZE(args[1]);
    require(ndim <= kMaxDims, "broadcast_to: more than 64 dimensions");
    Py_intptr_t shape[kMaxDims], strides[kMaxDims];
    for (Py_ssize_t i = 0; i < ndim; ++i) {
      shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(args[1], i));
      if (shape[i] == -1 && PyErr_Occurred()) throw py::error_already_set();
    }
    require(repeated(x, int(ndim), shape, strides), "broadcast_to: the shapes do not fit");
    auto& api = py::detail::npy_api::get();
    PyObject* const dtype = py::detail::array_proxy(args[0])->descr;
    Py_INCREF(dtype);
    auto view = py::reinterpret_steal<py::object>(
        api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype, int(ndim), shape, strides, x.data(), 0, nullptr));
    if (!view || api.PyArray_SetBaseObject_(view.ptr(), Py_NewRef(args[0])) < 0) throw py::error_already_set();
    return view;
  });
}

PyObject* contiguous(PyObject*, PyObject* source) {
  return guarded([&]() -> py::object {
    const Array x(source, "contiguous");
    if (x.contiguous()) return py::reinterpret_borrow<py::object>(source);
    const Index itemsize = x.itemsize();
    require(itemsize == 1 || itemsize == 2 || itemsize == 4 || itemsize == 8, "contiguous: no copy of such items");
    const std::size_t bytes = count_bytes(x.ndim(), x.dims(), std::size_t(itemsize));
    void* const block = allocate(bytes);
    py::object out = array_on(block, bytes, py::detail::array_proxy(source)->descr, x.ndim(), x.dims());
    StridedMap map;
    map.rank = x.ndim(), map.count = 1, map.out = static_cast<char*>(block), map.out_itemsize = itemsize;
    map.operand[0].data = static_cast<const char*>(x.data()), map.operand[0].itemsize = itemsize;
    for (int i = 0; i < x.ndim(); ++i) map.dim[i] = x.dim(i), map.operand[0].stride[i] = x.stride(i);
    if (bytes > 0) unlocked_if_large(x.size(), [&] { map.copy(); });
    return out;
  });
}

PyMethodDef copy_method = {"contiguous", contiguous, METH_O,
                           "contiguous(x): x, or if it is not contiguous a copy in row-major order"};
PyMethodDef method = {"broadcast_to", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(broadcast_to)),
                      METH_FASTCALL | METH_KEYWORDS, "broadcast_to(x, *, shape: tuple): a read-only view"};

}  // namespace

void bind_views(py::module_& m) {
  add_function(m, &method);
  add_function(m, &copy_method);
}

}  // namespace dlcore
