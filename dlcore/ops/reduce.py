"""Reductions. Axes are an int, a tuple or None (all); `keepdims` leaves size-1 axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dlcore import dtypes
from dlcore.errors import ShapeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.shape import axis_tuple, broadcast_to, expand_reduced
from dlcore.signature import Dims, Shape, broadcast_shapes


def reduced(d: Dims, *, axis: Any, keepdims: bool, **_: Any) -> Mapping[str, Any]:
    """Output sizes of a reduction over `S...`."""
    axes = axis_tuple(axis, len(d.S))
    kept = [1 if i in axes else n for i, n in enumerate(d.S)]
    return {"R": tuple(n for i, n in enumerate(kept) if keepdims or i not in axes)}


def summed_dtype(promoted: Any, attrs: Mapping[str, Any]) -> Any:
    """Sums of ints and bools are int64."""
    return promoted if dtypes.kind(promoted) == "float" else dtypes.DEFAULT_INT


def _samples() -> Iterable[Sample]:
    for axis, keepdims in [(None, False), (0, True), (-1, False), ((0, 2), True)]:
        yield sample(Arr((2, 3, 5), distinct=True), axis=axis, keepdims=keepdims)
    yield sample(Arr((1, 4), distinct=True), axis=1)
    yield sample(Arr((3, 0), distinct=True), axis=0)


def reduction(name: str, reference: Callable[..., Any], vjp: Any = None, *, out: str = "", **fields: Any) -> Op:
    """Define an op that reduces over axes."""
    signature = f"x[S...] -> y[R...]{':' + out if out else ''}"
    fields = {"samples": _samples, "infer": reduced, "flops": lambda d: d.size("S"), **fields}
    return define(name, signature, reference, vjp=vjp, **fields)


sum = reduction(
    "sum",
    lambda xp, x, *, axis=None, keepdims=False: xp.sum(x, axis=axis, keepdims=keepdims),
    {"x": lambda g, x_shape, axis, keepdims: broadcast_to(expand_reduced(g, x_shape, axis, keepdims), shape=x_shape)},
    dtype=summed_dtype,
    doc="Sum over axes.",
)


def _summed_to(d: Dims, *, shape: Shape) -> Mapping[str, Any]:
    if broadcast_shapes(shape, d.S) != d.S:
        raise ShapeError(f"shape {shape} does not broadcast to {d.S}")
    return {"R": tuple(shape)}


def _sum_to(xp: Any, x: Any, *, shape: Shape = ()) -> Any:
    lead = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))
    return xp.reshape(xp.sum(x, axis=axes, keepdims=True), shape) if axes else xp.reshape(x, shape)


sum_to = define(
    "sum_to",
    "x[S...] -> y[R...]",
    _sum_to,
    vjp={"x": lambda g, x_shape: broadcast_to(g, shape=x_shape)},
    infer=_summed_to,
    flops=lambda d: d.size("S"),
    samples=lambda: [sample((2, 3, 5), shape=(3, 1)), sample((4,), shape=()), sample((2, 0), shape=(1, 0))],
    doc="Sum over the axes that broadcasting `shape` to x's shape repeats: the adjoint of broadcast_to.",
)
