// The last arguments of a kernel that can go on with a chain in place of its result (tail.h).
#pragma once
#include <optional>

#include "bind.h"
#include "chain.h"

namespace dlcore {

inline const char* const kChain = "dlcore chain";

// Of a function made by _C.chain.
inline const Chain& chain_of(PyObject* function) {
  PyObject* const self = PyCFunction_Check(function) ? PyCFunction_GET_SELF(function) : nullptr;
  if (self == nullptr || !PyCapsule_IsValid(self, kChain))
    throw py::type_error("then: expected a function of _C.chain");
  return *static_cast<const Chain*>(PyCapsule_GetPointer(self, kChain));
}

class TailArguments {
 public:
  // then: a chain, or None. others: what it takes after the result.
  TailArguments(PyObject* then, PyObject* const* others, Py_ssize_t count, const Array& result) {
    if (then != Py_None) read(chain_of(then), others, count, result);
    else require(count == 0, "then: operands of no chain");
  }
  Tail tail() const { return chain_ ? chain_->tail() : Tail(); }

 private:
  void read(const Chain& chain, PyObject* const* others, Py_ssize_t count, const Array& result) {
    int outputs = 0;
    for (int s = 0; s < chain.steps; ++s) outputs += chain.step[s].output;
    require(outputs == 1 && chain.step[chain.steps - 1].output, "then: expected a chain of one output, its last step");
    require(count == chain.operands - 1, "then: wrong number of operands");
    char* data[kMaxOperands] = {static_cast<char*>(result.data())};
    for (int k = 1; k < chain.operands; ++k) data[k] = like(result, others[k - 1]);
    chain_.emplace(chain, result.type() == kFloat32 ? 4 : 8, data);
  }
  static char* like(const Array& result, PyObject* object) {
    const Array x(object, "then");
    bool same = x.type() == result.type() && x.plain() && x.ndim() == result.ndim();
    for (int i = 0; same && i < x.ndim(); ++i) same = x.dim(i) == result.dim(i);
    require(same, "then: expected contiguous arrays of the shape and dtype of the result");
    return static_cast<char*>(x.data());
  }
  std::optional<InPlace> chain_;
};

}  // namespace dlcore
