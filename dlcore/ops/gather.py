"""Gather and scatter along one axis, each the adjoint of the other. Negative positions count from the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from dlcore.creation import constant, zeros
from dlcore.errors import ShapeError, named
from dlcore.indexing import in_range
from dlcore.op import Op, define, sample
from dlcore.ops.index import NO_SCATTER
from dlcore.ops.shape import axis_index, where
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor


def _axis(name: str, x: Tensor, axis: int) -> int:
    """The axis, not negative."""
    with named(name):
        return axis_index(axis, x.ndim)


def _in_range(read: Callable[[Any], Any], x: Any, indices: Any, *_: Any, axis: int) -> None:
    at = axis_index(axis, x.ndim)
    in_range(read(indices), x.shape[at], at)


def _taken(d: Dims, *, axis: int) -> Mapping[str, Any]:
    at = axis_index(axis, len(d.S))
    return {"R": d.S[:at] + d.I + d.S[at + 1 :]}


def _take(xp: Any, x: Any, indices: Any, *, axis: int = 0) -> Any:
    at = axis_index(axis, x.ndim)
    picked = xp.take(x, xp.reshape(indices, (prod(indices.shape),)), axis=at)
    return xp.reshape(picked, x.shape[:at] + indices.shape + x.shape[at + 1 :])


def _take_dx(g: Tensor, indices: Tensor, x_shape: Shape, axis: int) -> Tensor:
    at = axis_index(axis, len(x_shape))
    updates = g.reshape((*x_shape[:at], indices.size, *x_shape[at + 1 :]))
    out: Tensor = _index_add(zeros(x_shape, g.dtype, g.device), indices.reshape(indices.size), updates, axis=at)
    return out


_take_op: Op = define(
    "take",
    "x[S...] indices[I...]:int -> y[R...]",
    _take,
    vjp={"x": _take_dx},
    check=_in_range,
    infer=_taken,
    samples=lambda: [
        sample((4, 5), np.asarray([3, 0, 0, -1])), sample((4, 5), np.asarray([[1], [-5]]), axis=1),
        sample((2, 3, 1), np.asarray(2), axis=-2), sample((3, 0), np.asarray([1])),
    ],
    doc="Slices of x at the given positions of one axis, which the axes of `indices` replace.",
)  # fmt: skip


def take(x: Tensor, indices: Any, axis: int = 0) -> Tensor:
    """Slices at the given positions of an axis; the axes of `indices` (integers of any shape) replace that axis.

    Raises IndexRangeError for a position outside the axis.

    >>> take(dl.arange(10), dl.tensor([3, -1]))
    tensor([3, 9])
    """
    out: Tensor = _take_op(x, indices, axis=_axis("take", x, axis))
    return out


def _added(d: Dims, *, axis: int) -> Mapping[str, Any]:
    at = axis_index(axis, len(d.S))
    wanted = (*d.S[:at], d.K, *d.S[at + 1 :])
    if wanted != d.R:
        raise ShapeError(f"updates must have shape {wanted} for axis {axis}; got {d.R}")
    return {}


def _index_add_reference(xp: Any, x: Any, indices: Any, updates: Any, *, axis: int = 0) -> Any:
    y = xp.asarray(x, copy=True)
    xp.add.at(y, (slice(None),) * axis_index(axis, x.ndim) + (indices,), updates)
    return y


_index_add: Op = define(
    "index_add",
    "x[S...] indices[K]:int updates[R...] -> y[S...]",
    _index_add_reference,
    vjp={"x": lambda g: g, "updates": lambda g, indices, axis: _take_op(g, indices, axis=axis)},
    infer=_added,
    check=_in_range,
    samples=lambda: [
        sample((4, 5), np.asarray([3, 0, 3]), (3, 5)), sample((4, 5), np.asarray([1, -1, 1]), (4, 3), axis=1),
        sample((1,), np.asarray([0]), (1,)), sample((3, 2), np.asarray([], np.int64), (0, 2)),
    ],
    exempt=NO_SCATTER,
    doc="x with slices of `updates` added at positions of one axis; repeated positions add up, in order.",
)  # fmt: skip


def index_add(x: Tensor, indices: Any, updates: Tensor, axis: int = 0) -> Tensor:
    """`x` with slice k of `updates` added at position `indices[k]` of an axis; repeated positions add up, in order.

    indices: integers [K]. updates: shape of `x` with K in place of the axis.
    Raises IndexRangeError for a position outside the axis, ShapeError for updates that do not fit.

    >>> index_add(dl.zeros(3), dl.tensor([0, 2, 0]), dl.ones(3))
    tensor([2., 0., 1.])
    """
    out: Tensor = _index_add(x, indices, updates, axis=_axis("index_add", x, axis))
    return out


def _along(xp: Any, indices: Any, axis: int) -> tuple[Any, ...]:
    """The index that takes `indices` as positions of one axis and each element's own position on the others."""
    shapes = [tuple(n if i == j else 1 for j in range(indices.ndim)) for i, n in enumerate(indices.shape)]
    grid = [xp.reshape(xp.arange(n), s) for n, s in zip(indices.shape, shapes, strict=True)]
    grid[axis] = indices
    return tuple(grid)


def _like_but_along(d: Dims, *, axis: int, **_: Any) -> Mapping[str, Any]:
    at = axis_index(axis, len(d.S))
    if len(d.I) != len(d.S) or d.S[:at] + d.S[at + 1 :] != d.I[:at] + d.I[at + 1 :]:
        raise ShapeError(f"x{list(d.S)} and indices{list(d.I)} may differ along axis {axis} only")
    return {}


_along_samples: list[tuple[Shape, Any, int]] = [
    ((4, 5), [[0, -1, 2, 2, 0], [3, 3, 1, 0, 0]], 0),
    ((2, 3), [[2], [-3]], -1),
    ((1,), [0], 0),
]

_take_along: Op = define(
    "take_along_axis",
    "x[S...] indices[I...]:int -> y[I...]",
    lambda xp, x, indices, *, axis=-1: xp.take_along_axis(x, indices, axis=axis),
    vjp={"x": lambda g, indices, x_shape, axis: _scatter_add(zeros(x_shape, g.dtype, g.device), indices, g, axis=axis)},
    infer=_like_but_along,
    check=_in_range,
    samples=lambda: [
        *(sample(shape, np.asarray(indices), axis=axis) for shape, indices, axis in _along_samples),
        sample((0, 3), np.zeros((0, 2), np.int64)),
    ],
    doc="One element of x per index: the element at that position of the axis, at the index's own place on the others.",
)


def take_along_axis(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """Elements at `indices` along one axis: `y[i, j] = x[i, indices[i, j]]` for the last axis of a matrix.

    indices: integers of the shape of `x`, except along the axis.
    Raises IndexRangeError for a position outside the axis, ShapeError for other shapes.

    >>> take_along_axis(dl.tensor([[1.0, 2.0], [3.0, 4.0]]), dl.tensor([[1], [0]]))
    tensor([[2.],
            [3.]])
    """
    out: Tensor = _take_along(x, indices, axis=_axis("take_along_axis", x, axis))
    return out


def _scatter_add_reference(xp: Any, x: Any, indices: Any, updates: Any, *, axis: int = -1) -> Any:
    y = xp.asarray(x, copy=True)
    xp.add.at(y, _along(xp, indices, axis), updates)
    return y


_scatter_add: Op = define(
    "scatter_add",
    "x[S...] indices[I...]:int updates[I...] -> y[S...]",
    _scatter_add_reference,
    vjp={"x": lambda g: g, "updates": lambda g, indices, axis: _take_along(g, indices, axis=axis)},
    infer=_like_but_along,
    check=_in_range,
    samples=lambda: [
        *(sample(shape, np.asarray(ids), np.shape(ids), axis=axis) for shape, ids, axis in _along_samples),
        sample((2, 3), np.zeros((2, 0), np.int64), (2, 0)),
    ],
    exempt=NO_SCATTER,
    doc="x with each update added at its index along one axis; repeated positions add up, in order.",
)


def scatter_add(x: Tensor, indices: Any, updates: Tensor, axis: int = -1) -> Tensor:
    """`x` with each update added at its index along one axis; repeated positions add up, in order.

    indices, updates: the shape of `x`, except along the axis. Raises IndexRangeError and ShapeError as
    `take_along_axis` does, of which it is the adjoint.

    >>> scatter_add(dl.zeros(3), dl.tensor([0, 2, 0]), dl.ones(3))
    tensor([2., 0., 1.])
    """
    out: Tensor = _scatter_add(x, indices, updates, axis=_axis("scatter_add", x, axis))
    return out


def _scatter_reference(xp: Any, x: Any, indices: Any, updates: Any, *, axis: int = -1) -> Any:
    y = xp.asarray(x, copy=True)
    y[_along(xp, indices, axis)] = updates
    return y


def _scatter_vjp(g: Tensor, x_shape: Shape, indices: Tensor, axis: int, needs: Sequence[bool]) -> Any:
    """No gradient reaches an overwritten element of x, nor an update that a later one overwrote."""
    zero = zeros(indices.shape, g.dtype, g.device)
    dx = _scatter(g, indices, zero, axis=axis) if needs[0] else None
    if not needs[2]:
        return dx, None, None
    order = constant(np.arange(indices.size).reshape(indices.shape), device=g.device)
    last = _scatter(zeros(x_shape, order.dtype, g.device), indices, order, axis=axis)
    return dx, None, where(_take_along(last, indices, axis=axis) == order, _take_along(g, indices, axis=axis), 0.0)


_scatter: Op = define(
    "scatter",
    "x[S...] indices[I...]:int updates[I...] -> y[S...]",
    _scatter_reference,
    vjp=_scatter_vjp,
    infer=_like_but_along,
    check=_in_range,
    samples=_scatter_add.samples,
    exempt={"array_api": "the standard has no scatter"},
    doc="x with elements replaced at positions of one axis; of repeated positions the last wins.",
)


def scatter(x: Tensor, indices: Any, updates: Tensor, axis: int = -1) -> Tensor:
    """`x` with elements replaced at positions of one axis; of repeated positions the last wins.

    indices, updates: the shape of `x`, except along the axis. Raises IndexRangeError and ShapeError as
    `take_along_axis` does.

    >>> scatter(dl.zeros(3), dl.tensor([2]), dl.tensor([5.0]))
    tensor([0., 0., 5.])
    """
    out: Tensor = _scatter(x, indices, updates, axis=_axis("scatter", x, axis))
    return out
