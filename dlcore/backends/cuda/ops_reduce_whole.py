"""Reductions of int32, int64 and bool on `kernels/reduce.cu`; what has no kernel of its dtype goes through int64."""

from __future__ import annotations

from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import astype, int64
from dlcore.backends.cuda.ops_elementwise import WHOLE
from dlcore.backends.cuda.ops_reduce import over, reduce
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = Any


def _refuse(call: Call) -> str | None:
    return refuse_large(call) if call.dtype in WHOLE else f"no kernel for {call.dtype}"


@implement("sum", "cuda", "whole", _refuse)
def sum(x: Array, *, axis: Any, keepdims: bool) -> Array:
    """Sum as int64."""
    return reduce(x, "sum", *over(x, axis, keepdims), dtypes.int64)


@implement("sum_to", "cuda", "whole", _refuse)
def sum_to(x: Array, *, shape: Shape) -> Array:
    """Sum over the axes that broadcasting from `shape` would have stretched, in the dtype of `x`."""
    missing = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < missing or (shape[i - missing] == 1 and x.shape[i] != 1))
    return _as(reduce(x, "sum", axes, shape, dtypes.int64), x.dtype)


def _register(op: str, own: bool) -> None:
    """own: whether the result has the operand's dtype; otherwise it is int64."""

    def native(x: Array, *, axis: Any, keepdims: bool) -> Array:
        axes, shape = over(x, axis, keepdims)
        return _as(reduce(int64(x), op, axes, shape, dtypes.int64), x.dtype if own else dtypes.int64)

    implement(op, "cuda", "whole", _refuse)(native)


def _as(y: Array, dtype: Any) -> Array:
    return y if y.dtype == dtype else astype(y, dtype=dtype)


for _op in ("prod", "argmax", "argmin"):
    _register(_op, own=False)
for _op in ("max", "min"):
    _register(_op, own=True)
