// _C.add(x1, x2) and the like: one function per row of elementwise.h.
#include "bind.h"
#include "isa.h"
#include "strided.h"

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

[[noreturn]] void refuse(const Row& row, const char* what) {
  throw py::type_error(std::string(row.name) + ": " + what);
}

// The operands of one call.
class Operands {
 public:
  Operands(int op, PyObject* const* objects) : op_(op), row_(rows[op]) {
    map_.count = row_.operands;
    for (int k = 0; k < row_.operands; ++k)
      if (is_array(objects[k])) read_array(k, Array(objects[k], row_.name));
    if (type_ < 0) refuse(row_, "expected an array among the operands");
    for (int k = 0; k < row_.operands; ++k)
      if (!is_array(objects[k])) read_scalar(k, objects[k]);
  }

  py::object result() {
    Py_intptr_t shape[kMaxRank];
    for (int i = 0; i < map_.rank; ++i) shape[i] = map_.dim[i];
    map_.out_itemsize = row_.predicate ? 1 : itemsize_;
    void* block;
    const py::object out = new_array(row_.predicate ? kBool : type_, map_.rank, shape, &block);
    map_.out = static_cast<char*>(block);
    const Index size = map_.size();
    if (size > 0) compute(size);
    return out;
  }

 private:
  void read_array(int k, const Array& x) {
    const bool condition = op_ == k_where && k == 0;
    if (!condition && type_ < 0) type_ = x.type(), itemsize_ = type_ == kFloat64 ? 8 : 4;
    if (condition ? x.type() != kBool : x.type() != type_ || (type_ != kFloat32 && type_ != kFloat64) || !x.native())
      refuse(row_, "expected float32 or float64 operands of one dtype");
    if (x.ndim() > map_.rank) grow(x.ndim(), k);
    StridedOperand& to = map_.operand[k];
    to.data = static_cast<const char*>(x.data()), to.itemsize = condition ? 1 : itemsize_;
    const int lead = map_.rank - x.ndim();
    for (int i = 0; i < lead; ++i) to.stride[i] = 0;
    for (int i = 0; i < x.ndim(); ++i) place(k, lead + i, x.dim(i), x.stride(i));
  }

  // Axis i of operand k: sets or meets the size of the output, where 1 meets every size.
  void place(int k, int i, Index dim, Index stride) {
    map_.operand[k].stride[i] = dim == 1 ? 0 : stride;
    if (dim == map_.dim[i] || dim == 1) return;
    if (map_.dim[i] != 1) throw py::value_error(std::string(row_.name) + ": shapes do not broadcast");
    map_.dim[i] = dim;
  }

  // Gives the output, and the operands before `known`, more leading axes.
  void grow(int rank, int known) {
    const int more = rank - map_.rank;
    for (int i = map_.rank - 1; i >= 0; --i) {
      map_.dim[i + more] = map_.dim[i];
      for (int k = 0; k < known; ++k) map_.operand[k].stride[i + more] = map_.operand[k].stride[i];
    }
    for (int i = 0; i < more; ++i) {
      map_.dim[i] = 1;
      for (int k = 0; k < known; ++k) map_.operand[k].stride[i] = 0;
    }
    map_.rank = rank;
  }

  void read_scalar(int k, PyObject* number) {
    const double value = PyFloat_AsDouble(number);
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (type_ == kFloat32) f32_[k] = float(value);
    else f64_[k] = value;
    StridedOperand& to = map_.operand[k];
    to.data = type_ == kFloat32 ? reinterpret_cast<const char*>(&f32_[k]) : reinterpret_cast<const char*>(&f64_[k]);
    to.itemsize = itemsize_;
    for (int i = 0; i < map_.rank; ++i) to.stride[i] = 0;
  }

  void compute(Index size) {
    const Block block = (type_ == kFloat32 ? kernels().elementwise.f32 : kernels().elementwise.f64)[op_];
    map_.coalesce();
    unlocked_if_large(size, [&] { map_.run(block); });
  }

  const int op_;
  const Row& row_;
  int type_ = -1;
  Index itemsize_ = 0;
  float f32_[kMaxOperands];
  double f64_[kMaxOperands];
  StridedMap map_;
};

template <int op>
PyObject* call(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != rows[op].operands) refuse(rows[op], "wrong number of operands");
    return Operands(op, args).result();
  });
}

#define DL_METHOD(name, ...) \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call<k_##name>)), METH_FASTCALL, nullptr},
PyMethodDef methods[] = {DL_MAPS(DL_METHOD) DL_COMPARISONS(DL_METHOD) DL_METHOD(where)};

}  // namespace

void bind_elementwise(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, &method);
}

}  // namespace dlcore
