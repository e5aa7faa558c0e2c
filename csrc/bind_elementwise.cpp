// _C.add(x1, x2) and the like: one function per row of elementwise.h; _C.chain: several of them as one.
#include <pybind11/stl.h>

#include <memory>

#include "bind_tail.h"
#include "isa.h"

namespace dlcore {
namespace {

struct Row {
  const char* name;
  int operands;
  bool predicate;  // whether the output is bool
};

const Row rows[] = {
#define DL_MAP_ROW(name, count, ...) {#name, count, false},
#define DL_COMPARISON_ROW(name, ...) {#name, 2, true},
    DL_MAPS(DL_MAP_ROW) DL_COMPARISONS(DL_COMPARISON_ROW){"where", 3, false}};

[[noreturn]] void refuse(const char* name, const char* what) { throw py::type_error(std::string(name) + ": " + what); }

// The operands of one call: arrays of one dtype, and numbers.
class Operands {
 public:
  // condition: whether the first one is bool.
  Operands(const char* name, PyObject* const* objects, int count, bool condition) : name_(name), condition_(condition) {
    map.count = count;
    for (int k = 0; k < count; ++k)
      if (is_array(objects[k])) read_array(k, Array(objects[k], name));
    if (type_ < 0) refuse(name, "expected an array among the operands");
    for (int k = 0; k < count; ++k)
      if (!is_array(objects[k])) read_scalar(k, objects[k]);
    for (int i = 0; i < map.rank; ++i) shape_[i] = map.dim[i];
    rank_ = map.rank;
  }
  Operands(const Operands&) = delete;

  int type() const { return type_; }
  Index itemsize() const { return type_ == kFloat64 ? 8 : 4; }

  // A new array of the shape that the operands have together.
  py::object output(int type, char** data) const {
    void* block;
    py::object out = new_array(type, rank_, shape_, &block);
    *data = static_cast<char*>(block);
    return out;
  }

  StridedMap map;

 private:
  void read_array(int k, const Array& x) {
    const bool condition = condition_ && k == 0;
    if (!condition && type_ < 0) type_ = x.type();
    if (condition ? x.type() != kBool : x.type() != type_ || (type_ != kFloat32 && type_ != kFloat64) || !x.native())
      refuse(name_, "expected float32 or float64 operands of one dtype");
    if (x.ndim() > map.rank) grow(x.ndim(), k);
    StridedOperand& to = map.operand[k];
    to.data = static_cast<const char*>(x.data()), to.itemsize = condition ? 1 : itemsize();
    const int lead = map.rank - x.ndim();
    for (int i = 0; i < lead; ++i) to.stride[i] = 0;
    for (int i = 0; i < x.ndim(); ++i) place(k, lead + i, x.dim(i), x.stride(i));
  }

  // Axis i of operand k: sets or meets the size of the output, where 1 meets every size.
  void place(int k, int i, Index dim, Index stride) {
    map.operand[k].stride[i] = dim == 1 ? 0 : stride;
    if (dim == map.dim[i] || dim == 1) return;
    if (map.dim[i] != 1) throw py::value_error(std::string(name_) + ": shapes do not broadcast");
    map.dim[i] = dim;
  }

  // Gives the output, and the operands before `known`, more leading axes.
  void grow(int rank, int known) {
    const int more = rank - map.rank;
    for (int i = map.rank - 1; i >= 0; --i) {
      map.dim[i + more] = map.dim[i];
      for (int k = 0; k < known; ++k) map.operand[k].stride[i + more] = map.operand[k].stride[i];
    }
    for (int i = 0; i < more; ++i) {
      map.dim[i] = 1;
      for (int k = 0; k < known; ++k) map.operand[k].stride[i] = 0;
    }
    map.rank = rank;
  }

  void read_scalar(int k, PyObject* number) {
    const double value = PyFloat_AsDouble(number);
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (type_ == kFloat32) f32_[k] = float(value);
    else f64_[k] = value;
    StridedOperand& to = map.operand[k];
    to.data = type_ == kFloat32 ? reinterpret_cast<const char*>(&f32_[k]) : reinterpret_cast<const char*>(&f64_[k]);
    to.itemsize = itemsize();
    for (int i = 0; i < map.rank; ++i) to.stride[i] = 0;
  }

  const char* const name_;
  const bool condition_;
  int type_ = -1, rank_ = 0;
  Py_intptr_t shape_[kMaxRank];
  float f32_[kMaxOperands];
  double f64_[kMaxOperands];
};

template <class F>
void compute(StridedMap& map, const F& f) {
  const Index size = map.size();
  if (size == 0) return;
  map.coalesce();
  unlocked_if_large(size, [&] { map.run(f); });
}

// ---- one function

__attribute__((noinline)) PyObject* run_function(int op, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    const Row& row = rows[op];
    if (count != row.operands) refuse(row.name, "wrong number of operands");
    Operands x(row.name, args, row.operands, op == k_where);
    const py::object out = x.output(row.predicate ? kBool : x.type(), &x.map.out);
    x.map.out_itemsize = row.predicate ? 1 : x.itemsize();
    compute(x.map, (x.type() == kFloat32 ? kernels().elementwise.f32 : kernels().elementwise.f64)[op]);
    return out;
  });
}

template <int op>
PyObject* call(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return run_function(op, args, count);
}

#define DL_METHOD(name, ...) \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call<k_##name>)), METH_FASTCALL, nullptr},
PyMethodDef methods[] = {DL_MAPS(DL_METHOD) DL_COMPARISONS(DL_METHOD) DL_METHOD(where)};

// ---- chains

PyObject* run_chain(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    Chain chain = *static_cast<const Chain*>(PyCapsule_GetPointer(self, kChain));
    if (count != chain.operands) refuse("chain", "wrong number of operands");
    Operands x("chain", args, chain.operands, false);
    char* data[kMaxSteps];
    py::object outs[kMaxSteps];
    int outputs = 0;
    for (int s = 0; s < chain.steps; ++s)
      if (chain.step[s].output) outs[outputs] = x.output(x.type(), &data[outputs]), ++outputs;
    x.map.out = data[0], x.map.out_itemsize = x.itemsize();
    chain.prepare(x.itemsize(), data);
    compute(x.map, chain);
    if (outputs == 1) return outs[0];
    py::tuple all(outputs);
    for (int i = 0; i < outputs; ++i) all[std::size_t(i)] = outs[i];
    return all;
  });
}

PyMethodDef run_method = {"chain", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_chain)),
                          METH_FASTCALL, nullptr};

int function_of(const std::string& name) {
  for (int op = 0; op < k_where; ++op)
    if (name == rows[op].name && !rows[op].predicate) return op;
  refuse("chain", "unknown function");
}

py::object make_chain(int operands, const py::sequence& steps, const py::sequence& outputs) {
  require(operands >= 1 && operands <= kMaxOperands, "chain: too many operands");
  require(steps.size() >= 1 && steps.size() <= kMaxSteps, "chain: too many steps");
  require(outputs.size() >= 1, "chain: no output");
  auto chain = std::make_unique<Chain>();
  chain->operands = operands;
  for (const py::handle& given : steps) {
    const auto [name, from] = given.cast<std::pair<std::string, std::vector<int>>>();
    Step& step = chain->step[chain->steps];
    step.function = function_of(name), step.operands = rows[step.function].operands, step.output = false;
    require(int(from.size()) == step.operands, "chain: wrong number of operands of a step");
    for (int k = 0; k < step.operands; ++k) {
      require(from[std::size_t(k)] >= 0 && from[std::size_t(k)] < operands + chain->steps, "chain: no such value");
      step.from[k] = from[std::size_t(k)];
    }
    ++chain->steps;
  }
  for (const py::handle& given : outputs) {
    const int value = given.cast<int>();
    require(value >= operands && value < operands + chain->steps, "chain: an output must be the result of a step");
    chain->step[value - operands].output = true;
  }
  const py::capsule self(chain.release(), kChain,
                         [](PyObject* capsule) { delete static_cast<Chain*>(PyCapsule_GetPointer(capsule, kChain)); });
  PyObject* const function = PyCFunction_New(&run_method, self.ptr());
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace

void bind_elementwise(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
  m.def("chain", &make_chain, py::arg("operands"), py::arg("steps"), py::arg("outputs"),
        "chain(operands, steps, outputs): a function of so many operands, arrays or numbers, that runs element-wise\n"
        "functions in turn. steps: (name, values) pairs; values count the operands first, then the results of steps;\n"
        "outputs: the values that it returns, in ascending order, a tuple if they are several.");
}

}  // namespace dlcore
