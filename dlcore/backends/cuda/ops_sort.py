"""Sorts and searches on `kernels/sort.cu`: short rows in one block each, long ones in tiles that are then merged."""

from __future__ import annotations

import struct
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import CASTS, contiguous
from dlcore.backends.cuda.ops_elementwise import BLOCK, as_array, grid_of
from dlcore.dispatch import Call, implement

Array = Any

TILE_BYTES = 32768  # of the items that a block sorts
MERGE = 1024  # kMerge
LONGEST = 2**24  # elements of a row: 12 merges of narrow items
FEW = 1024  # items that a block sorts at least
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
    item = 16 if x.itemsize == 8 else 8
    segment = min(1 << (n - 1).bit_length(), TILE_BYTES // item)
    short = n <= segment
    items = None if short else empty((x.size, item // 8), dtypes.int64, x)
    _tiles(x, items, values, indices, segment, item, descending)
    if items is not None:
        items = _merged(items, x.size // n, n, segment)
        sizes = n, kept, indices.size
        grid = grid_of(indices.size, x)
        launch(f"sort.sort_results_b{x.itemsize}", grid, (BLOCK,), items, x, values, indices, *sizes, like=x)
    return values, indices


def _tiles(
    x: Array, items: Array | None, values: Array | None, indices: Array, segment: int, item: int, descending: bool
) -> None:
    n = x.shape[-1]
    rows, per_row, in_block = x.size // n, -(-n // segment), max(1, FEW // segment)
    packed = struct.pack("<6Ii", rows, n, segment, per_row, in_block, indices.shape[-1], descending)
    grid, shared = (-(-rows * per_row // in_block),), segment * in_block * item
    kernel = f"sort.sort_tiles_{SUFFIXES[x.dtype]}"
    launch(kernel, grid, (BLOCK,), x, items, values, indices, packed, like=x, shared=shared)


def _merged(items: Array, rows: int, n: int, run: int) -> Array:
    """Rows of items, sorted in runs, as sorted ones."""
    other = empty(items.shape, items.dtype, items)
    kernel = "sort.sort_merge" + ("_wide" if items.shape[-1] == 2 else "")
    tiles = -(-n // MERGE)
    while run < n:
        launch(kernel, (rows * tiles,), (BLOCK,), items, other, n, run, tiles, like=items)
        items, other, run = other, items, 2 * run
    return items


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
