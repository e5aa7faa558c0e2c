"""Ops that move or select elements without computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from operator import index
from typing import Any

from dlcore import dtypes
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError
from dlcore.op import Arr, Op, define, sample
from dlcore.signature import Dims, Shape, broadcast_shapes
from dlcore.tensor import Tensor


def axis_index(axis: int, rank: int) -> int:
    """A non-negative axis. Raises IndexRangeError when it lies outside the rank, ArgumentError when it is no int."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ArgumentError(f"axis must be an int; got {axis!r}")
    if not -rank <= axis < rank:
        raise IndexRangeError(f"axis {axis} is out of range for {rank} dimensions")
    return index(axis) % rank


def axis_tuple(axis: Any, rank: int) -> tuple[int, ...]:
    """Axes as distinct non-negative ints; None means all."""
    if axis is None:
        return tuple(range(rank))
    axes = tuple(axis_index(a, rank) for a in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) != len(axes):
        raise IndexRangeError(f"axis {axis} names one axis twice")
    return axes


def _reshaped(d: Dims, *, shape: Shape) -> Mapping[str, Any]:
    size, sizes = prod(d.S), list(shape)
    if sizes.count(-1) == 1:
        known = -prod(sizes)
        sizes[sizes.index(-1)] = size // known if known else 0
    if prod(sizes) != size or any(n < 0 for n in sizes):
        raise ShapeError(f"cannot turn shape {d.S} ({size} elements) into {shape}")
    return {"R": tuple(sizes)}


reshape: Op = define(
    "reshape",
    "x[S...]:any -> y[R...]",
    lambda xp, x, *, shape=(): xp.reshape(x, shape),
    vjp={"x": lambda g, x_shape: reshape(g, shape=x_shape)},
    infer=_reshaped,
    view=True,
    samples=lambda: [sample((2, 6), shape=(3, -1)), sample((), shape=(1, 1)), sample((0, 3), shape=(0,))],
    doc="The same elements, in row-major order, in another shape; one size may be -1.",
)


def _permuted(d: Dims, *, axes: tuple[int, ...]) -> Mapping[str, Any]:
    if sorted(axis_tuple(axes, len(d.S))) != list(range(len(d.S))):
        raise ShapeError(f"axes {axes} are no permutation of {len(d.S)} axes")
    return {"R": tuple(d.S[a] for a in axes)}


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


permute_dims: Op = define(
    "permute_dims",
    "x[S...]:any -> y[R...]",
    lambda xp, x, *, axes=(): xp.permute_dims(x, axes),
    vjp={"x": lambda g, axes: permute_dims(g, axes=_inverse(axes))},
    infer=_permuted,
    view=True,
    samples=lambda: [sample((2, 3, 5), axes=(2, 0, 1)), sample((1, 4), axes=(-1, 0)), sample((0, 2), axes=(1, 0))],
    doc="Axes in the given order.",
)


def _broadcast(d: Dims, *, shape: Shape) -> Mapping[str, Any]:
    if broadcast_shapes(d.S, shape) != tuple(shape):
        raise ShapeError(f"shape {d.S} does not broadcast to {shape}")
    return {"R": tuple(shape)}


broadcast_to: Op = define(
    "broadcast_to",
    "x[S...]:any -> y[R...]",
    lambda xp, x, *, shape=(): xp.broadcast_to(x, shape),
    vjp={"x": lambda g: g},
    infer=_broadcast,
    view=True,
    samples=lambda: [sample((3, 1), shape=(2, 3, 4)), sample((), shape=(2,)), sample((1, 0), shape=(2, 0))],
    doc="Repeat along axes of size 1 (and new leading axes) without copying.",
)

astype: Op = define(
    "astype",
    "x[S...]:any -> y[S...]",
    lambda xp, x, *, dtype=dtypes.float32: xp.astype(x, getattr(xp, dtype.name, dtype), copy=False),
    vjp={"x": lambda g: g},
    dtype=lambda promoted, attrs: attrs["dtype"],
    view=True,
    samples=lambda: [sample((3, 5), dtype=dtypes.float64), sample(Arr((4,), 0, 9), dtype=dtypes.int32), sample((1, 0))],
    doc="The elements in another dtype.",
)

where: Op = define(
    "where",
    "condition[...]:bool x1[...] x2[...] -> y[...]",
    lambda xp, condition, x1, x2: xp.where(condition, x1, x2),
    vjp={
        "x1": lambda g, condition: where(condition, g, 0.0),
        "x2": lambda g, condition: where(condition, 0.0, g),
    },
    samples=lambda: [
        sample(Arr(c, dtype="bool"), a, b) for c, a, b in [((3, 5), (3, 5), (5,)), ((2, 1), (), (3,)), ((0,), (1,), ())]
    ],
    doc="x1 where the condition holds, else x2.",
)


def expand_reduced(g: Tensor, shape: Shape, axis: Any, keepdims: bool) -> Tensor:
    """Give a reduction's gradient its reduced axes back, with size 1, so that it broadcasts."""
    if keepdims or g.ndim == 0:
        return g
    axes = axis_tuple(axis, len(shape))
    out: Tensor = reshape(g, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))
    return out


def squeeze(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """`x` without axes of size 1: the given ones, or all. Raises ShapeError when one has another size."""
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else axis_tuple(axis, x.ndim)
    if any(x.shape[i] != 1 for i in axes):
        raise ShapeError(f"squeeze: axis {axis} of shape {x.shape} is not of size 1")
    return x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))


def expand_dims(x: Tensor, axis: int = 0) -> Tensor:
    """`x` with a new axis of size 1 at place `axis` of the result."""
    at = axis_index(axis, x.ndim + 1)
    return x.reshape((*x.shape[:at], 1, *x.shape[at:]))


def flatten(x: Tensor, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Axes start_axis to end_axis (included) as one.

    >>> flatten(dl.ones((2, 3, 4)), 1).shape
    (2, 12)
    """
    if x.ndim == 0:
        return x.reshape(1)
    start, end = axis_index(start_axis, x.ndim), axis_index(end_axis, x.ndim)
    if start > end:
        raise ShapeError(f"flatten: axis {start_axis} comes after axis {end_axis}")
    return x.reshape((*x.shape[:start], prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def unflatten(x: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several of the given sizes, of which one may be -1.

    >>> unflatten(dl.ones((2, 12)), 1, (3, -1)).shape
    (2, 3, 4)
    """
    at = axis_index(axis, x.ndim)
    known = -prod(sizes)
    filled = tuple(x.shape[at] // known if n == -1 and known > 0 else n for n in sizes)
    if prod(filled) != x.shape[at] or min(filled, default=0) < 0:
        raise ShapeError(f"unflatten: axis {axis} of size {x.shape[at]} does not split into {tuple(sizes)}")
    return x.reshape(x.shape[:at] + filled + x.shape[at + 1 :])


def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """Axes moved to other places; the rest keep their order.

    >>> moveaxis(dl.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    sources, targets = axis_tuple(source, x.ndim), axis_tuple(destination, x.ndim)
    if len(sources) != len(targets):
        raise ShapeError(f"moveaxis: {len(sources)} axes cannot move to {len(targets)} places")
    order = [i for i in range(x.ndim) if i not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return x.permute(*order)


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    order = list(range(x.ndim))
    i, j = axis_index(axis1, x.ndim), axis_index(axis2, x.ndim)
    order[i], order[j] = j, i
    return x.permute(*order)


def meshgrid(*xs: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Vectors spread over a common grid: axis i belongs to vector i, the first two swapped for `xy` indexing."""
    if indexing not in ("xy", "ij") or any(x.ndim != 1 for x in xs):
        raise ArgumentError(f"meshgrid: expected vectors and indexing 'xy' or 'ij'; got indexing {indexing!r}")
    shape = tuple(x.size for x in xs)
    grids: list[Tensor] = [
        broadcast_to(x.reshape((-1,) + (1,) * (len(xs) - i - 1)), shape=shape) for i, x in enumerate(xs)
    ]
    return tuple(swapaxes(g, 0, 1) if indexing == "xy" and len(xs) > 1 else g for g in grids)
