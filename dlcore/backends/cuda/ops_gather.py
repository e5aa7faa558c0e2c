"""Gather and scatter-add along an axis on `kernels/gather.cu`, of slices or of single elements."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dlcore import dtypes, indexing
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_assign import assign, refuse_large, zeros
from dlcore.backends.cuda.ops_copy import contiguous, positions, rounded, wide_copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, as_array, grid_of
from dlcore.backends.cuda.rows import aligned
from dlcore.dispatch import Call, implement
from dlcore.indexing import OUTSIDE, Key
from dlcore.signature import Shape

Array = Any

INDEX_LIMIT = 2**31
MAX_ARRAYS = 4  # of gather_flatten
TILE, THREADS = 4096, 128  # kTile and kThreads of gather.cu
_WHOLE = ("slice", None, None, None)


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


def gather(kernel: str, x: Array, indices: Array, shape: Shape, axis: int, note: Array | None) -> Array:
    """Slices ("rows") or single elements of `x` at positions of an axis."""
    y = empty(shape, x.dtype, x)
    if y.size == 0:
        return y
    x, index = contiguous(x), positions(indices)
    place = _place(x.shape, axis, indices.size if kernel == "rows" else indices.shape[axis])
    width = _unit(x, y, place.inner) if kernel == "rows" else x.itemsize
    place = place._replace(inner=place.inner * x.itemsize // width)
    name = f"gather.gather_{kernel}_b{width}"
    launch(name, grid_of(y.nbytes // width, x), (256,), x, index, y, note, place.packed(), like=x)
    return y


def _unit(x: Array, y: Array, inner: int) -> int:
    """The most bytes, up to 16, in which slices can be moved."""
    address = driver_of(x).address
    return next(b for b in (16, 8, 4, 2, 1) if inner * x.itemsize % b == address(x) % b == address(y) % b == 0)


def _refuse_index(call: Call) -> str | None:
    arrays = len(call.shapes) - 1
    if arrays == 0:
        return "a view"
    return f"more than {MAX_ARRAYS} arrays" if arrays > MAX_ARRAYS else refuse_large(call)


def _refuse_adding_index(call: Call) -> str | None:
    if len(call.shapes) == 1:
        return refuse_large(call)
    return _refuse_index(call) if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


def add_rows(x: Array | None, index: Array, updates: Array, shape: Shape, place: Place, note: Array | None) -> Array:
    """`x` (None: zeros) with slices of `updates` added."""
    y = empty(shape, updates.dtype, updates)
    if y.size == 0:
        return y
    operands = None if x is None else contiguous(x), positions(index), contiguous(updates)
    wide = aligned(place.inner, operands[0], operands[2], y)
    own = 16 // y.itemsize if wide else 1
    columns = min(THREADS, 1 << (-(-place.inner // own) - 1).bit_length())
    tiles = place.outer * -(-place.n // (TILE // (columns * own))) * -(-place.inner // (columns * own))
    kernel = f"gather.gather_add_{'vectors' if wide else 'rows'}_{SUFFIXES[y.dtype]}"
    place = place._replace(columns=columns)
    launch(kernel, (tiles,), (THREADS,), *operands, y, note, place.packed(), like=y)
    return y


@implement("take", "cuda", refuse=_refuse_large, checks=True)
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[R...]`."""
    at = axis % x.ndim
    shape = x.shape[:at] + indices.shape + x.shape[at + 1 :]
    return gather("rows", x, indices, shape, at, record("take", x, at, x.shape[at]))


@implement("embedding", "cuda", refuse=_refuse_large, checks=True)
def embedding(ids: Array, table: Array, *, padding_idx: int | None) -> Array:
    """`ids[...] table[V,D] -> y[...,D]`."""
    note = record("embedding", table, 0, table.shape[0])
    return gather("rows", table, ids, ids.shape + table.shape[1:], 0, note)


@implement("take_along_axis", "cuda", refuse=_refuse_large, checks=True)
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] -> y[I...]`."""
    at = axis % x.ndim
    return gather("elements", x, indices, indices.shape, at, record("take_along_axis", x, at, x.shape[at]))


@implement("index_add", "cuda", refuse=_refuse_adding, checks=True)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[K] updates[R...] -> y[S...]`."""
    at = axis % x.ndim
    place, note = _place(x.shape, at, indices.size), record("index_add", x, at, x.shape[at])
    return add_rows(x, indices, updates, x.shape, place, note)


@implement("embedding_grad", "cuda", refuse=_refuse_adding)
def embedding_grad(ids: Array, g: Array, *, rows: int, padding_idx: int | None) -> Array:
    """`ids[S...] g[S...,D] -> dtable[V,D]`."""
    shape = rows, g.shape[-1]
    place = _place(shape, 0, ids.size)._replace(skip=-1 if padding_idx is None else padding_idx % rows)
    return add_rows(None, ids, g, shape, place, record("embedding_grad", g, 0, rows))


@implement("scatter_add", "cuda", refuse=_refuse_adding, checks=True)
def scatter_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] updates[I...] -> y[S...]`; along the last axis, as slices of one element."""
    at = axis % x.ndim
    place, note = _place(x.shape, at, indices.shape[at]), record("scatter_add", x, at, x.shape[at])
    if place.inner == 1:
        place = place._replace(index_stride=place.picked)
        return add_rows(x, indices, updates, x.shape, place, note)
    y = wide_copy(x)
    if updates.size:
        operands = positions(indices), contiguous(updates), y, note
        kernel = f"gather.gather_add_elements_{SUFFIXES[x.dtype]}"
        launch(kernel, grid_of(place.outer * place.inner, x), (256,), *operands, place.packed(), like=x)
    return rounded(y, x.dtype)


@implement("scatter", "cuda", refuse=_refuse_large, checks=True)
def scatter(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x[S...] indices[I...] updates[I...] -> y[S...]`: which update is the last of an element, then all elements."""
    at = axis % x.ndim
    place = _place(x.shape, at, indices.shape[at])
    y, last = empty(x.shape, x.dtype, x), zeros(x.shape, dtypes.int32, x)
    if updates.size:
        grid = grid_of(updates.size, x)
        note = record("scatter", x, at, x.shape[at])
        launch("gather.gather_last", grid, (256,), positions(indices), last, note, place.packed(), like=x)
    if y.size:
        operands = contiguous(x), contiguous(updates), last
        kernel = f"gather.gather_replace_b{x.itemsize}"
        launch(kernel, grid_of(y.size, x), (256,), *operands, y, place.packed(), like=x)
    return y


@implement("getitem", "cuda", refuse=_refuse_index, checks=True)
def getitem(x: Array, *ids: Array, index: Key) -> Array:
    """`x[S...] *ids[...] -> y[R...]`."""
    p = _picked("getitem", x, ids, index)
    rows = contiguous(p.view.transpose(p.order)).reshape(p.place.outer, p.place.n, p.place.inner)
    return gather("rows", rows, p.positions, p.shape, 1, p.note)


@implement("getitem_grad", "cuda", "native", _refuse_adding_index)
def getitem_grad(g: Array, *ids: Array, index: Key, shape: Shape) -> Array:
    """`g[R...] *ids[...] -> dx[S...]`."""
    g = as_array(g)
    y = empty(shape, g.dtype, g)
    p = _picked("getitem_grad", y, ids, index) if ids else None
    part = y[indexing.decode(index, ())] if p is None else p.view.transpose(p.order)
    if part.size < y.size:
        assign(g.dtype.type(0), y)
    if p is not None:
        g = add_rows(None, p.positions, g, (p.place.outer, p.place.n, p.place.inner), p.place, p.note)
        if part.shape == shape and part.flags.c_contiguous:
            return g.reshape(shape)
    assign(g.reshape(part.shape), part)
    return y


class _Picked(NamedTuple):
    """An index with arrays: positions of all their axes together, in a view of x that the rest of the index gives."""

    view: Array
    order: tuple[int, ...]  # axes of the view: those before the positions in the result, those of arrays, the others
    positions: Array
    place: Place
    shape: Shape  # of the result
    note: Array | None  # where positions outside are to be noted still


def _picked(op: str, x: Array, ids: tuple[Array, ...], index: Key) -> _Picked:
    arrays, lead = _axes(x.ndim, index)
    view = x[indexing.decode(tuple(_WHOLE if indexing.is_array(e) else e for e in index), ())]
    others = [i for i in range(view.ndim) if i not in arrays]
    order = (*others[:lead], *arrays, *others[lead:])
    sizes = [tuple(view.shape[i] for i in axes) for axes in (others[:lead], arrays, others[lead:])]
    picked = np.broadcast_shapes(*[i.shape for i in ids])
    place = Place(prod(sizes[0]), prod(sizes[1]), prod(picked), prod(sizes[2]))
    notes = [record(op, x, axis, x.shape[axis]) for axis in indexing.array_axes(index, x.ndim)]
    shape = (*sizes[0], *picked, *sizes[2])
    if len(ids) == 1:
        return _Picked(view, order, positions(ids[0]), place, shape, notes[0])
    return _Picked(view, order, _flattened(ids, sizes[1], picked, notes), place, shape, None)


def _axes(rank: int, index: Key) -> tuple[list[int], int]:
    """Axes of the view that arrays index, and how many of its other axes come before the arrays' in the result.

    As in NumPy, integers count as arrays; arrays that are apart put their axes first.
    """
    arrays, chosen, axis = [], [], 0
    rest = rank - sum(isinstance(e, (tuple, int)) for e in index)
    for i, entry in enumerate(index):
        whole = isinstance(entry, int)
        if whole or indexing.is_array(entry):
            chosen.append((i, axis))
            arrays += [] if whole else [axis]
        axis += rest if entry == "..." else not whole
    together = chosen[-1][0] - chosen[0][0] == len(chosen) - 1
    return arrays, chosen[0][1] if together else 0


def _flattened(ids: tuple[Array, ...], sizes: Shape, shape: Shape, notes: list[Array]) -> Array:
    """Positions in axes of these sizes as positions in all of them together."""
    xp = driver_of(ids[0]).xp
    whole = [positions(xp.broadcast_to(i, shape)) for i in ids]
    y = empty(shape, dtypes.int64, ids[0])
    padding = [None] * (MAX_ARRAYS - len(ids))
    if y.size:
        packed = struct.pack(f"<{MAX_ARRAYS}I", *sizes, *(1 for _ in padding))
        operands = *whole, *padding, y, *notes, *padding
        launch("gather.gather_flatten", grid_of(y.size, y), (256,), *operands, packed, y.size, like=y)
    return y
