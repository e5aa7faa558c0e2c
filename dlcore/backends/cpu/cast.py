"""Other dtypes on `_C`: casts from and to float32, rows of `csrc/cast.h`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]

NAMES = {
    "float16": "f16", "bfloat16": "bf16", "float64": "f64", "int64": "i64", "int32": "i32", "uint8": "u8",
    "bool": "u8", "float32": "f32",
}  # fmt: skip
FEW = 2048
"""Elements up to which NumPy, which has less to check, is as fast."""


@cache
def _kernel(before: Any, after: Any) -> Any:
    """The function of `_C` that casts one dtype to another, or None."""
    return getattr(_C, f"{NAMES.get(before.name)}_to_{NAMES.get(after.name)}", None) if after.name != "bool" else None


def _bits(x: Array) -> Array:
    """16-bit floats as their bits, which is how kernels know bfloat16."""
    return x.view(np.uint16) if dtypes.is_half(x.dtype) else x


def cast(x: Array, dtype: Any) -> Array:
    """`x` in `dtype`, itself if it is; what is too large for a 16-bit float becomes infinite."""
    if x.dtype == dtype:
        return x
    kernel = _kernel(x.dtype, dtype) if x.size > FEW and x.flags.aligned else None
    if kernel is None:
        with np.errstate(over="ignore"):
            return x.astype(dtype)
    out: Array = _C.empty(x.shape, np.uint16 if dtypes.is_half(dtype) else dtype)
    kernel(_bits(_C.contiguous(x)), out)
    return out.view(dtype)


def widened(x: Array) -> Array:
    """`x`, 16-bit floats in float32."""
    return cast(x, dtypes.wide(x.dtype))


def _refuse(call: Call) -> str | None:
    before, after = call.dtype, call.attrs["dtype"]
    return None if _kernel(before, after) else f"no kernel from {before} to {after}"


@implement("astype", "cpu", refuse=_refuse)
def astype(x: Array, *, dtype: Any) -> Array:
    """`x[S...] -> y[S...]` in `dtype`."""
    return cast(x, dtype)
