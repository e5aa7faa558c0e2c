"""Sorting by NumPy's vector sort, which is not stable: of int64 keys that hold an element above and its place below."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast
from dlcore.backends.cpu.gather import take_along_axis
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]

NAN = 0x7FFFFFFF  # after all numbers
PLACES = 0xFFFFFFFF


def _refuse(call: Call) -> str | None:
    return None if call.dtype.itemsize <= 4 else f"keys have no room for {call.dtype}"


def _ordered(x: Array) -> Array:
    """int32 numbers in the order of the elements, equal where those are."""
    if dtypes.kind(x.dtype) != "float":
        return (x ^ np.uint32(1 << 31)).view(np.int32) if x.dtype == np.uint32 else x.astype(np.int32)
    bits = (cast(x, dtypes.float32) + np.float32(0)).view(np.int32)  # -0 becomes 0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    bits[np.isnan(x)] = NAN
    return bits


def _keys(x: Array, axis: int, descending: bool) -> Array:
    """Keys along the last axis."""
    ordered = _ordered(_C.contiguous(np.moveaxis(x, axis, -1)))
    keys: Array = np.left_shift(~ordered if descending else ordered, 32, dtype=np.int64)
    keys |= np.arange(keys.shape[-1])
    return keys


def _found(x: Array, keys: Array, axis: int) -> tuple[Array, Array]:
    keys &= PLACES
    places: Array = _C.contiguous(np.moveaxis(keys, -1, axis))
    return take_along_axis(x, places, axis=axis), places


@implement("sort", "cpu", "keys", refuse=_refuse)
def sort(x: Array, *, axis: int, descending: bool) -> tuple[Array, Array]:
    """`x[S...] -> values[S...] indices[S...]`."""
    keys = _keys(x, axis, descending)
    keys.sort(axis=-1)
    return _found(x, keys, axis)


@implement("topk", "cpu", "keys", refuse=_refuse)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """`x[S...] -> values[R...] indices[R...]`."""
    keys = _keys(x, axis, largest)
    if 0 < k < keys.shape[-1]:
        keys.partition(k - 1, axis=-1)
    keys = keys[..., :k].copy()
    keys.sort(axis=-1)
    return _found(x, keys, axis)
