// _C.shortcut(...): the path through dispatch.apply of a call whose plan is known. All other calls, and everything that
// is out of the ordinary, go to dispatch.apply, which says what must happen; this file only repeats it faster.
#include <vector>

#include "bind_house.h"

namespace dlcore {
namespace {

// One call of an op.
class Call {
 public:
  Call(PyObject* op, PyObject* const* operands, Py_ssize_t count, PyObject* names)
      : op_(op), operands_(operands), count_(count), names_(names) {}
  Call(const Call&) = delete;
  ~Call() {
    for (Py_ssize_t i = 0; i < filled_; ++i) Py_DECREF(arrays_[i]);
  }

  // The result; null where dispatch.apply must take the call.
  py::object run() {
    if (PyList_GET_SIZE(house->listeners.ptr()) > 0 || count_ > kMost || !read_operands()) return {};
    plan_ = find_plan();
    if (!plan_ || PyTuple_GET_SIZE(house->p_casts.of(plan_.ptr())) > 0) return {};
    PyObject* const defaults = house->p_defaults.of(plan_.ptr());
    const Py_ssize_t total = count_ + PyTuple_GET_SIZE(house->p_absent.of(plan_.ptr()));
    if (total > kMost || !PyDict_CheckExact(defaults)) return {};
    for (Py_ssize_t i = count_; i < total; ++i) pass(Py_None);
    attrs_ = merged(defaults);
    result_ = compute();
    if (wanted_ != 0 && truth(owned(PyObject_GetAttr(house->mode.ptr(), house->enabled.ptr())).ptr())) record();
    return PyTuple_CheckExact(result_.ptr()) ? wrap_all() : wrap_one();
  }

 private:
  static constexpr Py_ssize_t kMost = 24;

  Py_ssize_t named() const { return names_ == nullptr ? 0 : PyTuple_GET_SIZE(names_); }

  void pass(PyObject* array) { arrays_[filled_++] = Py_NewRef(array); }

  // Fills arrays_, wanted_, backend_ and the key's part for the operands; false for an operand that needs more work.
  bool read_operands() {
    key_ = owned(PyTuple_New(1 + count_ + 3 * named()));
    PyTuple_SET_ITEM(key_.ptr(), 0, Py_NewRef(op_));
    for (Py_ssize_t i = 0; i < count_; ++i) {
      PyObject* const x = operands_[i];
      PyObject* kind = reinterpret_cast<PyObject*>(Py_TYPE(x));
      if (is_tensor(x)) {
        PyObject* const backend = house->t_backend.of(x);
        if (backend_ != nullptr && backend != backend_) return false;
        backend_ = backend;
        pass(house->t_array.of(x));
        kind = house->t_meta.of(x);
        if (kind == Py_None) kind = owned(PyObject_CallMethodNoArgs(x, house->find_meta.ptr())).ptr();  // which x keeps
        if (truth(house->t_requires_grad.of(x))) wanted_ |= 1u << i;
      } else if (x == Py_None || PyFloat_CheckExact(x) || PyLong_CheckExact(x) || PyBool_Check(x)) {
        pass(x);
      } else {
        return false;
      }
      PyTuple_SET_ITEM(key_.ptr(), 1 + i, Py_NewRef(kind));
    }
    return backend_ != nullptr;
  }

  py::object find_plan() {
    const Py_ssize_t count = named(), first = 1 + count_;
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* const value = operands_[count_ + i];
      PyTuple_SET_ITEM(key_.ptr(), first + i, Py_NewRef(PyTuple_GET_ITEM(names_, i)));
      PyTuple_SET_ITEM(key_.ptr(), first + count + i, Py_NewRef(value));
      PyTuple_SET_ITEM(key_.ptr(), first + 2 * count + i, Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value))));
    }
    const py::object plans = owned(PyObject_GetAttr(backend_, house->plans.ptr()));
    PyObject* const found = PyDict_GetItemWithError(plans.ptr(), key_.ptr());
    if (found == nullptr && PyErr_Occurred()) {
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
      PyErr_Clear();  // an attribute that cannot be hashed
    }
    return borrowed(found);
  }

  // The op's attributes: `defaults`, or a copy with those of the call where they differ.
  py::object merged(PyObject* defaults) const {
    py::object attrs = borrowed(defaults);
    for (Py_ssize_t i = 0; i < named(); ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names_, i);
      PyObject* const value = operands_[count_ + i];
      if (find(attrs.ptr(), name) == value) continue;
      if (attrs.ptr() == defaults) attrs = owned(PyDict_Copy(defaults));
      if (PyDict_SetItem(attrs.ptr(), name, value) < 0) throw py::error_already_set();
    }
    return attrs;
  }

  py::object compute() const {
    PyObject* const run = house->p_run.of(plan_.ptr());
    PyObject* const attrs = PyDict_GET_SIZE(attrs_.ptr()) > 0 ? attrs_.ptr() : nullptr;
    return owned(PyObject_VectorcallDict(run, arrays_, std::size_t(filled_), attrs));
  }

  PyObject* operand(Py_ssize_t i) const { return i < count_ ? operands_[i] : Py_None; }

  // The node behind the result, unless no gradient can flow.
  void record() {
    const py::object saves = find_saves();
    if (PyList_GET_SIZE(house->s_rules.of(saves.ptr())) == 0) return;
    const auto edge_of = [&](Py_ssize_t i) {
      PyObject* const edge = house->t_edge.of(operands_[i]);
      return edge == Py_None ? operands_[i] : edge;
    };
    const bool several = PyTuple_CheckExact(result_.ptr());
    const auto output = [&](Py_ssize_t i) { return several ? PyTuple_GET_ITEM(result_.ptr(), i) : result_.ptr(); };
    const py::object node = new_of(house->node);
    house->n_plan.fill(node.ptr(), plan_.ptr());
    house->n_attrs.fill(node.ptr(), attrs_.ptr());
    house->n_saves.fill(node.ptr(), saves.ptr());
    house->n_edges.fill(node.ptr(), picked(house->s_edges.of(saves.ptr()), edge_of));
    house->n_inputs.fill(node.ptr(), picked(house->s_inputs.of(saves.ptr()), [&](Py_ssize_t i) { return operand(i); }));
    house->n_outputs.fill(node.ptr(), picked(house->s_outputs.of(saves.ptr()), output));
    house->n_sequence.fill(node.ptr(), owned(Py_TYPE(house->clock.ptr())->tp_iternext(house->clock.ptr())));
    node_ = node;
  }

  py::object find_saves() const {
    const py::int_ wanted(wanted_);
    PyObject* const found = find(house->p_saves.of(plan_.ptr()), wanted.ptr());
    return found != nullptr ? borrowed(found) : house->what_to_save(plan_, wanted);
  }

  // {i: value(i)} for the numbers in a list.
  template <class Value>
  static py::object picked(PyObject* indices, const Value& value) {
    if (PyList_GET_SIZE(indices) == 0) return house->nothing;
    py::object found = owned(PyDict_New());
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(indices); ++k) {
      PyObject* const i = PyList_GET_ITEM(indices, k);
      if (PyDict_SetItem(found.ptr(), i, value(PyLong_AsSsize_t(i))) < 0) throw py::error_already_set();
    }
    return found;
  }

  py::object wrap(PyObject* array, Py_ssize_t index) const {
    const bool flows = node_ && truth(PyTuple_GET_ITEM(house->p_flows.of(plan_.ptr()), index));
    PyObject* const meta = PyTuple_GET_ITEM(house->p_outputs.of(plan_.ptr()), index);
    return new_tensor(array, backend_, meta, flows ? edge(index) : py::none());
  }

  py::object edge(Py_ssize_t index) const {
    return owned(PyTuple_Pack(2, node_.ptr(), owned(PyLong_FromSsize_t(index)).ptr()));
  }

  py::object wrap_one() const {
    py::object out = wrap(result_.ptr(), 0);
    share(out);
    return out;
  }

  void share(const py::object& out) const {
    if (truth(house->p_view.of(plan_.ptr())))
      owned(PyObject_CallMethodOneArg(out.ptr(), house->share_version.ptr(), operands_[0]));
  }

  py::object wrap_all() const {
    const Py_ssize_t count = PyTuple_GET_SIZE(result_.ptr());
    py::object all = owned(PyTuple_New(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
      py::object out = wrap(PyTuple_GET_ITEM(result_.ptr(), i), i);
      share(out);
      PyTuple_SET_ITEM(all.ptr(), i, out.release().ptr());
    }
    return all;
  }

  PyObject* const op_;
  PyObject* const* const operands_;  // and after them the values of the attributes that the call names
  const Py_ssize_t count_;
  PyObject* const names_;
  PyObject* arrays_[kMost];  // what the implementation gets: filled_ of them, None for an operand left out
  Py_ssize_t filled_ = 0;
  PyObject* backend_ = nullptr;
  unsigned wanted_ = 0;  // bit i: operand i requires a gradient
  py::object key_, plan_, attrs_, result_, node_;
};

}  // namespace

PyObject* run_op(PyObject* op, PyObject* const* args, Py_ssize_t count, PyObject* names) noexcept {
  return guarded([&]() -> py::object {
    py::object result = Call(op, args, count, names).run();
    if (result) return result;
    std::vector<PyObject*> all{op};
    all.insert(all.end(), args, args + count + (names == nullptr ? 0 : PyTuple_GET_SIZE(names)));
    return owned(PyObject_Vectorcall(house->apply.ptr(), all.data(), std::size_t(count + 1), names));
  });
}

namespace {

PyMethodDef call_method = {"__call__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_op)),
                           METH_FASTCALL | METH_KEYWORDS, "Run the op on tensors; see dispatch.apply."};

py::object shortcut(const py::object& op, const py::object& tensor, const py::object& plan, const py::object& autograd,
                    const py::list& listeners, const py::object& apply) {
  house = new House{tensor, plan, autograd, listeners, apply};
  return owned(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(op.ptr()), &call_method));
}

}  // namespace

void bind_apply(py::module_& m) {
  m.def("shortcut", &shortcut, py::arg("op"), py::arg("tensor"), py::arg("plan"), py::arg("autograd"),
        py::arg("listeners"), py::arg("apply"),
        "Op.__call__ for calls whose plan is known; it leaves the others to `apply`.");
}

}  // namespace dlcore
