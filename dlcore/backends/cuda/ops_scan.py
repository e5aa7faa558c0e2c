"""Running sums and products on `kernels/scan.cu`."""

from __future__ import annotations

from math import prod
from typing import Any

from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.dispatch import Call, implement

Array = Any

THREADS = 128
INDEX_LIMIT = 2**31


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    return "2**31 elements or more" if prod(call.shapes[0] or ()) >= INDEX_LIMIT else None


def _scan(kernel: str, x: Array, axis: int, reverse: bool) -> Array:
    rows = contiguous(x.swapaxes(axis, -1))
    y = empty(rows.shape, x.dtype, x)
    if y.size:
        n = rows.shape[-1]
        blocks = min(y.size // n, 16 * driver_of(x).multiprocessors)
        name = f"scan.scan_{kernel}_{SUFFIXES[x.dtype]}"
        launch(name, (blocks,), (THREADS,), rows, y, y.size // n, n, int(reverse), like=x)
    return contiguous(y.swapaxes(axis, -1))


@implement("cumsum", "cuda", refuse=_refuse)
def cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    """`x[S...] -> y[S...]`."""
    return _scan("sum", x, axis, reverse)


@implement("cumprod", "cuda", refuse=_refuse)
def cumprod(x: Array, *, axis: int, reverse: bool) -> Array:
    """`x[S...] -> y[S...]`."""
    return _scan("product", x, axis, reverse)
