// _C.Driver, _C.Function: kernels of a CUDA driver library from Python.
#include <cstring>
#include <memory>
#include <utility>

#include "bind.h"
#include "launcher.h"

namespace dlcore {
namespace {

constexpr std::size_t kMaxParameters = 64, kMaxOpened = 1024, kMaxBytes = 4096;  // bytes: CUDA's own limit

// The parameter block of one launch.
class Arguments {
 public:
  explicit Arguments(const Function& function) : function_(function) {}

  void fill(PyObject* const* values, std::size_t count) {
    const auto& sizes = function_.sizes();
    if (count != sizes.size() || count > kMaxParameters)
      throw py::type_error(function_.name() + ": takes " + std::to_string(sizes.size()) + " arguments; got " +
                           std::to_string(count));
    for (std::size_t i = 0; i < count; ++i) add(i, values[i], sizes[i]);
  }
  // Lets the kernel touch arrays whose addresses stand inside a struct.
  void open(py::handle arrays) {
    if (!function_.driver().emulated()) return;
    for (py::handle array : arrays) {
      if (!is_array(array.ptr())) continue;
      if (opened_count_ == kMaxOpened) throw py::value_error(function_.name() + ": too many arrays");
      host_pointer(opened_count_, array.ptr());
    }
  }
  Arguments(const Arguments&) = delete;
  ~Arguments() {
    while (opened_count_) function_.driver().close(opened_[--opened_count_]);
  }
  void** parameters() { return parameters_; }

 private:
  void add(std::size_t i, PyObject* value, std::size_t size) {
    used_ = (used_ + 7) & ~std::size_t{7};
    if (used_ + size > kMaxBytes) throw py::type_error(function_.name() + ": more than 4096 bytes of arguments");
    parameters_[i] = bytes_ + used_;
    used_ += size;
    if (is_array(value)) return put(i, "P", size, host_pointer(i, value));
    if (value == Py_None) return put(i, "P", size, static_cast<void*>(nullptr));
    if (PyLong_Check(value)) return integer(i, value, size);
    if (PyFloat_Check(value)) return real(i, PyFloat_AS_DOUBLE(value), size);
    if (PyBytes_Check(value)) return structure(i, value, size);
    put(i, "P", size, device_pointer(value));
  }

  template <class T>
  void put(std::size_t i, const char* kinds, std::size_t size, T value) {
    const char kind = function_.kinds().empty() ? kinds[0] : function_.kinds()[i];
    if (size != sizeof(T) || !std::strchr(kinds, kind)) throw wrong(i, kinds);
    std::memcpy(parameters_[i], &value, sizeof(T));
  }

  py::type_error wrong(std::size_t i, const char* kinds) const {
    return py::type_error(function_.name() + ": argument " + std::to_string(i) + " is of kind " + kinds + " but the " +
                          "kernel takes " + std::to_string(function_.sizes()[i]) + " bytes" +
                          (function_.kinds().empty() ? "" : std::string(" of kind ") + function_.kinds()[i]));
  }

  void integer(std::size_t i, PyObject* value, std::size_t size) {
    const long long number = PyLong_AsLongLong(value);
    if (number == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (size == 8) return put(i, "l", size, number);
    if (number < INT32_MIN || number > UINT32_MAX)
      throw py::type_error(function_.name() + ": argument " + std::to_string(i) + " does not fit 32 bits");
    put(i, "i", size, static_cast<std::uint32_t>(number));
  }

  void real(std::size_t i, double value, std::size_t size) {
    if (size == 8) return put(i, "d", size, value);
    put(i, "f", size, static_cast<float>(value));
  }

  void structure(std::size_t i, PyObject* value, std::size_t size) {
    if (static_cast<std::size_t>(PyBytes_GET_SIZE(value)) != size) throw wrong(i, "s");
    std::memcpy(parameters_[i], PyBytes_AS_STRING(value), size);
  }

  void* host_pointer(std::size_t i, PyObject* value) {
    const Array array(value, "launch");
    if (!function_.driver().emulated()) throw py::type_error(function_.name() + ": got an array in host memory");
    const auto [low, bytes] = extent(array, py::reinterpret_borrow<py::array>(value).itemsize());
    static constexpr const char* kNames[] = {"argument 0", "argument 1", "argument 2", "argument 3",      "argument 4",
                                             "argument 5", "argument 6", "argument 7", "a later argument"};
    function_.driver().open(low, static_cast<std::size_t>(bytes), kNames[i < 8 ? i : 8]);
    opened_[opened_count_++] = low;
    return array.data();
  }

  // Lowest address and number of bytes of an array of any strides.
  static std::pair<char*, Index> extent(const Array& array, Index itemsize) {
    char* low = static_cast<char*>(array.data());
    Index span = array.size() ? itemsize : 0;
    for (int axis = 0; span && axis < array.ndim(); ++axis) {
      const Index reach = (array.dim(axis) - 1) * array.stride(axis);
      low += reach < 0 ? reach : 0;
      span += reach < 0 ? -reach : reach;
    }
    return {low, span};
  }

  static void* device_pointer(PyObject* value) {  // of a CuPy array: value.data.ptr
    static PyObject* const kData = PyUnicode_InternFromString("data");
    static PyObject* const kPointer = PyUnicode_InternFromString("ptr");
    const auto data = py::reinterpret_steal<py::object>(PyObject_GetAttr(value, kData));
    const auto pointer = py::reinterpret_steal<py::object>(data ? PyObject_GetAttr(data.ptr(), kPointer) : nullptr);
    const std::uintptr_t address = pointer ? PyLong_AsSize_t(pointer.ptr()) : 0;
    if (PyErr_Occurred()) throw py::error_already_set();
    return reinterpret_cast<void*>(address);
  }

  const Function& function_;
  std::size_t used_ = 0, opened_count_ = 0;
  void* parameters_[kMaxParameters];
  const void* opened_[kMaxOpened];
  alignas(16) unsigned char bytes_[kMaxBytes];
};

Dim3 dim3_of(PyObject* tuple, const char* what) {
  unsigned found[3] = {1, 1, 1};
  const bool fits = PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) <= 3;
  for (Py_ssize_t i = 0; fits && i < PyTuple_GET_SIZE(tuple); ++i) {
    const unsigned long value = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(tuple, i));
    if (PyErr_Occurred()) throw py::error_already_set();
    if (value == 0 || value > INT32_MAX) throw py::value_error(std::string(what) + " out of range");
    found[i] = static_cast<unsigned>(value);
  }
  if (!fits) throw py::type_error(std::string(what) + " must be a tuple of at most three ints");
  return {found[0], found[1], found[2]};
}

// launch(grid, block, shared, stream, cooperative, touched, *arguments)
void launch(const Function& function, py::handle grid, py::handle block, unsigned shared, std::uintptr_t stream,
            bool cooperative, py::handle touched, const py::args& values) {
  Arguments arguments(function);
  arguments.fill(&PyTuple_GET_ITEM(values.ptr(), 0), static_cast<std::size_t>(values.size()));
  if (!touched.is_none()) arguments.open(touched);
  function.launch(dim3_of(grid.ptr(), "grid"), dim3_of(block.ptr(), "block"), shared, reinterpret_cast<void*>(stream),
                  arguments.parameters(), cooperative);
}

std::unique_ptr<Function> function_of(const Driver& driver, std::uintptr_t module, const std::string& name) {
  return std::make_unique<Function>(driver, reinterpret_cast<void*>(module), name);
}

std::uintptr_t load(const Driver& driver, const py::bytes& image) {
  return reinterpret_cast<std::uintptr_t>(driver.load(image));
}

}  // namespace

void bind_launcher(py::module_& m) {
  py::class_<Driver>(m, "Driver")
      .def(py::init<const std::string&, int>(), py::arg("path"), py::arg("device") = 0)
      .def("attribute", &Driver::attribute)
      .def("load", load, "A module of a fatbin, cubin or PTX image.")
      .def("function", function_of, py::keep_alive<0, 1>())
      .def("synchronize", &Driver::synchronize, py::call_guard<py::gil_scoped_release>());
  py::class_<Function>(m, "Function")
      .def_property_readonly("name", &Function::name)
      .def_property_readonly("sizes", &Function::sizes)
      .def_property_readonly("kinds", &Function::kinds)
      .def("attribute", &Function::attribute)
      .def("set_attribute", &Function::set_attribute)
      .def("blocks_per_multiprocessor", &Function::blocks_per_multiprocessor)
      .def("launch", launch);
}

}  // namespace dlcore
