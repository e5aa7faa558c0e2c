"""Gather and scatter-add along an axis on `_C`, of slices (take, embedding) or of single elements (take_along_axis)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, dtypes, indexing
from dlcore.backends.cpu.cast import cast
from dlcore.backends.cpu.conv import ready
from dlcore.backends.cpu.views import refuse_arrays
from dlcore.dispatch import Call, implement
from dlcore.indexing import Key
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]


def _refuse_ints(call: Call) -> str | None:
    return None if dtypes.kind(call.dtype) == "float" else f"no kernel for {call.dtype}"


def _positions(indices: Array) -> Array:
    return np.ascontiguousarray(indices, np.int64)


def _gathered(kernel: Any, x: Array, indices: Array, shape: Shape, axis: int) -> Array:
    out: Array = _C.empty(shape, x.dtype)
    kernel(_C.contiguous(x), _positions(indices), out, axis)
    return out


def _added(kernel: Any, x: Array | None, indices: Array, updates: Array, shape: Shape, axis: int) -> Array:
    """16-bit floats are added in float32 and rounded once."""
    updates, dtype = ready(updates), updates.dtype
    out: Array = _C.empty(shape, updates.dtype)
    kernel(None if x is None else ready(x), _positions(indices), updates, out, axis)
    return cast(out, dtype)


@implement("take", "cpu")
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[R...]`."""
    at = axis % x.ndim
    return _gathered(_C.gather_rows, x, indices, x.shape[:at] + indices.shape + x.shape[at + 1 :], at)


@implement("index_add", "cpu", refuse=_refuse_ints)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[K] updates[R...] -> y[S...]`."""
    return _added(_C.scatter_add_rows, x, indices, updates, x.shape, axis % x.ndim)


@implement("embedding", "cpu")
def embedding(ids: Array, table: Array, *, padding_idx: int | None) -> Array:
    """`ids[...] table[V,D] -> y[...,D]`."""
    return _gathered(_C.gather_rows, table, ids, ids.shape + table.shape[1:], 0)


@implement("embedding_grad", "cpu", refuse=_refuse_ints)
def embedding_grad(ids: Array, g: Array, *, rows: int, padding_idx: int | None) -> Array:
    """`ids[S...] g[S...,D] -> dtable[V,D]`."""
    out = _added(_C.scatter_add_rows, None, ids, g, (rows, g.shape[-1]), 0)
    if padding_idx is not None:
        out[padding_idx] = 0
    return out


@implement("take_along_axis", "cpu")
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[I...]`."""
    return _gathered(_C.gather_elements, x, indices, indices.shape, axis % x.ndim)


@implement("scatter_add", "cpu", refuse=_refuse_ints)
def scatter_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] updates[I...] -> y[S...]`."""
    return _added(_C.scatter_add_elements, x, indices, updates, x.shape, axis % x.ndim)


def _axis_of_array(index: Key) -> int | None:
    """The axis that `x[:, ids]` and its like index with an array, if they take all of every other axis."""
    whole = ("slice", None, None, None)
    axis = next((i for i, entry in enumerate(index) if entry != whole), 0)
    simple = index[axis : axis + 1] == (("array", 0),) and all(entry in (whole, "...") for entry in index[axis + 1 :])
    return axis if simple else None


def _refuse_all_but_one_array(call: Call) -> str | None:
    known = _axis_of_array(call.attrs["index"]) is not None
    return None if known else "no kernel but for one array and whole axes"


def _refuse_index(call: Call) -> str | None:
    return _refuse_all_but_one_array(call) or _refuse_ints(call)


@implement("getitem", "cpu", "gather", refuse=_refuse_all_but_one_array)
def getitem_of_array(x: Array, ids: Array, *, index: Key) -> Array:
    """`x[:, ids]` and its like."""
    axis = _axis_of_array(index)
    assert axis is not None
    return _gathered(_C.gather_rows, x, ids, x.shape[:axis] + ids.shape + x.shape[axis + 1 :], axis)


@implement("getitem_grad", "cpu", refuse=_refuse_index)
def getitem_grad(g: Array, ids: Array, *, index: Key, shape: Shape) -> Array:
    """`g[R...] ids[I...] -> dx[S...]`."""
    axis = _axis_of_array(index)
    assert axis is not None
    return _added(_C.scatter_add_rows, None, ids, g, shape, axis)


def _range_of_axis(index: Key, shape: Shape) -> tuple[int, int] | None:
    """The axis and the start of `x[:, a:b]` and its like, if they take all of every other axis."""
    parts = [i for i, entry in enumerate(index) if entry not in (("slice", None, None, None), "...")]
    if len(parts) != 1 or index[parts[0]] is None or isinstance(index[parts[0]], int):
        return None
    (at,) = parts
    axis = len(shape) - len(index) + at if "..." in index[:at] else at
    start, _, step = slice(*index[at][1:]).indices(shape[axis])
    return (axis, start) if step == 1 else None


@implement("getitem_grad", "cpu", "slices", refuse=refuse_arrays)
def getitem_grad_of_slices(g: Array, *, index: Key, shape: Shape) -> Array:
    """`g[R...] -> dx[S...]`; on memory from the cache, where fresh zeros of many pages cost several times as much."""
    out: Array = _C.empty(shape, g.dtype)
    found = _range_of_axis(index, shape)
    if found is not None and g.size:
        axis, start = found
        _C.place(_C.contiguous(g), out, start, axis)
    else:
        out.fill(0)
        out[indexing.decode(index, ())] = g
    return out
