"""Running sums and products on `_C`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]


def _refuse_halves(call: Call) -> str | None:
    return "no kernel for 16-bit floats" if dtypes.is_half(call.dtype) else None


def _scan(kind: str, factors: Array | None, x: Array, axis: int, reverse: bool) -> Array:
    a = None if factors is None else _plain(factors)
    out: Array = _C.scan(kind, a, _plain(x), axis % x.ndim, reverse)
    return out


def _plain(x: Array) -> Array:
    """In row-major order and aligned."""
    out: Array = _C.contiguous(x) if x.flags.aligned else x.copy()
    return out


def _whole(x: Array) -> Array:
    """Whole numbers and bools as int64."""
    return x if dtypes.kind(x.dtype) == "float" else cast(x, dtypes.int64)


@implement("cumsum", "cpu", refuse=_refuse_halves)
def cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    """Sums in double."""
    return _scan("sum", None, _whole(x), axis, reverse)


@implement("cumprod", "cpu", refuse=_refuse_halves)
def cumprod(x: Array, *, axis: int, reverse: bool) -> Array:
    """Products in double."""
    return _scan("product", None, _whole(x), axis, reverse)


@implement("linear_scan", "cpu", refuse=refuse_all_but_f32_f64)
def linear_scan(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    """y[t] = a[t] * y[t - 1] + b[t], in double."""
    return _scan("linear", a, b, axis, reverse)
