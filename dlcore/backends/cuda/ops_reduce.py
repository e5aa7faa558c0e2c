"""Reductions on `kernels/reduce.cu`: the reduced axes are brought together, then rows or columns are summed."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import CASTS, astype, contiguous, rounded, wide_copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, like
from dlcore.backends.cuda.rows import BLOCK, WARP, vectors
from dlcore.dispatch import Call, implement
from dlcore.ops.shape import axis_tuple
from dlcore.signature import Shape

Array = Any

COLUMNS = 32  # that a block reduces
SHORT_ROW = 1024  # elements that one warp sums
LONG_ROW = 65536  # elements from which a row is cut in parts, when there are few rows
FEW_ROWS = 64
INDEX_LIMIT = 2**31


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    return "more than 2**31 elements" if prod(call.shapes[0] or ()) >= INDEX_LIMIT else None


def _refuse_truth(call: Call) -> str | None:
    if call.dtype not in CASTS:
        return f"no kernel for {call.dtype}"
    return refuse_large(call)


def arranged(x: Array, axes: tuple[int, ...]) -> tuple[Array, int, int, int]:
    """`x` as contiguous [outer, n, inner] with the reduced axes together as n, and these sizes."""
    kept_after = 0 if not axes else next((i for i in range(x.ndim - 1, -1, -1) if i in axes), -1) + 1
    inner_axes = list(range(kept_after, x.ndim))
    outer_axes = [i for i in range(kept_after) if i not in axes]
    x = contiguous(x.transpose([*outer_axes, *sorted(axes), *inner_axes]))
    outer = prod(x.shape[: len(outer_axes)])
    inner = prod(x.shape[x.ndim - len(inner_axes) :])
    return x, outer, prod(x.shape[len(outer_axes) : x.ndim - len(inner_axes)]), inner


def reduce(x: Array, op: str, axes: tuple[int, ...], shape: Shape, dtype: Any, **finish: Any) -> Array:
    """`op` of kernels/reduce.cu over axes, as an array of the given shape and dtype."""
    y = empty(shape, dtype, x)
    if y.size == 0:
        return y
    x, outer, n, inner = arranged(x, axes)
    finish = {"divisor": 1.0, "correction": 0.0, "count": n, "root": 0} | finish
    if inner > 1:
        columns(x, y, op, outer, n, inner, finish)
    elif op == "sum" and n >= LONG_ROW and outer <= FEW_ROWS:
        parts = _parts(n)
        partial = empty((outer, parts), dtypes.float32 if dtypes.is_half(x.dtype) else dtype, x)
        rows(x, partial, op, outer * parts, n // parts, finish | {"divisor": 1.0})
        rows(partial, y, op, outer, parts, finish)
    else:
        rows(x, y, op, outer, n, finish)
    return y


def _parts(n: int) -> int:
    """Into how many equal parts a long row is cut: the most up to 512 that divide it evenly."""
    return next((parts for parts in range(512, 1, -1) if n % parts == 0), 1)


def _packed(finish: dict[str, Any], moved: int) -> bytes:
    return struct.pack("<ddqii", finish["divisor"], finish["correction"], finish["count"], moved, finish["root"])


def rows(x: Array, y: Array, op: str, count: int, n: int, finish: dict[str, Any]) -> None:
    """y[r] of x[r][0..n)."""
    kind, per_block = ("warp", BLOCK // WARP) if n <= SHORT_ROW else ("block", 1)
    grid = (min(-(-count // per_block), 16 * driver_of(x).multiprocessors),)
    name = f"reduce.reduce_{kind}_{op}_{_suffix(x)}_{_suffix(y)}"
    launch(name, grid, (BLOCK,), x, y, count, n, _packed(finish, vectors(n, x)), like=x)


def columns(x: Array, y: Array, op: str, outer: int, n: int, inner: int, finish: dict[str, Any]) -> None:
    """y[o][c] of x[o][0..n)[c]."""
    grid = (outer * -(-inner // COLUMNS),)
    name = f"reduce.reduce_columns_{op}_{_suffix(x)}_{_suffix(y)}"
    launch(name, grid, (BLOCK,), x, y, n, inner, _packed(finish, vectors(inner, x)), like=x)


def _suffix(x: Array) -> str:
    return CASTS[x.dtype]


def over(x: Array, axis: Any, keepdims: bool) -> tuple[tuple[int, ...], Shape]:
    """Axes that a reduction takes, and the shape of its result."""
    axes = axis_tuple(axis, x.ndim)
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return axes, tuple(n for i, n in enumerate(kept) if keepdims or i not in axes)


def _register(op: str, kernel: str, out: Any = None) -> None:
    def native(x: Array, *, axis: Any, keepdims: bool) -> Array:
        axes, shape = over(x, axis, keepdims)
        return reduce(x, kernel, axes, shape, out or x.dtype)

    implement(op, "cuda", refuse=_refuse)(native)


def _register_truth(op: str) -> None:
    def native(x: Array, *, axis: Any, keepdims: bool) -> Array:
        axes, shape = over(x, axis, keepdims)
        truth = x if x.dtype == dtypes.bool_ else astype(x, dtype=dtypes.bool_)
        return reduce(truth, op, axes, shape, dtypes.bool_)

    implement(op, "cuda", refuse=_refuse_truth)(native)


for _op in ("sum", "prod", "max", "min", "logsumexp"):
    _register(_op, _op)
for _op in ("argmax", "argmin"):
    _register(_op, _op, dtypes.int64)
for _op in ("any", "all"):
    _register_truth(_op)


@implement("mean", "cuda", refuse=_refuse)
def mean(x: Array, *, axis: Any, keepdims: bool) -> Array:
    """Sum over how many there are."""
    axes, shape = over(x, axis, keepdims)
    return reduce(x, "sum", axes, shape, x.dtype, divisor=float(prod(x.shape[a] for a in axes)))


@implement("var", "cuda", refuse=_refuse)
def var(x: Array, *, axis: Any, keepdims: bool, correction: float) -> Array:
    """Variance in one pass."""
    axes, shape = over(x, axis, keepdims)
    return reduce(x, "var", axes, shape, x.dtype, correction=float(correction))


@implement("std", "cuda", refuse=_refuse)
def std(x: Array, *, axis: Any, keepdims: bool, correction: float) -> Array:
    """Root of the variance."""
    axes, shape = over(x, axis, keepdims)
    return reduce(x, "var", axes, shape, x.dtype, correction=float(correction), root=1)


@implement("norm", "cuda", refuse=_refuse)
def norm(x: Array, *, ord: float, axis: Any, keepdims: bool) -> Array:
    """(sum of |x|**ord) ** (1 / ord), in the wide type: the powers are written once and read once."""
    axes, shape = over(x, axis, keepdims)
    wide = wide_copy(x) if dtypes.is_half(x.dtype) else x
    if ord == 2:
        total = reduce(like(wide, "elementwise_square", wide), "sum", axes, shape, wide.dtype)
        return rounded(like(total, "elementwise_sqrt", total), x.dtype)
    sizes = like(wide, "elementwise_abs", wide)
    powers = sizes if ord == 1 else like(sizes, "elementwise_pow", sizes, wide.dtype.type(ord))
    total = reduce(powers, "sum", axes, shape, wide.dtype)
    return rounded(total if ord == 1 else like(total, "elementwise_pow", total, wide.dtype.type(1 / ord)), x.dtype)


@implement("sum_to", "cuda", refuse=_refuse)
def sum_to(x: Array, *, shape: Shape) -> Array:
    """Sum over the axes that broadcasting from `shape` would have stretched."""
    missing = x.ndim - len(shape)
    stretched = [i for i in range(x.ndim) if i < missing or (shape[i - missing] == 1 and x.shape[i] != 1)]
    return reduce(x, "sum", tuple(stretched), shape, x.dtype)
