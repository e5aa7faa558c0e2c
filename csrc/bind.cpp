// The Python module dlcore._C: one bind_<family>(m) per kernel family.
#include "bind.h"

#include <pybind11/stl.h>

#include "isa.h"
#include "parallel.h"

namespace dlcore {

void bind_apply(py::module_& m);
void bind_attention(py::module_& m);
void bind_cast(py::module_& m);
void bind_conv(py::module_& m);
void bind_pool(py::module_& m);
void bind_elementwise(py::module_& m);
void bind_gather(py::module_& m);
void bind_join(py::module_& m);
void bind_norm(py::module_& m);
void bind_optim(py::module_& m);
void bind_launcher(py::module_& m);
void bind_random(py::module_& m);
void bind_recurrent(py::module_& m);
void bind_reduce(py::module_& m);
void bind_replay(py::module_& m);
void bind_scan(py::module_& m);
void bind_softmax(py::module_& m);
void bind_views(py::module_& m);
void bind_walk(py::module_& m);

namespace {

// ---- memory

int read_shape(PyObject* shape, Py_intptr_t* dims) {
  if (!PyTuple_Check(shape)) throw py::type_error("empty: shape must be a tuple of integers");
  const Py_ssize_t n = PyTuple_GET_SIZE(shape);
  require(n <= kMaxDims, "empty: more than 64 dimensions");
  for (Py_ssize_t i = 0; i < n; ++i) {
    dims[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(shape, i), PyExc_OverflowError);
    if (dims[i] == -1 && PyErr_Occurred()) throw py::error_already_set();
    require(dims[i] >= 0, "empty: negative dimension");
  }
  return int(n);
}

PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != 2) throw py::type_error("empty: expected (shape, dtype)");
    Py_intptr_t dims[kMaxDims];
    const int ndim = read_shape(args[0], dims);
    const py::dtype dtype = py::detail::npy_api::get().PyArrayDescr_Check_(args[1])
                                ? py::reinterpret_borrow<py::dtype>(args[1])
                                : py::dtype::from_args(py::reinterpret_borrow<py::object>(args[1]));
    if (dtype.flags() & 1) throw py::type_error("empty: arrays of Python objects are not supported");
    const std::size_t bytes = count_bytes(ndim, dims, std::size_t(dtype.itemsize()));
    return array_on(allocate(bytes), bytes, dtype.ptr(), ndim, dims);
  });
}

PyMethodDef empty_method = {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)), METH_FASTCALL,
                            "empty(shape: tuple, dtype) -> numpy.ndarray\n\n"
                            "Uninitialised C-contiguous array, 64-byte aligned, from the caching allocator."};

void bind_memory(py::module_& m) {
  add_function(m, &empty_method);
  m.def("memory_stats", [] {
    const MemoryStats s = memory_stats();
    py::dict d;
    d["in_use"] = s.in_use;
    d["cached"] = s.cached;
    d["peak"] = s.peak;
    d["limit"] = s.limit;
    return d;
  });
  m.def("empty_cache", empty_cache);
  m.def("reset_peak", reset_peak);
  m.def("set_cache_limit", set_cache_limit, py::arg("bytes"));
}

// ---- threads and instruction sets

void bind_machine(py::module_& m) {
  m.attr("version") = DL_VERSION;
  m.def("num_threads", num_threads);
  m.def(
      "set_num_threads",
      [](int n) {
        require(n >= 1 && n <= 1024, "set_num_threads: expected 1 to 1024");
        py::gil_scoped_release unlocked;
        set_num_threads(n);
      },
      py::arg("n"));
  m.def("isa", [] { return std::string(isa()); });
  m.def("available_isas", available_isas);
  m.def(
      "set_isa",
      [](const std::string& name) {
        if (!set_isa(name)) throw py::value_error("set_isa: '" + name + "' is not available on this machine");
      },
      py::arg("name"));
  m.def(
      "fma_peak",
      [](double seconds) {
        py::gil_scoped_release unlocked;
        return kernels().gemm.fma_peak(seconds) * 1e-9;
      },
      py::arg("seconds") = 0.2);
}

// ---- gemm

Activation activation_of(PyObject* name) {
  static const char* const names[] = {"none", "relu", "gelu", "tanh", "sigmoid"};
  if (!PyUnicode_Check(name)) throw py::type_error("matmul: activation must be a string");
  for (int i = 0; i < 5; ++i)
    if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) return Activation(i);
  throw py::value_error("matmul: activation must be one of none, relu, gelu, tanh, sigmoid");
}

// Elements between neighbours along axis i of an array; an axis of length 1 may say anything.
template <class T>
Index step(const Array& x, int i) {
  if (x.dim(i) <= 1) return 0;
  require(x.stride(i) % Index(sizeof(T)) == 0, "matmul: a stride is not a multiple of the item size");
  return x.stride(i) / Index(sizeof(T));
}

struct Span {
  const char *begin, *end;
};
Span span_of(const Array& x, Index itemsize) {
  Span s{static_cast<const char*>(x.data()), static_cast<const char*>(x.data())};
  for (int i = 0; i < x.ndim(); ++i) {
    if (x.dim(i) == 0) return {s.begin, s.begin};
    (x.stride(i) < 0 ? s.begin : s.end) += (x.dim(i) - 1) * x.stride(i);
  }
  s.end += itemsize;
  return s;
}
bool overlap(const Span& a, const Span& b) { return a.begin < b.end && b.begin < a.end; }

struct MatmulArguments {
  PyObject *a, *b, *out = Py_None, *bias = Py_None, *activation = nullptr, *accumulate = nullptr;
};

template <class T>
void matmul(const Array& a, const Array& b, const Array& out, const MatmulArguments& args) {
  const int nd = out.ndim(), r = nd - 2, c = nd - 1;
  Matmul<T> p{};
  p.batch = nd == 3 ? out.dim(0) : 1;
  p.M = a.dim(r), p.K = a.dim(c), p.N = b.dim(c);
  p.a = static_cast<const T*>(a.data()), p.a_row = step<T>(a, r), p.a_col = step<T>(a, c);
  p.b = static_cast<const T*>(b.data()), p.b_row = step<T>(b, r), p.b_col = step<T>(b, c);
  p.c = static_cast<T*>(out.data()), p.c_row = step<T>(out, r);
  if (nd == 3) p.a_batch = step<T>(a, 0), p.b_batch = step<T>(b, 0), p.c_batch = step<T>(out, 0);
  require(b.dim(r) == p.K && out.dim(r) == p.M && out.dim(c) == p.N, "matmul: expected a[M,K] b[K,N] out[M,N]");
  if (nd == 3)
    require((a.dim(0) == p.batch || a.dim(0) == 1) && (b.dim(0) == p.batch || b.dim(0) == 1),
            "matmul: expected a[B,M,K] b[B,K,N] out[B,M,N]");
  if (p.batch == 0 || p.M == 0 || p.N == 0) return;
  require(out.dim(c) <= 1 || step<T>(out, c) == 1, "matmul: rows of out must be contiguous");
  require(out.dim(r) <= 1 || p.c_row >= p.N, "matmul: rows of out overlap");
  require(p.batch <= 1 || p.c_batch >= (p.M - 1) * p.c_row + p.N, "matmul: matrices of out overlap");
  const Span target = span_of(out, sizeof(T));
  require(!overlap(target, span_of(a, sizeof(T))) && !overlap(target, span_of(b, sizeof(T))),
          "matmul: out overlaps an operand");
  if (args.bias != Py_None) {
    const Array bias(args.bias, "matmul: bias");
    require(bias.type() == out.type() && bias.aligned() && bias.native(), "matmul: bias must have the dtype of out");
    p.bias_per_row = bias.ndim() == 2;
    require(bias.ndim() == 1 ? bias.dim(0) == p.N : bias.ndim() == 2 && bias.dim(0) == p.M && bias.dim(1) == 1,
            "matmul: expected bias[N] or bias[M,1]");
    require(bias.dim(0) <= 1 || step<T>(bias, 0) == 1, "matmul: bias must be contiguous");
    require(!overlap(target, span_of(bias, sizeof(T))), "matmul: out overlaps bias");
    p.bias = static_cast<const T*>(bias.data());
  }
  p.activation = args.activation == nullptr ? Activation::none : activation_of(args.activation);
  p.accumulate = args.accumulate != nullptr && PyObject_IsTrue(args.accumulate) == 1;
  py::gil_scoped_release unlocked;
  if constexpr (sizeof(T) == 4) kernels().gemm.f32(p);
  else kernels().gemm.f64(p);
}

MatmulArguments read_matmul(PyObject* const* args, Py_ssize_t count, PyObject* names) {
  static const char* const keywords[] = {"a", "b", "out", "bias", "activation", "accumulate"};
  PyObject* values[6] = {nullptr, nullptr, Py_None, Py_None, nullptr, nullptr};
  if (count > 6) throw py::type_error("matmul: too many arguments");
  for (Py_ssize_t i = 0; i < count; ++i) values[i] = args[i];
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  for (Py_ssize_t i = 0; i < named; ++i) {
    int k = 0;
    while (k < 6 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), keywords[k]) != 0) ++k;
    if (k == 6 || k < count) throw py::type_error("matmul: unexpected or repeated keyword argument");
    values[k] = args[count + i];
  }
  if (values[0] == nullptr || values[1] == nullptr)
    throw py::type_error("matmul: expected (a, b, out=None, bias=None, activation='none', accumulate=False)");
  return {values[0], values[1], values[2], values[3], values[4], values[5]};
}

// For the product of matrices or of stacks of them, of which one may hold a single one.
py::object product_array(const Array& a, const Array& b) {
  const int nd = a.ndim();
  const Py_intptr_t shape[] = {b.dim(0) == 1 ? a.dim(0) : b.dim(0), a.dim(nd - 2), b.dim(nd - 1)};
  void* data;
  return new_array(a.type(), nd, shape + 3 - nd, &data);
}

PyObject* matmul_python(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&]() -> py::object {
    const MatmulArguments given = read_matmul(args, count, names);
    const Array a(given.a, "matmul: a"), b(given.b, "matmul: b");
    const int nd = a.ndim();
    require(nd == 2 || nd == 3, "matmul: expected 2 or 3 dimensions");
    require(a.type() == kFloat32 || a.type() == kFloat64, "matmul: expected float32 or float64");
    require(b.ndim() == nd, "matmul: a, b and out differ in dimensions");
    const bool fresh = given.out == Py_None;
    const bool adds = given.accumulate != nullptr && PyObject_IsTrue(given.accumulate) == 1;
    require(!fresh || !adds, "matmul: there is no out to accumulate in");
    const py::object made = fresh ? product_array(a, b) : py::reinterpret_borrow<py::object>(given.out);
    const Array out(made.ptr(), "matmul: out");
    require(out.ndim() == nd, "matmul: a, b and out differ in dimensions");
    require(a.type() == out.type() && b.type() == out.type(), "matmul: a, b and out differ in dtype");
    require(a.native() && b.native() && out.native(), "matmul: expected native byte order");
    require(a.aligned() && b.aligned() && out.aligned(), "matmul: expected aligned arrays");
    require(out.writeable(), "matmul: out is read-only");
    out.type() == kFloat32 ? matmul<float>(a, b, out, given) : matmul<double>(a, b, out, given);
    return made;
  });
}

PyMethodDef matmul_method = {
    "matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(matmul_python)), METH_FASTCALL | METH_KEYWORDS,
    "matmul(a, b, out=None, bias=None, activation='none', accumulate=False)\n\n"
    "out = act(a @ b + bias), or act(out + a @ b + bias): float32 or float64, a[M,K] b[K,N]\n"
    "out[M,N], new if None, or with a batch axis before (of a and b it may be 1), any strides for a and b.\n"
    "bias[N] or bias[M,1]; activation: none, relu, gelu, tanh, sigmoid."};

void bind_gemm(py::module_& m) { add_function(m, &matmul_method); }

}  // namespace
}  // namespace dlcore

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native CPU kernels of dlcore.";
  dlcore::bind_machine(m);
  dlcore::bind_memory(m);
  dlcore::bind_apply(m);
  dlcore::bind_attention(m);
  dlcore::bind_cast(m);
  dlcore::bind_conv(m);
  dlcore::bind_elementwise(m);
  dlcore::bind_gather(m);
  dlcore::bind_join(m);
  dlcore::bind_norm(m);
  dlcore::bind_optim(m);
  dlcore::bind_launcher(m);
  dlcore::bind_random(m);
  dlcore::bind_recurrent(m);
  dlcore::bind_reduce(m);
  dlcore::bind_scan(m);
  dlcore::bind_softmax(m);
  dlcore::bind_gemm(m);
  dlcore::bind_pool(m);
  dlcore::bind_replay(m);
  dlcore::bind_views(m);
  dlcore::bind_walk(m);
}
