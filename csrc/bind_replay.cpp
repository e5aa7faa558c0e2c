// Captured programs (dlcore/graph.py), each in one call: _C.program runs the lines of one, _C.replay is the short way
// into it, for calls like the recorded one. What must happen stands in graph.py; this file only repeats it faster.
//
// The functions made here own a list of the Python objects that they use, so that the garbage collector sees them; its
// last item is a capsule with the C++ side, which borrows them.
#include <memory>
#include <vector>

#include "bind_house.h"

namespace dlcore {
namespace {

std::vector<Py_ssize_t> numbers(PyObject* sequence) {
  std::vector<Py_ssize_t> found;
  for (const py::handle x : py::reinterpret_borrow<py::sequence>(sequence)) found.push_back(number(x.ptr()));
  return found;
}

// The item of a tuple, which has `size` of them.
PyObject* item(PyObject* tuple, Py_ssize_t i, Py_ssize_t size) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != size)
    throw py::type_error("replay: expected a tuple of " + std::to_string(size));
  return PyTuple_GET_ITEM(tuple, i);
}

// A function of Python with a T behind it.
template <class T>
py::object function_of(PyMethodDef* method, std::unique_ptr<T> behind, const py::list& objects) {
  const auto release = [](PyObject* capsule) { delete static_cast<T*>(PyCapsule_GetPointer(capsule, nullptr)); };
  const py::object capsule = owned(PyCapsule_New(behind.get(), nullptr, release));
  behind.release();
  py::list all = owned(PySequence_List(objects.ptr()));
  all.append(capsule);
  return owned(PyCFunction_New(method, all.ptr()));
}

// It; null once the garbage collector has emptied the list.
template <class T>
const T* behind(PyObject* objects) {
  const Py_ssize_t size = PyList_GET_SIZE(objects);
  if (size == 0) return nullptr;
  return static_cast<const T*>(PyCapsule_GetPointer(PyList_GET_ITEM(objects, size - 1), nullptr));
}

// ---- lines

// The variables of a replay.
class Variables {
 public:
  explicit Variables(std::size_t count) : held_(count) {}
  Variables(const Variables&) = delete;
  ~Variables() {
    for (PyObject* const x : held_) Py_XDECREF(x);
  }
  PyObject* operator[](Py_ssize_t slot) const { return held_[slot]; }
  void set(Py_ssize_t slot, PyObject* array) { Py_XSETREF(held_[slot], Py_XNewRef(array)); }

 private:
  std::vector<PyObject*> held_;
};

// results = call(*operands, **attrs), after which some variables are dead.
class Line {
 public:
  // line: (call, operands, names, results, several, dead). operands: a slot, or a tuple of one constant; the last ones
  // are the values of the attributes that `names` names.
  explicit Line(PyObject* line)
      : call_(item(line, 0, 6)),
        names_(item(line, 2, 6)),
        results_(numbers(item(line, 3, 6))),
        dead_(numbers(item(line, 5, 6))),
        several_(truth(item(line, 4, 6))) {
    for (const py::handle x : py::reinterpret_borrow<py::tuple>(item(line, 1, 6))) {
      const bool constant = PyTuple_Check(x.ptr());
      operands_.push_back(constant ? Operand{-1, item(x.ptr(), 0, 1)} : Operand{number(x.ptr()), nullptr});
    }
    positional_ = operands_.size() - (PyTuple_Check(names_) ? std::size_t(PyTuple_GET_SIZE(names_)) : 0);
  }

  Py_ssize_t slots() const {
    Py_ssize_t most = 0;
    for (const Py_ssize_t slot : results_) most = slot + 1 > most ? slot + 1 : most;
    return most;
  }

  void run(Variables& variables, std::vector<PyObject*>& args) const {
    args.assign(1, nullptr);  // which the callee may use
    for (const Operand& x : operands_) args.push_back(x.slot < 0 ? x.constant : variables[x.slot]);
    PyObject* const names = PyTuple_Check(names_) ? names_ : nullptr;
    const std::size_t count = positional_ | PY_VECTORCALL_ARGUMENTS_OFFSET;
    const py::object found = owned(PyObject_Vectorcall(call_, args.data() + 1, count, names));
    const Py_ssize_t size = Py_ssize_t(results_.size());
    if (several_)
      for (Py_ssize_t i = 0; i < size; ++i) variables.set(results_[i], item(found.ptr(), i, size));
    else if (size > 0) variables.set(results_[0], found.ptr());
    for (const Py_ssize_t slot : dead_) variables.set(slot, nullptr);
  }

 private:
  struct Operand {
    Py_ssize_t slot;  // or -1
    PyObject* constant;
  };
  PyObject *const call_, *const names_;
  const std::vector<Py_ssize_t> results_, dead_;
  const bool several_;
  std::vector<Operand> operands_;
  std::size_t positional_;
};

class Program {
 public:
  Program(const py::list& lines, const py::handle& given, const py::handle& kept)
      : given_(numbers(given.ptr())), kept_(numbers(kept.ptr())) {
    for (const Py_ssize_t slot : given_) slots_ = slot + 1 > slots_ ? slot + 1 : slots_;
    for (const py::handle line : lines) {
      lines_.emplace_back(line.ptr());
      slots_ = lines_.back().slots() > slots_ ? lines_.back().slots() : slots_;
    }
  }

  py::object run(PyObject* arrays) const {
    if (!PyList_Check(arrays) || PyList_GET_SIZE(arrays) != Py_ssize_t(given_.size()))
      throw py::type_error("program: expected a list of " + std::to_string(given_.size()) + " arrays");
    Variables variables{std::size_t(slots_)};
    for (std::size_t i = 0; i < given_.size(); ++i) variables.set(given_[i], PyList_GET_ITEM(arrays, Py_ssize_t(i)));
    std::vector<PyObject*> args;
    for (const Line& line : lines_) line.run(variables, args);
    py::object found = owned(PyTuple_New(Py_ssize_t(kept_.size())));
    for (std::size_t i = 0; i < kept_.size(); ++i)
      PyTuple_SET_ITEM(found.ptr(), Py_ssize_t(i), Py_NewRef(variables[kept_[i]]));
    return found;
  }

 private:
  const std::vector<Py_ssize_t> given_, kept_;
  std::vector<Line> lines_;
  Py_ssize_t slots_ = 0;
};

PyObject* run_program(PyObject* objects, PyObject* arrays) {
  return guarded([&]() -> py::object {
    const Program* const program = behind<Program>(objects);
    if (program == nullptr) throw py::value_error("program: it was collected as garbage");
    return program->run(arrays);
  });
}

PyMethodDef program_method = {"replay", run_program, METH_O, "replay(given) -> kept"};

py::object make_program(const py::list& lines, const py::object& given, const py::object& kept) {
  return function_of(&program_method, std::make_unique<Program>(lines, given, kept), lines);
}

// ---- the short way

// A tensor that is the argument of this number, or always this one.
class Leaf {
 public:
  explicit Leaf(PyObject* leaf)
      : argument_(PyLong_Check(leaf) ? number(leaf) : -1), tensor_(PyLong_Check(leaf) ? nullptr : leaf) {}
  PyObject* of(PyObject* const* arguments) const { return argument_ < 0 ? tensor_ : arguments[argument_]; }

 private:
  Py_ssize_t argument_;
  PyObject* tensor_;
};

std::vector<Leaf> leaves(const py::tuple& given) {
  std::vector<Leaf> found;
  for (const py::handle x : given) found.emplace_back(x.ptr());
  return found;
}

using Pair = std::pair<PyObject*, PyObject*>;

std::vector<Pair> pairs(const py::tuple& given) {
  std::vector<Pair> found;
  for (const py::handle x : given) found.emplace_back(item(x.ptr(), 0, 2), item(x.ptr(), 1, 2));
  return found;
}

class Replay {
 public:
  explicit Replay(const py::dict& d)
      : program_(d["program"].ptr()),
        slot_(d["slot"].ptr()),
        result_(d["result"].ptr()),
        changes_(d["changes"].ptr()),
        seen_(number(d["seen"].ptr())),
        globals_(d["globals"].ptr()),
        enabled_(truth(d["enabled"].ptr())),
        loads_(pairs(d["loads"])),
        cells_(pairs(d["cells"])),
        names_(pairs(d["names"])),
        without_(leaves(d["without"])),
        accumulated_(leaves(d["accumulated"])),
        dropped_(leaves(d["dropped"])) {
    for (const py::handle x : py::tuple(d["inputs"]))
      inputs_.push_back({item(x.ptr(), 0, 3), item(x.ptr(), 1, 3), bool(truth(item(x.ptr(), 2, 3)))});
    for (const auto& [leaf, backend] : pairs(d["set"])) set_.emplace_back(Leaf(leaf), backend);
  }

  // Whether the arguments, and all that is outside, are as recorded.
  bool fits(PyObject* const* arguments, Py_ssize_t count) const {
    return count == Py_ssize_t(inputs_.size()) && PyList_GET_SIZE(house->listeners.ptr()) == 0 && same_state() &&
           arguments_fit(arguments) && tensors_fit(arguments) && variables_fit();
  }

  py::object run(PyObject* const* arguments) const {
    const py::object found = owned(PyObject_CallOneArg(program_, arrays(arguments).ptr()));
    for (const Leaf& leaf : dropped_) set_grad(leaf.of(arguments), borrowed(Py_None));
    for (std::size_t i = 0; i < set_.size(); ++i)
      set_grad(set_[i].first.of(arguments), leaf_tensor(kept(found, Py_ssize_t(i)), set_[i].second));
    return built(result_, found);
  }

 private:
  struct Input {
    PyObject *meta, *backend;
    bool wants;
  };

  bool same_state() const {
    const py::object enabled = owned(PyObject_GetAttr(house->mode.ptr(), house->enabled.ptr()));
    return truth(enabled.ptr()) == enabled_ && number(PyList_GET_ITEM(changes_, 0)) == seen_;
  }

  bool arguments_fit(PyObject* const* arguments) const {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      PyObject* const x = arguments[i];
      if (Py_TYPE(x) != reinterpret_cast<PyTypeObject*>(house->tensor.ptr())) return false;
      if (house->t_meta.of(x) == Py_None) owned(PyObject_CallMethodNoArgs(x, house->find_meta.ptr()));
      if (house->t_meta.of(x) != inputs_[i].meta || house->t_backend.of(x) != inputs_[i].backend) return false;
      if (house->t_edge.of(x) != Py_None || wants(x) != inputs_[i].wants) return false;
      for (std::size_t j = 0; j < i; ++j)
        if (x == arguments[j]) return false;
    }
    return true;
  }

  bool tensors_fit(PyObject* const* arguments) const {
    for (const auto& [x, flag] : loads_)
      if (house->t_requires_grad.of(x) != flag) return false;
    for (const Leaf& leaf : without_)
      if (house->t_grad.of(leaf.of(arguments)) != Py_None) return false;
    for (const Leaf& leaf : accumulated_)
      if (house->t_grad.of(leaf.of(arguments)) == Py_None) return false;
    return true;
  }

  bool variables_fit() const {
    for (const auto& [cell, value] : cells_)
      if (PyCell_GET(cell) != value) return false;
    for (const auto& [name, value] : names_)
      if (find(globals_, name) != value) return false;
    return true;
  }

  static bool wants(PyObject* x) { return truth(house->t_requires_grad.of(x)); }

  py::object arrays(PyObject* const* arguments) const {
    py::list all(inputs_.size() + loads_.size() + accumulated_.size());
    Py_ssize_t i = 0;
    const auto give = [&](PyObject* x) { PyList_SET_ITEM(all.ptr(), i++, Py_NewRef(house->t_array.of(x))); };
    for (std::size_t k = 0; k < inputs_.size(); ++k) give(arguments[k]);
    for (const auto& [x, flag] : loads_) give(x);
    for (const Leaf& leaf : accumulated_) give(house->t_grad.of(leaf.of(arguments)));
    return std::move(all);
  }

  static PyObject* kept(const py::object& found, Py_ssize_t i) { return PyTuple_GET_ITEM(found.ptr(), i); }

  static py::object leaf_tensor(PyObject* array, PyObject* backend) {
    return new_tensor(array, backend, Py_None, py::none());
  }

  static void set_grad(PyObject* leaf, py::object&& grad) { house->t_grad.replace(leaf, std::move(grad)); }

  // The result from what the program kept: nested tuples, lists and dicts of tensors, numbers and constants.
  py::object built(PyObject* tree, const py::object& found) const {
    if (PyTuple_CheckExact(tree)) {
      const Py_ssize_t size = PyTuple_GET_SIZE(tree);
      if (size == 2 && reinterpret_cast<PyObject*>(Py_TYPE(PyTuple_GET_ITEM(tree, 0))) == slot_) {
        PyObject* const array = kept(found, number(PyTuple_GET_ITEM(PyTuple_GET_ITEM(tree, 0), 0)));
        PyObject* const backend = PyTuple_GET_ITEM(tree, 1);
        return backend == Py_None ? borrowed(array) : leaf_tensor(array, backend);
      }
      py::tuple all(size);
      for (Py_ssize_t i = 0; i < size; ++i)
        PyTuple_SET_ITEM(all.ptr(), i, built(PyTuple_GET_ITEM(tree, i), found).release().ptr());
      return std::move(all);
    }
    if (PyList_CheckExact(tree)) {
      py::list all;
      for (const py::handle x : py::reinterpret_borrow<py::list>(tree)) all.append(built(x.ptr(), found));
      return std::move(all);
    }
    if (PyDict_CheckExact(tree)) {
      py::dict all;
      for (const auto& [name, x] : py::reinterpret_borrow<py::dict>(tree)) all[name] = built(x.ptr(), found);
      return std::move(all);
    }
    return borrowed(tree);
  }

  PyObject *const program_, *const slot_, *const result_, *const changes_;
  const Py_ssize_t seen_;
  PyObject* const globals_;
  const int enabled_;
  const std::vector<Pair> loads_, cells_, names_;
  const std::vector<Leaf> without_, accumulated_, dropped_;
  std::vector<Input> inputs_;
  std::vector<std::pair<Leaf, PyObject*>> set_;
};

PyObject* run_replay(PyObject* objects, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    const Replay* const replay = behind<Replay>(objects);
    if (replay == nullptr || !replay->fits(arguments, count)) return borrowed(Py_NotImplemented);
    return replay->run(arguments);
  });
}

PyMethodDef replay_method = {"replay", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_replay)),
                             METH_FASTCALL, "replay(*tensors): what the step returns, or NotImplemented"};

py::object make_replay(const py::kwargs& given) {
  if (house == nullptr) throw py::value_error("replay: only after `shortcut`");
  py::list objects;
  objects.append(given);
  return function_of(&replay_method, std::make_unique<Replay>(given), objects);
}

}  // namespace

void bind_replay(py::module_& m) {
  m.def("program", &make_program, py::arg("lines"), py::arg("given"), py::arg("kept"),
        "A function replay(given) -> kept of lines (call, operands, names, results, several, dead).");
  m.def("replay", &make_replay, "The short way into a program, as Program.quick describes it.");
}

}  // namespace dlcore
