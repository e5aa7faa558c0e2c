"""Running sums and products, and linear recurrences, on `kernels/scan.cu`."""

from __future__ import annotations

from math import prod
from typing import Any

from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import CASTS, contiguous, int64
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, WHOLE
from dlcore.backends.cuda.rows import aligned
from dlcore.dispatch import Call, implement

Array = Any

THREADS = 128
INDEX_LIMIT = 2**31


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    return "2**31 elements or more" if prod(call.shapes[0] or ()) >= INDEX_LIMIT else None


def _refuse_sums(call: Call) -> str | None:
    return refuse_large(call) if call.dtype in WHOLE else _refuse(call)


def _scan(kernel: str, axis: int, reverse: bool, *xs: Array) -> Array:
    rows = [contiguous(x.swapaxes(axis, -1)) for x in xs]
    like = rows[0]
    y = empty(like.shape, like.dtype, like)
    if y.size:
        n = like.shape[-1]
        blocks = min(y.size // n, 16 * driver_of(like).multiprocessors)
        name = f"scan.scan_{kernel}_{CASTS[like.dtype]}"
        vectors = int(aligned(n, *rows, y))
        launch(name, (blocks,), (THREADS,), *rows, y, y.size // n, n, int(reverse), vectors, like=like)
    return contiguous(y.swapaxes(axis, -1))


@implement("cumsum", "cuda", refuse=_refuse_sums)
def cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    """`x[S...] -> y[S...]`; whole numbers as int64."""
    return _scan("sum", axis, reverse, int64(x) if x.dtype in WHOLE else x)


@implement("cumprod", "cuda", refuse=_refuse_sums)
def cumprod(x: Array, *, axis: int, reverse: bool) -> Array:
    """`x[S...] -> y[S...]`; whole numbers as int64."""
    return _scan("product", axis, reverse, int64(x) if x.dtype in WHOLE else x)


@implement("linear_scan", "cuda", refuse=_refuse)
def linear_scan(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    """`a[S...] b[S...] -> y[S...]`."""
    return _scan("linear", axis, reverse, a, b)
