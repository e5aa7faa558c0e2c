"""Elements of one operand or the other on `kernels/select.cu`, of any dtype."""

from __future__ import annotations

from typing import Any

from dlcore.backends.cuda.launch import empty, launch
from dlcore.backends.cuda.ops_assign import bits, refuse_large
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import BLOCK, grid_of, refuse_size, run
from dlcore.dispatch import implement

Array = Any


@implement("where", "cuda", refuse=refuse_size)
def where(condition: Array, x1: Any, x2: Any) -> Array:
    """x1 where the condition holds, else x2."""
    dtype = x1.dtype
    return run(f"select_where_b{dtype.itemsize}", (condition, bits(x1), bits(x2)), dtype, dtype.itemsize)


def _triangle(x: Array, k: int, lower: bool) -> Array:
    y = empty(x.shape, x.dtype, x)
    if y.size:
        rows, columns = x.shape[-2:]
        sizes = columns, x.size, rows * columns, k, int(lower)
        launch(f"select.select_triangle_b{x.itemsize}", grid_of(x.size, x), (BLOCK,), contiguous(x), y, *sizes, like=x)
    return y


@implement("tril", "cuda", refuse=refuse_large)
def tril(x: Array, *, k: int) -> Array:
    """Zero above diagonal k."""
    return _triangle(x, k, True)


@implement("triu", "cuda", refuse=refuse_large)
def triu(x: Array, *, k: int) -> Array:
    """Zero below diagonal k."""
    return _triangle(x, k, False)
