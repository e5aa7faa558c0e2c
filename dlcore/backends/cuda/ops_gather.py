"""Gather and scatter-add along an axis on `kernels/gather.cu`, of slices or of single elements."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous, positions, rounded, wide_copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, grid_of
from dlcore.dispatch import Call, implement
from dlcore.indexing import OUTSIDE, Key
from dlcore.signature import Shape

Array = Any

INDEX_LIMIT = 2**31
TILE, THREADS = 4096, 128  # kTile and kThreads of gather.cu


class Place(NamedTuple):
    """Arrays as `[outer, n, inner]` and `[outer, picked, inner]`: `Place` of gather.cu."""

    outer: int
    n: int
    picked: int
    inner: int
    index_stride: int = 0
    columns: int = 1
    skip: int = -1

    def packed(self) -> bytes:
        """As the kernels take it."""
        return struct.pack("<5I2i", *self)


def _place(shape: Shape, axis: int, picked: int) -> Place:
    return Place(prod(shape[:axis]), shape[axis], picked, prod(shape[axis + 1 :]))


def _refuse_large(call: Call) -> str | None:
    sizes = [prod(s) for s in (*call.shapes, *call.op.resolve(list(call.shapes), call.attrs)[1]) if s is not None]
    return "2**31 elements or more" if max(sizes) >= INDEX_LIMIT else None


def _refuse_adding(call: Call) -> str | None:
    return _refuse_large(call) if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


def record(op: str, like: Array, axis: int, size: int) -> Array:
    """Where a kernel notes a position that lies outside an axis."""
    return driver_of(like).refusals.record(op, OUTSIDE, axis, size)


def gather(op: str, kernel: str, x: Array, indices: Array, shape: Shape, axis: int) -> Array:
    """Slices ("rows") or single elements of `x` at positions of an axis."""
    y = empty(shape, x.dtype, x)
    if y.size == 0:
        return y
    x, index = contiguous(x), positions(indices)
    place = _place(x.shape, axis, indices.size if kernel == "rows" else indices.shape[axis])
    width = _unit(x, y, place.inner) if kernel == "rows" else x.itemsize
    place = place._replace(inner=place.inner * x.itemsize // width)
    name = f"gather.gather_{kernel}_b{width}"
    note = record(op, x, axis, x.shape[axis])
    launch(name, grid_of(y.nbytes // width, x), (256,), x, index, y, note, place.packed(), like=x)
    return y


def _unit(x: Array, y: Array, inner: int) -> int:
    """The most bytes, up to 16, in which slices can be moved."""
    address = driver_of(x).address
    return next(b for b in (16, 8, 4, 2, 1) if inner * x.itemsize % b == address(x) % b == address(y) % b == 0)


def add_rows(op: str, x: Array | None, index: Array, updates: Array, shape: Shape, axis: int, place: Place) -> Array:
    """`x` (None: zeros) with slices of `updates` added."""
    y = empty(shape, updates.dtype, updates)
    if y.size == 0:
        return y
    columns = min(THREADS, 1 << (place.inner - 1).bit_length())
    tiles = place.outer * -(-place.n // (TILE // columns)) * -(-place.inner // columns)
    kernel = f"gather.gather_add_rows_{SUFFIXES[y.dtype]}"
    place = place._replace(columns=columns)
    operands = None if x is None else contiguous(x), positions(index), contiguous(updates)
    note = record(op, y, axis, shape[axis])
    launch(kernel, (tiles,), (THREADS,), *operands, y, note, place.packed(), like=y)
    return y


@implement("take", "cuda", refuse=_refuse_large, checks=True)
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[R...]`."""
    at = axis % x.ndim
    return gather("take", "rows", x, indices, x.shape[:at] + indices.shape + x.shape[at + 1 :], at)


@implement("embedding", "cuda", refuse=_refuse_large, checks=True)
def embedding(ids: Array, table: Array, *, padding_idx: int | None) -> Array:
    """`ids[...] table[V,D] -> y[...,D]`."""
    return gather("embedding", "rows", table, ids, ids.shape + table.shape[1:], 0)


@implement("take_along_axis", "cuda", refuse=_refuse_large, checks=True)
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[I...]`."""
    return gather("take_along_axis", "elements", x, indices, indices.shape, axis % x.ndim)


@implement("index_add", "cuda", refuse=_refuse_adding, checks=True)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[K] updates[R...] -> y[S...]`."""
    at = axis % x.ndim
    return add_rows("index_add", x, indices, updates, x.shape, at, _place(x.shape, at, indices.size))


@implement("embedding_grad", "cuda", refuse=_refuse_adding)
def embedding_grad(ids: Array, g: Array, *, rows: int, padding_idx: int | None) -> Array:
    """`ids[S...] g[S...,D] -> dtable[V,D]`."""
    shape = rows, g.shape[-1]
    place = _place(shape, 0, ids.size)._replace(skip=-1 if padding_idx is None else padding_idx % rows)
    return add_rows("embedding_grad", None, ids, g, shape, 0, place)


@implement("scatter_add", "cuda", refuse=_refuse_adding, checks=True)
def scatter_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] updates[I...] -> y[S...]`; along the last axis, as slices of one element."""
    at = axis % x.ndim
    place = _place(x.shape, at, indices.shape[at])
    if place.inner == 1:
        place = place._replace(index_stride=place.picked)
        return add_rows("scatter_add", x, indices, updates, x.shape, at, place)
    y = wide_copy(x)
    if updates.size:
        operands = positions(indices), contiguous(updates), y, record("scatter_add", x, at, x.shape[at])
        kernel = f"gather.gather_add_elements_{SUFFIXES[x.dtype]}"
        launch(kernel, grid_of(place.outer * place.inner, x), (256,), *operands, place.packed(), like=x)
    return rounded(y, x.dtype)


def _axis_of_array(index: Key) -> int | None:
    """The axis that `x[:, ids]` and its like index with an array, if they take all of every other axis."""
    whole = ("slice", None, None, None)
    axis = next((i for i, entry in enumerate(index) if entry != whole), 0)
    simple = index[axis : axis + 1] == (("array", 0),) and all(entry in (whole, "...") for entry in index[axis + 1 :])
    return axis if simple else None


def _refuse_index(call: Call) -> str | None:
    if _axis_of_array(call.attrs["index"]) is None:
        return "no kernel but for one array and whole axes"
    return _refuse_adding(call)


@implement("getitem_grad", "cuda", refuse=_refuse_index)
def getitem_grad(g: Array, ids: Array, *, index: Key, shape: Shape) -> Array:
    """`g[R...] ids[I...] -> dx[S...]`."""
    axis = _axis_of_array(index)
    assert axis is not None
    return add_rows("getitem_grad", None, ids, g, shape, axis, _place(shape, axis, ids.size))
