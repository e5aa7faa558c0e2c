// What the extension knows of dlcore's Python classes, for the ways through `apply` and `walk` that are shorter.
#pragma once
#include <pybind11/pybind11.h>  // first: structmember.h needs Python.h
#include <structmember.h>

#include <string>

#include "bind.h"

namespace dlcore {

// A slot of a Python class (`__slots__`), read and written without a look-up.
class Slot {
 public:
  Slot(const py::handle& type, const char* name) {
    const py::object member = type.attr(name);
    if (Py_TYPE(member.ptr()) != &PyMemberDescr_Type) throw py::type_error(std::string("shortcut: no slot ") + name);
    offset_ = reinterpret_cast<PyMemberDescrObject*>(member.ptr())->d_member->offset;
  }
  PyObject* of(PyObject* object) const { return *place(object); }
  void fill(PyObject* object, PyObject* value) const { *place(object) = Py_NewRef(value); }
  void fill(PyObject* object, py::object&& value) const { *place(object) = value.release().ptr(); }
  void replace(PyObject* object, py::object&& value) const {
    const py::object before = py::reinterpret_steal<py::object>(*place(object));
    *place(object) = value.release().ptr();
  }

 private:
  PyObject** place(PyObject* object) const {
    return reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset_);
  }
  Py_ssize_t offset_;
};

inline py::object owned(PyObject* fresh) {
  if (fresh == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(fresh);
}

inline py::object borrowed(PyObject* object) { return py::reinterpret_borrow<py::object>(object); }

inline py::object interned(const char* name) { return owned(PyUnicode_InternFromString(name)); }

// The classes and objects of dlcore that a call meets.
struct House {
  py::object tensor, plan, autograd, listeners, apply;
  py::object meta = autograd.attr("Meta"), node = autograd.attr("Node"), saves = autograd.attr("Saves"),
             mode = autograd.attr("mode"), clock = autograd.attr("clock"), what_to_save = autograd.attr("what_to_save");

  Slot t_array{tensor, "_array"}, t_backend{tensor, "_backend"}, t_base{tensor, "_base"}, t_edge{tensor, "_edge"},
      t_grad{tensor, "grad"}, t_meta{tensor, "_meta"}, t_of_computed{tensor, "_of_computed"},
      t_requires_grad{tensor, "requires_grad"}, t_version{tensor, "_version"};
  Slot m_shape{meta, "shape"};
  Slot n_attrs{node, "attrs"}, n_edges{node, "edges"}, n_inputs{node, "inputs"}, n_outputs{node, "outputs"},
      n_plan{node, "plan"}, n_saves{node, "saves"}, n_sequence{node, "sequence"};
  Slot p_absent{plan, "absent"}, p_casts{plan, "casts"}, p_defaults{plan, "defaults"}, p_flows{plan, "flows"},
      p_operands{plan, "operands"}, p_outputs{plan, "outputs"}, p_run{plan, "run"}, p_saves{plan, "saves"},
      p_view{plan, "view"};
  Slot s_edges{saves, "edges"}, s_inputs{saves, "inputs"}, s_outputs{saves, "outputs"}, s_rules{saves, "rules"};

  py::object plans = interned("plans"), enabled = interned("enabled"), check = interned("check"),
             find_meta = interned("_find_meta"), release = interned("release"),
             share_version = interned("_share_version");
  py::int_ zero = py::int_(0);
  py::dict nothing = {};  // in the place of every empty one
};

inline const House* house;  // kept as long as the process

inline bool truth(PyObject* object) {
  const int found = object == Py_False ? 0 : object == Py_True ? 1 : PyObject_IsTrue(object);
  if (found < 0) throw py::error_already_set();
  return found;
}

inline Py_ssize_t number(PyObject* integer) {
  const Py_ssize_t found = PyLong_AsSsize_t(integer);
  if (found == -1 && PyErr_Occurred()) throw py::error_already_set();
  return found;
}

inline py::object new_of(const py::object& type) {
  PyTypeObject* const t = reinterpret_cast<PyTypeObject*>(type.ptr());
  return owned(t->tp_alloc(t, 0));
}

// As Tensor._wrap.
inline py::object new_tensor(PyObject* array, PyObject* backend, PyObject* meta, py::object&& edge) {
  py::object out = new_of(house->tensor);
  PyObject* const t = out.ptr();
  const bool flows = !edge.is_none();
  house->t_array.fill(t, array);
  house->t_backend.fill(t, backend);
  house->t_meta.fill(t, meta);
  house->t_edge.fill(t, std::move(edge));
  house->t_base.fill(t, Py_None);
  house->t_grad.fill(t, Py_None);
  house->t_version.fill(t, house->zero.ptr());
  house->t_of_computed.fill(t, Py_False);
  house->t_requires_grad.fill(t, flows ? Py_True : Py_False);
  return out;
}

// What a dict holds, or null.
inline PyObject* find(PyObject* dict, PyObject* key) {
  PyObject* const found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return found;
}

inline bool is_tensor(PyObject* object) {
  return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(house->tensor.ptr()));
}

// Runs an op on `count` operands and the attributes that `names` (may be null) names, whose values follow.
PyObject* run_op(PyObject* op, PyObject* const* args, Py_ssize_t count, PyObject* names) noexcept;

}  // namespace dlcore
