// _C.walk(heads, wanted, retain, stop): `autograd.walk`, which says what must happen; this file only repeats it faster.
#include <algorithm>
#include <vector>

#include "bind_house.h"

namespace dlcore {
namespace {

// What of autograd's Python the walk calls, or knows as it meets it.
struct Names {
  py::object add = house->autograd.attr("OPS")["add"], each = house->autograd.attr("_each"),
             fit = house->autograd.attr("_fit"), spliced = house->autograd.attr("_spliced"),
             overwritten = house->autograd.attr("overwritten");
  py::object values = house->autograd.attr("_VALUES"), grad = values["grad"], input = values["input"],
             shape = values["_shape"], attr = values["attr"];
};

const Names& names() {
  static const Names* const found = new Names;  // kept as long as the process
  return *found;
}

void enter(PyObject* dict, PyObject* key, const py::object& value) {
  if (PyDict_SetItem(dict, key, value.ptr()) < 0) throw py::error_already_set();
}

bool is_node(const py::object& x) { return Py_TYPE(x.ptr()) == reinterpret_cast<PyTypeObject*>(house->node.ptr()); }

class Walk {
 public:
  Walk(const py::dict& wanted, bool retain, bool stop) : wanted_(wanted), retain_(retain), stop_(stop) {}

  // Adds a gradient to a leaf or to an output of a node.
  void send(const py::object& edge, const py::object& grad) {
    if (!PyTuple_CheckExact(edge.ptr())) {
      const py::object id = owned(PyLong_FromVoidPtr(edge.ptr()));
      PyObject* const known = find(leaves_.ptr(), id.ptr());
      const py::object total = known == nullptr ? grad : sum(PyTuple_GET_ITEM(known, 1), grad);
      enter(leaves_.ptr(), id.ptr(), owned(PyTuple_Pack(2, edge.ptr(), total.ptr())));
    } else if (stop_ && find(wanted_.ptr(), edge.ptr()) != nullptr) {
      PyObject* const known = find(found_.ptr(), edge.ptr());
      enter(found_.ptr(), edge.ptr(), known == nullptr ? grad : sum(known, grad));
    } else {
      PyObject* const grads = grads_of(borrowed(PyTuple_GET_ITEM(edge.ptr(), 0)));
      const Py_ssize_t index = number(PyTuple_GET_ITEM(edge.ptr(), 1));
      PyObject* const known = PyList_GetItem(grads, index);
      if (known == nullptr) throw py::error_already_set();
      py::object total = known == Py_None ? grad : sum(known, grad);
      PyList_SetItem(grads, index, total.release().ptr());
    }
  }

  // Visits nodes, latest first, until no gradient is pending.
  void run() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const auto [sequence, pointer] = heap_.back();
      heap_.pop_back();
      const py::object node = borrowed(pointer), grads = borrowed(find(pending_.ptr(), pointer));
      if (PyDict_DelItem(pending_.ptr(), pointer) < 0) throw py::error_already_set();
      if (PyDict_GET_SIZE(wanted_.ptr()) > 0) keep_wanted(node, grads);
      if (is_node(node)) {
        visit(node, grads, sequence);
      } else {
        for (const py::handle pair : names().spliced(node, grads))
          send(borrowed(PyTuple_GET_ITEM(pair.ptr(), 0)), borrowed(PyTuple_GET_ITEM(pair.ptr(), 1)));
      }
      if (!retain_) owned(PyObject_CallMethodNoArgs(node.ptr(), house->release.ptr()));
    }
  }

  py::object found() const { return owned(PyTuple_Pack(2, leaves_.ptr(), found_.ptr())); }

 private:
  py::object sum(PyObject* a, const py::object& b) const {
    PyObject* const operands[] = {a, b.ptr()};
    return owned(run_op(names().add.ptr(), operands, 2, nullptr));
  }

  // The list of gradients per output of a node; None where none has arrived.
  PyObject* grads_of(const py::object& node) {
    if (PyObject* const known = find(pending_.ptr(), node.ptr())) return known;
    const bool plain = is_node(node);
    const Py_ssize_t count =
        plain ? PyTuple_GET_SIZE(house->p_outputs.of(house->n_plan.of(node.ptr()))) : number(node.attr("count").ptr());
    const Py_ssize_t sequence = number(plain ? house->n_sequence.of(node.ptr()) : node.attr("sequence").ptr());
    py::list grads(count);
    for (Py_ssize_t i = 0; i < count; ++i) PyList_SET_ITEM(grads.ptr(), i, Py_NewRef(Py_None));
    enter(pending_.ptr(), node.ptr(), grads);
    heap_.emplace_back(sequence, node.ptr());
    std::push_heap(heap_.begin(), heap_.end());
    return grads.ptr();
  }

  void keep_wanted(const py::object& node, const py::object& grads) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(grads.ptr()); ++i) {
      PyObject* const grad = PyList_GET_ITEM(grads.ptr(), i);
      const py::object edge = py::make_tuple(node, i);
      if (grad != Py_None && find(wanted_.ptr(), edge.ptr()) != nullptr)
        enter(found_.ptr(), edge.ptr(), borrowed(grad));
    }
  }

  void visit(const py::object& node, const py::object& grads, Py_ssize_t sequence) {
    if (house->n_inputs.of(node.ptr()) == Py_None || number(PyList_GET_ITEM(names().overwritten.ptr(), 0)) > sequence)
      owned(PyObject_CallMethodNoArgs(node.ptr(), house->check.ptr()));
    const py::object saves = borrowed(house->n_saves.of(node.ptr()));
    for (const py::handle rule : py::reinterpret_borrow<py::list>(house->s_rules.of(saves.ptr()))) {
      PyObject* const operand = PyTuple_GET_ITEM(rule.ptr(), 0);
      const py::object result = differentiate(node, grads, rule.ptr());
      if (operand != Py_None) {
        give(node, number(operand), result);
      } else {
        const py::tuple grads_of_operands = names().each(node, result);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(grads_of_operands.ptr()); ++i)
          give(node, i, borrowed(PyTuple_GET_ITEM(grads_of_operands.ptr(), i)));
      }
    }
  }

  // What the vjp of a rule (operand, vjp, [(source, key)]) returns.
  py::object differentiate(const py::object& node, const py::object& grads, PyObject* rule) const {
    PyObject* const needs = PyTuple_GET_ITEM(rule, 2);
    std::vector<py::object> values;
    values.reserve(PyList_GET_SIZE(needs));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(needs); ++i) {
      PyObject* const need = PyList_GET_ITEM(needs, i);
      values.push_back(value(node, grads, PyTuple_GET_ITEM(need, 0), PyTuple_GET_ITEM(need, 1)));
    }
    static_assert(sizeof(py::object) == sizeof(PyObject*));
    PyObject* const* const args = reinterpret_cast<PyObject* const*>(values.data());
    return owned(PyObject_Vectorcall(PyTuple_GET_ITEM(rule, 1), args, values.size(), nullptr));
  }

  // source(node, key, grads).
  py::object value(const py::object& node, const py::object& grads, PyObject* source, PyObject* key) const {
    if (PyObject* const known = quick_value(node.ptr(), grads.ptr(), source, key)) return borrowed(known);
    return owned(PyObject_CallFunctionObjArgs(source, node.ptr(), key, grads.ptr(), nullptr));
  }

  // The same for the most frequent ones, without Python; null for others.
  static PyObject* quick_value(PyObject* node, PyObject* grads, PyObject* source, PyObject* key) {
    if (source == names().input.ptr()) return find(house->n_inputs.of(node), key);
    if (source == names().attr.ptr()) return find(house->n_attrs.of(node), key);
    if (source == names().grad.ptr()) {
      PyObject* const grad = PyList_GET_ITEM(grads, number(key));
      return grad == Py_None ? nullptr : grad;
    }
    if (source == names().shape.ptr()) {
      PyObject* const meta = PyTuple_GET_ITEM(house->p_operands.of(house->n_plan.of(node)), number(key));
      return meta == Py_None ? meta : house->m_shape.of(meta);
    }
    return nullptr;
  }

  // Passes on the gradient of an operand, if it has one and wants it.
  void give(const py::object& node, Py_ssize_t operand, const py::object& grad) {
    if (grad.is_none()) return;
    PyObject* const metas = house->p_operands.of(house->n_plan.of(node.ptr()));
    PyObject* const meta = PyTuple_GET_ITEM(metas, operand);
    PyObject* const found = find(house->n_edges.of(node.ptr()), py::int_(operand).ptr());
    if (found == nullptr || meta == Py_None) return;
    const py::object edge = borrowed(found);
    const bool fits = is_tensor(grad.ptr()) && house->t_meta.of(grad.ptr()) == meta;
    send(edge, fits ? grad : names().fit(node, grad, py::handle(meta)));
  }

  const py::dict wanted_;
  const bool retain_, stop_;
  py::dict leaves_, found_, pending_;
  std::vector<std::pair<Py_ssize_t, PyObject*>> heap_;  // nodes of pending_ by sequence
};

PyObject* walk(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count != 4 || !PyList_Check(args[0]) || !PyDict_Check(args[1]))
      throw py::type_error("walk: expected a list of heads, a dict of wanted edges, retain, stop");
    Walk pass(py::reinterpret_borrow<py::dict>(args[1]), truth(args[2]), truth(args[3]));
    for (const py::handle head : py::reinterpret_borrow<py::list>(args[0]))
      pass.send(borrowed(PyTuple_GET_ITEM(head.ptr(), 0)), borrowed(PyTuple_GET_ITEM(head.ptr(), 1)));
    pass.run();
    return pass.found();
  });
}

PyMethodDef walk_method = {
    "walk", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(walk)), METH_FASTCALL,
    "walk(heads, wanted, retain, stop): one backward pass; see autograd.walk. After `shortcut`."};

}  // namespace

void bind_walk(py::module_& m) { add_function(m, &walk_method); }

}  // namespace dlcore
