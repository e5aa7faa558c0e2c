"""Random numbers and dropout on `_C`, with the bits of the references."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement
from dlcore.ops.random import normal_words

Array = np.ndarray[Any, Any]


def _refuse_16_bits(call: Call) -> str | None:
    dtype = call.attrs["dtype"]
    return None if dtype in (dtypes.float32, dtypes.float64) else f"no kernel for {dtype}"


def _key(key: Array) -> tuple[int, int]:
    return int(key[0]), int(key[1])


@implement("uniform", "cpu", refuse=_refuse_16_bits)
def uniform(key: Array, *, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uniform numbers in [0, 1)."""
    out: Array = _C.empty(shape, dtype)
    _C.uniform(*_key(key), out)
    return out


@implement("normal", "cpu", refuse=_refuse_16_bits)
def normal(key: Array, *, shape: tuple[int, ...], dtype: Any, low: float, high: float) -> Array:
    """Standard normal numbers, cut to [low, high]."""
    out: Array = _C.empty(shape, dtype)
    _C.normal(*_key(key), out, *normal_words(low, high, 8 * dtype.itemsize))
    return out


@implement("dropout", "cpu", refuse=refuse_all_but_f32_f64)
def dropout(x: Array, key: Array, *, p: float) -> Array:
    """Elements kept with probability 1 - p and divided by it, else 0."""
    out: Array = _C.empty(x.shape, x.dtype)
    _C.dropout(*_key(key), x if x.flags.c_contiguous else x.copy(), out, p, 1.0 / (1.0 - p) if p < 1 else 0.0)
    return out
