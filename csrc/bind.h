// What the bind*.cpp files share: Python errors, the fields of NumPy arrays, new arrays from the caching allocator.
// Only bind*.cpp know pybind11. Functions that arrays pass through at every op take their arguments by CPython's
// vectorcall, for its lower overhead.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "memory.h"
#include "parallel.h"

namespace py = pybind11;

namespace dlcore {

// ---- errors: a function called by CPython itself must not let a C++ exception out

template <class F>
PyObject* guarded(F f) noexcept {
  try {
    return f().release().ptr();
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::value_error& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const py::type_error& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

inline void require(bool condition, const char* message) {
  if (!condition) throw py::value_error(message);
}

// ---- arrays

constexpr int kFloat32 = py::detail::npy_api::NPY_FLOAT_, kFloat64 = py::detail::npy_api::NPY_DOUBLE_;
constexpr int kBool = py::detail::npy_api::NPY_BOOL_;
constexpr int kInt64 = sizeof(long) == 8 ? py::detail::npy_api::NPY_LONG_ : py::detail::npy_api::NPY_LONGLONG_;

inline bool is_array(PyObject* object) { return py::detail::npy_api::get().PyArray_Check_(object); }

// A view of a NumPy array's fields, which are read without a call.
class Array {
 public:
  Array(PyObject* object, const char* name) {
    if (!is_array(object)) throw py::type_error(std::string(name) + ": expected a NumPy array");
    fields_ = py::detail::array_proxy(object);
    type_ = py::detail::array_descriptor_proxy(fields_->descr)->type_num;
  }
  int ndim() const { return fields_->nd; }
  int type() const { return type_; }
  Index dim(int i) const { return fields_->dimensions[i]; }
  const Py_intptr_t* dims() const { return fields_->dimensions; }
  Index size(int first = 0) const {  // of the axes from `first` on
    Index n = 1;
    for (int i = first; i < ndim(); ++i) n *= dim(i);
    return n;
  }
  Index itemsize() const { return py::reinterpret_borrow<py::dtype>(fields_->descr).itemsize(); }  // bytes
  bool contiguous() const { return fields_->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_; }
  Index stride(int i) const { return fields_->strides[i]; }  // bytes
  bool writeable() const { return fields_->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_; }
  bool aligned() const { return fields_->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_; }
  bool native() const { return py::detail::array_descriptor_proxy(fields_->descr)->byteorder != '>'; }
  bool plain() const { return contiguous() && aligned() && native(); }
  void* data() const { return fields_->data; }

 private:
  py::detail::PyArray_Proxy* fields_;
  int type_;
};

// ---- memory

inline void release_capsule(PyObject* capsule) {
  const auto bytes = reinterpret_cast<std::size_t>(PyCapsule_GetContext(capsule));
  release(PyCapsule_GetPointer(capsule, nullptr), bytes);
}

// An array on `block`, which it owns.
inline py::object array_on(void* block, std::size_t bytes, PyObject* dtype, int ndim, const Py_intptr_t* shape) {
  auto owner = py::reinterpret_steal<py::object>(PyCapsule_New(block, nullptr, release_capsule));
  if (!owner) {
    release(block, bytes);
    throw py::error_already_set();
  }
  PyCapsule_SetContext(owner.ptr(), reinterpret_cast<void*>(bytes));
  auto& api = py::detail::npy_api::get();
  const int flags = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
                    py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  Py_INCREF(dtype);
  auto array = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype, ndim, shape, nullptr, block, flags, nullptr));
  if (!array || api.PyArray_SetBaseObject_(array.ptr(), owner.release().ptr()) < 0) throw py::error_already_set();
  return array;
}

constexpr int kMaxDims = 64;  // NumPy's

inline std::size_t count_bytes(int ndim, const Py_intptr_t* dims, std::size_t itemsize) {
  std::size_t bytes = itemsize;
  for (int i = 0; i < ndim; ++i) {
    if (dims[i] == 0) return 0;
    if (__builtin_mul_overflow(bytes, std::size_t(dims[i]), &bytes)) throw std::bad_alloc();
  }
  return bytes;
}

inline PyObject* descriptor(int type) {
  static PyObject* const float32 = py::dtype(kFloat32).release().ptr();
  static PyObject* const float64 = py::dtype(kFloat64).release().ptr();
  static PyObject* const boolean = py::dtype(kBool).release().ptr();
  static PyObject* const int64 = py::dtype(kInt64).release().ptr();
  return type == kFloat32 ? float32 : type == kFloat64 ? float64 : type == kBool ? boolean : int64;
}

// An uninitialised array of one of the types above, and its memory.
inline py::object new_array(int type, int ndim, const Py_intptr_t* shape, void** data) {
  const std::size_t bytes = count_bytes(ndim, shape, type == kBool ? 1 : type == kFloat32 ? 4 : 8);
  *data = allocate(bytes);
  return array_on(*data, bytes, descriptor(type), ndim, shape);
}

// ---- functions

constexpr Index kUnlock = 32768;  // elements for which others may have the interpreter

template <class F>
void unlocked_if_large(Index size, const F& f) {
  if (size < kUnlock) return f();
  py::gil_scoped_release unlocked;
  f();
}

inline void add_function(py::module_& m, PyMethodDef* method) {
  m.attr(method->ml_name) =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(method, nullptr, m.attr("__name__").ptr()));
}

}  // namespace dlcore
