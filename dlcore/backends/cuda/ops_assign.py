"""Arrays put together from parts on `kernels/assign.cu`, of any dtype: each part goes to its place in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_elementwise import (
    BLOCK,
    MAX_AXES,
    MAX_CHUNKS,
    as_array,
    broadcast_strides,
    by_value,
    grid_of,
    walk,
)
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = Any


def refuse_large(call: Call) -> str | None:
    """Why no kernel of this kind takes operands or results of these shapes."""
    shapes = [*call.shapes, *call.op.resolve(list(call.shapes), call.attrs)[1]]
    if any(len(s) > MAX_AXES for s in shapes if s is not None):
        return f"more than {MAX_AXES} axes"
    return "2**31 elements or more" if any(prod(s) >= MAX_CHUNKS for s in shapes if s is not None) else None


def assign(x: Any, y: Array) -> None:
    """Put `x`, an array that broadcasts or a NumPy scalar of its dtype, into all of `y`, which may be a view."""
    if y.size == 0:
        return
    number = isinstance(x, np.generic)
    address = driver_of(y).address
    aligned = address(y) % 16 == 0 and (number or address(x) % 16 == 0)
    strides = None if number else broadcast_strides(x, y.shape), broadcast_strides(y, y.shape)
    plan = walk(y.shape, strides, y.itemsize, aligned)
    layout = plan.packed + by_value(bits(x)) + bytes(8)
    kernel = f"assign.assign_b{y.itemsize}"
    launch(kernel, grid_of(plan.chunks, y), (BLOCK,), None if number else x, y, layout, like=y)


def bits(x: Any) -> Any:
    """A NumPy scalar as a whole number of its bits; an array itself."""
    return x.view(f"u{x.itemsize}") if isinstance(x, np.generic) else x


def zeros(shape: Shape, dtype: Any, like: Array) -> Array:
    """A new array of zeros."""
    y = empty(shape, dtype, like)
    assign(dtype.type(0), y)
    return y


@implement("concat", "cuda", refuse=refuse_large)
def concat(*xs: Array, axis: int) -> Array:
    """`*xs[...] -> y[R...]`."""
    at = axis % xs[0].ndim
    shape = [*xs[0].shape[:at], sum(x.shape[at] for x in xs), *xs[0].shape[at + 1 :]]
    y = empty(tuple(shape), xs[0].dtype, xs[0])
    start = 0
    for x in xs:
        assign(x, y[_slab(at, start, start + x.shape[at])])
        start += x.shape[at]
    return y


def _slab(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """The index of a part of an axis."""
    return (slice(None),) * axis + (slice(start, stop),)


@implement("pad", "cuda", refuse=refuse_large)
def pad(x: Array, *, widths: Sequence[tuple[int, int]], value: float) -> Array:
    """`x[S...] -> y[R...]`: `x` in its place, then what is before and after it along each axis in turn."""
    x = as_array(x)
    part = y = empty(tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)), x.dtype, x)
    number = x.dtype.type(value)
    for axis, (n, (before, _)) in enumerate(zip(x.shape, widths, strict=True)):
        assign(number, part[_slab(axis, 0, before)])
        assign(number, part[_slab(axis, before + n, part.shape[axis])])
        part = part[_slab(axis, before, before + n)]
    assign(x, part)
    return y
