"""Contiguous copies, casts and transposes on `kernels/copy.cu`."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_elementwise import (
    BLOCK,
    MAX_AXES,
    MAX_CHUNKS,
    SUFFIXES,
    WHOLE,
    as_array,
    broadcast_strides,
    grid_of,
    merged,
    refuse_size,
    walk,
)
from dlcore.backends.cuda.rows import aligned
from dlcore.dispatch import Call, implement

Array = Any

MAX_GRID = 65_535  # blocks along y and z
CASTS = SUFFIXES | WHOLE
ROW = 128  # bytes of a row of a transposed tile


def contiguous(x: Array) -> Array:
    """`x` itself, or a copy of it in C order."""
    if x.flags.c_contiguous:
        return x
    if len(merged(x.shape, [broadcast_strides(x, x.shape)])[0]) > MAX_AXES + 1:
        return driver_of(x).xp.ascontiguousarray(x)  # more axes than a kernel walks
    if _is_transposed(x):
        return _transposed(x.swapaxes(-1, -2)).reshape(x.shape)
    return copy(f"copy_strided_b{x.itemsize}", x, x.dtype)


def _is_transposed(x: Array) -> bool:
    """Whether it is a stack of contiguous matrices seen transposed, large enough for tiles."""
    if x.ndim < 2 or x.itemsize not in (2, 4, 8) or not x.swapaxes(-1, -2).flags.c_contiguous:
        return False
    rows, columns = x.shape[-2:]
    large = min(rows, columns) >= 16
    return bool(large and max(x.size // (rows * columns), columns * x.itemsize // ROW) < MAX_GRID)


def _transposed(x: Array) -> Array:
    rows, columns = x.shape[-2:]
    count = x.size // (rows * columns)
    y = empty((count, columns, rows), x.dtype, x)
    side = ROW // x.itemsize
    grid = (-(-columns // side), -(-rows // side), count)
    vectors = int(aligned(columns, x)), int(aligned(rows, y))
    launch(f"copy.copy_transpose_b{x.itemsize}", grid, (128,), x, y, rows, columns, *vectors, like=x)
    return y


def copy(kernel: str, x: Array, dtype: Any) -> Array:
    """One launch of a copying kernel."""
    y = empty(x.shape, dtype, x)
    if y.size:
        address = driver_of(x).address
        at_vectors = address(x) % 16 == 0 and address(y) % 16 == 0
        plan = walk(x.shape, (broadcast_strides(x, x.shape),), x.itemsize, at_vectors)
        layout = plan.packed + struct.pack("<d", 0.0)
        launch(f"copy.{kernel}", grid_of(plan.chunks, x), (BLOCK,), x, y, layout, like=x)
    return y


def wide_copy(x: Array) -> Array:
    """A copy in the type that arithmetic on its elements is done in."""
    if dtypes.is_half(x.dtype):
        return copy(f"copy_cast_{SUFFIXES[x.dtype]}_f32", x, dtypes.float32)
    return copy(f"copy_strided_b{x.itemsize}", x, x.dtype)


def rounded(x: Array, dtype: Any) -> Array:
    """An array of the wide type in the dtype of an op."""
    return x if x.dtype == dtype else copy(f"copy_cast_f32_{SUFFIXES[dtype]}", x, dtype)


def positions(indices: Array) -> Array:
    """Indices as contiguous int64; None stays None."""
    return None if indices is None else contiguous(indices.astype(np.int64, copy=False))


def _refuse_cast(call: Call) -> str | None:
    source, target, shape = call.dtype, call.attrs["dtype"], call.shapes[0] or ()
    if source not in CASTS or target not in CASTS or source == target:
        return f"no kernel from {source} to {target}"
    large = len(shape) > MAX_AXES or np.prod(shape, dtype=np.int64) >= MAX_CHUNKS
    return "too many axes or elements" if large else None


@implement("astype", "cuda", refuse=_refuse_cast)
def astype(x: Array, *, dtype: Any) -> Array:
    """The elements in another dtype."""
    x = as_array(x)
    return copy(f"copy_cast_{CASTS[x.dtype]}_{CASTS[dtype]}", x, dtype)


@implement("positive", "cuda", refuse=refuse_size)
def positive(x: Array) -> Array:
    """A copy."""
    x = as_array(x)
    return copy(f"copy_strided_b{x.itemsize}", x, x.dtype)


def int64(x: Array) -> Array:
    """Whole numbers as int64."""
    if x.dtype == dtypes.int64:
        return x
    return astype(x, dtype=dtypes.int64) if x.dtype in CASTS else x.astype(dtypes.int64)
