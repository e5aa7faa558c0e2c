"""Reductions on `_C`: sums in double, in an order that depends on the shape alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement
from dlcore.ops.shape import axis_tuple

Array = np.ndarray[Any, Any]

for _name in ("sum", "mean", "var", "std", "max", "min", "argmax", "argmin", "sum_to"):
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64)(getattr(_C, _name))


def _refuse_powers(call: Call) -> str | None:
    return refuse_all_but_f32_f64(call) if call.attrs["ord"] in (1, 2) else "no kernel but for ord 1 and 2"


@implement("norm", "cpu", refuse=_refuse_powers)
def norm(x: Array, *, ord: float, axis: Any, keepdims: bool) -> Array:
    """The sum of |x|, or the root of the sum of squares."""
    kernel, of = (_C.sum, _C.abs(x)) if ord == 1 else (_C.norm, x)
    out: Array = kernel(of, axis=axis, keepdims=keepdims)
    return out


@implement("logsumexp", "cpu", refuse=refuse_all_but_f32_f64)
def logsumexp(x: Array, *, axis: Any, keepdims: bool) -> Array:
    """log(sum(e**(x - top))) + top; an infinite top is not taken off."""
    top = _C.max(x, axis=axis, keepdims=True)
    top[~np.isfinite(top)] = 0
    total = _C.sum(_C.exp(_C.subtract(x, top)), axis=axis, keepdims=True)
    out: Array = _C.add(_C.log(total), top)
    return out if keepdims else np.squeeze(out, axis_tuple(axis, x.ndim))
