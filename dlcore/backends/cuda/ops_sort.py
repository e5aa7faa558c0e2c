"""Sorts and searches on `kernels/sort.cu`: short rows in one block each, long ones in tiles that are then merged."""

from __future__ import annotations

import struct
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import CASTS, contiguous
from dlcore.backends.cuda.ops_elementwise import BLOCK, as_array, grid_of
from dlcore.backends.cuda.rows import aligned
from dlcore.dispatch import Call, implement

Array = Any

HELD = {1: 16, 2: 16, 4: 16, 8: 8}  # items of a thread (kHeld), by bytes of an element
FEW = 64  # threads of a block at least
MERGE = 128  # kMergeThreads
LONGEST = 2**24  # elements of a row: 12 merges of narrow items
SUFFIXES = CASTS | {dtypes.uint64: "u64"}


def _refuse(call: Call) -> str | None:
    return refuse_large(call) if call.dtype in CASTS else f"no kernel for {call.dtype}"


def _refuse_long(call: Call) -> str | None:
    shape = call.shapes[0] or ()
    if shape and shape[call.attrs["axis"]] > LONGEST:
        return f"rows of more than {LONGEST} elements: CuPy's sort passes over them less often"
    return _refuse(call)


def sorted_rows(x: Array, kept: int, descending: bool, with_values: bool = True) -> tuple[Array | None, Array]:
    """The first `kept` elements of each row of a contiguous `x[..., n]` in order (None if not wanted), and places."""
    n, shape = x.shape[-1], (*x.shape[:-1], kept)
    values, indices = empty(shape, x.dtype, x) if with_values else None, empty(shape, dtypes.int64, x)
    if indices.size == 0:
        return values, indices
    run = min(max(HELD[x.itemsize], 1 << (n - 1).bit_length()), BLOCK * HELD[x.itemsize])
    items, other = (empty((x.size, _words(x)), dtypes.int64, x) if n > m else None for m in (run, 2 * run))
    _tiles(x, items, values, indices, run, descending)
    while run < n:
        _merge(items, other if n > 2 * run else None, x, values, indices, run, descending)
        items, other, run = other, items, 2 * run
    return values, indices


def _words(x: Array) -> int:
    """Of 8 bytes, of an item."""
    return 2 if x.itemsize == 8 else 1


def _shape(x: Array, out: Array | None, indices: Array, descending: bool) -> tuple[int, ...]:
    """`Shape` of sort.cu."""
    n, kept = x.shape[-1], indices.shape[-1]
    pairs = kept % 2 == 0 if out is None else n % 2 == 0 and _words(x) == 1
    return n, kept, descending, aligned(n, x), pairs


def _shared(items: int, size: int) -> int:
    """Bytes of items so large, as `padded` of sort.cu lays them out."""
    return items * size * (128 + size) // 128


def _tiles(x: Array, items: Array | None, values: Array | None, indices: Array, segment: int, descending: bool) -> None:
    """Items in sorted segments, or the results of rows that are one segment."""
    n, held = x.shape[-1], HELD[x.itemsize]
    rows, per_row, in_block = x.size // n, -(-n // segment), max(1, FEW * held // segment)
    packed = struct.pack("<9I", rows, segment, per_row, in_block, *_shape(x, items, indices, descending))
    grid, block = (-(-rows * per_row // in_block),), (in_block * segment // held,)
    kernel, shared = f"sort.sort_tiles_{SUFFIXES[x.dtype]}", _shared(in_block * segment, max(4, 2 * x.itemsize))
    launch(kernel, grid, block, x, items, values, indices, packed, like=x, shared=shared)


def _merge(
    items: Array, out: Array | None, x: Array, values: Array | None, indices: Array, run: int, descending: bool
) -> None:
    """Items in runs twice as long, of which as many are right as results are wanted; or results."""
    n, tile = x.shape[-1], MERGE * HELD[x.itemsize]
    pairs, tiles = -(-n // (2 * run)), -(-min(indices.shape[-1], 2 * run) // tile)
    packed = struct.pack("<8I", run, pairs, tiles, *_shape(x, out, indices, descending))
    grid, shared = (x.size // n * pairs * tiles,), _shared(tile, 8 * _words(x))
    kernel = f"sort.sort_merge_{SUFFIXES[x.dtype]}"
    launch(kernel, grid, (MERGE,), items, out, x, values, indices, packed, like=x, shared=shared)


def _along(x: Array, axis: int, kept: int, descending: bool) -> tuple[Array, Array]:
    values, indices = sorted_rows(contiguous(x.swapaxes(axis, -1)), kept, descending)
    return contiguous(values.swapaxes(axis, -1)), contiguous(indices.swapaxes(axis, -1))  # type: ignore[union-attr]


@implement("sort", "cuda", refuse=_refuse_long)
def sort(x: Array, *, axis: int, descending: bool) -> tuple[Array, Array]:
    """`x[S...] -> values[S...] indices[S...]`."""
    return _along(x, axis, x.shape[axis], descending)


@implement("topk", "cuda", refuse=_refuse_long)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """`x[S...] -> values[R...] indices[R...]`."""
    return _along(x, axis, k, largest)


@implement("searchsorted", "cuda", refuse=_refuse)
def searchsorted(boundaries: Array, x: Array, *, side: str) -> Array:
    """`boundaries[N] x[S...] -> y[S...]`."""
    x = contiguous(as_array(x))
    y = empty(x.shape, dtypes.int64, x)
    if y.size:
        sizes = boundaries.size, x.size, int(side == "right")
        kernel = f"sort.sort_search_{CASTS[x.dtype]}"
        launch(kernel, grid_of(x.size, x), (BLOCK,), contiguous(boundaries), x, y, *sizes, like=x)
    return y


def order(x: Array, kept: int) -> Array:
    """Places of the `kept` smallest elements of each row of a contiguous `x[..., n]`."""
    return sorted_rows(x, kept, False, with_values=False)[1]
