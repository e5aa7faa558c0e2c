"""Element-wise arithmetic, comparisons and bits of int32, int64 and bool on `kernels/whole.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.backends.cuda.ops_copy import positive
from dlcore.backends.cuda.ops_elementwise import COMPARISONS, WHOLE, refuse_size, run
from dlcore.dispatch import Call, implement

Array = Any

ARITHMETIC = (
    "negative", "abs", "sign", "square", "relu", "add", "subtract", "multiply", "floor_divide", "remainder", "pow",
    "maximum", "minimum", "clip", "bitwise_invert", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift",
    "bitwise_right_shift",
)  # fmt: skip
"""Ops of ints that are the kernel of their name."""

OF_BOOLS = {
    "add": "bitwise_or", "multiply": "bitwise_and", "maximum": "bitwise_or", "minimum": "bitwise_and",
    "logical_and": "bitwise_and", "logical_or": "bitwise_or", "logical_xor": "bitwise_xor",
    "logical_not": "bitwise_invert", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor", "bitwise_invert": "bitwise_invert", **{name: name for name in COMPARISONS},
}  # fmt: skip
"""The kernel of each op that takes bools."""

OF_ITSELF = {"isnan": "not_equal", "isinf": "not_equal", "isfinite": "equal"}
"""Predicates of ints, of which all are finite, as a comparison of the operand with itself."""


def _refuse(call: Call) -> str | None:
    known = call.dtype in WHOLE and (call.dtype != dtypes.bool_ or call.op.name in OF_BOOLS)
    return refuse_size(call) if known else f"no kernel for {call.dtype}"


def _register(op: str, kernel: str, out: Any = None) -> None:
    def native(*operands: Any) -> Array:
        dtype = next(x.dtype for x in operands if x is not None)
        name = OF_BOOLS[op] if dtype == dtypes.bool_ else kernel
        return run(f"whole_{name}_{WHOLE[dtype]}", _bounded(operands, dtype), out or dtype)

    implement(op, "cuda", "whole", _refuse)(native)


def _bounded(operands: tuple[Any, ...], dtype: Any) -> tuple[Any, ...]:
    """Operands with bounds of clip that were left out as the least and the largest number."""
    if all(x is not None for x in operands):
        return operands
    x, low, high = operands
    limits = np.iinfo(dtype)
    return x, dtype.type(limits.min) if low is None else low, dtype.type(limits.max) if high is None else high


for _name in ARITHMETIC:
    _register(_name, _name)
for _name in COMPARISONS:
    _register(_name, _name, dtypes.bool_)
for _name in ("logical_and", "logical_or", "logical_xor", "logical_not"):
    _register(_name, OF_BOOLS[_name])


def _register_predicate(op: str, kernel: str) -> None:
    def native(x: Array) -> Array:
        return run(f"whole_{kernel}_{WHOLE[x.dtype]}", (x, x), dtypes.bool_)

    implement(op, "cuda", "whole", _refuse_all_but_ints)(native)


def _refuse_all_but_ints(call: Call) -> str | None:
    return (
        refuse_size(call) if dtypes.kind(call.dtype) == "int" and call.dtype in WHOLE else f"no kernel for {call.dtype}"
    )


for _name, _kernel in OF_ITSELF.items():
    _register_predicate(_name, _kernel)
for _name in ("floor", "ceil", "trunc", "round"):
    implement(_name, "cuda", "whole", _refuse_all_but_ints)(positive)
