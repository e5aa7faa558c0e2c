"""Sorting and what rests on it. Equal elements keep their order; NaN counts as larger than every number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dlcore.creation import asarray, zeros
from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import OPS, Arr, Op, Sample, define, sample
from dlcore.ops.elementwise import lerp
from dlcore.ops.shape import axis_index, moveaxis
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

Xp = Any


def _order(xp: Xp, x: Any, axis: int, descending: bool) -> Any:
    """Positions that sort x along an axis, equal elements in their order."""
    if not descending:
        return xp.argsort(x, axis=axis, stable=True)
    backwards = xp.argsort(xp.flip(x, axis=axis), axis=axis, stable=True)
    return x.shape[axis] - 1 - xp.flip(backwards, axis=axis)


def _sort(xp: Xp, x: Any, *, axis: int = -1, descending: bool = False) -> Any:
    order = _order(xp, x, axis, descending)
    return xp.take_along_axis(x, order, axis=axis), order


def _topk(xp: Xp, x: Any, *, k: int, axis: int = -1, largest: bool = True) -> Any:
    order = _order(xp, x, axis, largest)
    first = xp.moveaxis(xp.moveaxis(order, axis, 0)[:k, ...], 0, axis)
    return xp.take_along_axis(x, first, axis=axis), first


def _back(g: Tensor, indices: Tensor, x_shape: Shape, axis: int) -> Tensor:
    """The gradient of chosen elements at their places."""
    out: Tensor = OPS["scatter_add"](zeros(x_shape, g.dtype, g.device), indices, g, axis=axis)
    return out


def _sorted_sizes(d: Dims, *, axis: int, **_: Any) -> Mapping[str, Any]:
    axis_index(axis, len(d.S))
    return {}


def _topk_sizes(d: Dims, *, k: int, axis: int, **_: Any) -> Mapping[str, Any]:
    at = axis_index(axis, len(d.S))
    if not 0 <= k <= d.S[at]:
        raise ArgumentError(f"k must lie in [0, {d.S[at]}] for axis {axis} of x{list(d.S)}; got {k}")
    return {"R": (*d.S[:at], k, *d.S[at + 1 :])}


def _samples() -> Iterable[Sample]:
    for shape, axis, descending in [((3, 7), -1, False), ((2, 5, 3), 1, True), ((1,), 0, False), ((0, 3), 1, True)]:
        yield sample(Arr(shape, distinct=True), axis=axis, descending=descending)


def _topk_samples() -> Iterable[Sample]:
    for shape, k, axis, largest in [((3, 7), 3, -1, True), ((2, 5, 3), 2, 1, False), ((1,), 1, 0, True)]:
        yield sample(Arr(shape, distinct=True), k=k, axis=axis, largest=largest)
    yield sample(Arr((0, 3), distinct=True), k=2)


_sort_op: Op = define(
    "sort",
    "x[S...] -> values[S...] indices[S...]:int",
    _sort,
    vjp={"x": _back},
    infer=_sorted_sizes,
    samples=_samples,
    doc="Elements in order along an axis, and the positions they came from.",
)

_topk_op: Op = define(
    "topk",
    "x[S...] -> values[R...] indices[R...]:int",
    _topk,
    vjp={"x": _back},
    infer=_topk_sizes,
    samples=_topk_samples,
    doc="The k largest (or smallest) elements along an axis in order, and their positions.",
)


def sort(x: Any, axis: int = -1, descending: bool = False) -> Tensor:
    """Elements of `x` in order along an axis.

    >>> sort(dl.tensor([3.0, 1.0, 2.0]), descending=True)
    tensor([3., 2., 1.])
    """
    values: Tensor = _sort_op(x, axis=axis, descending=descending)[0]
    return values


def argsort(x: Any, axis: int = -1, descending: bool = False) -> Tensor:
    """Positions (int64) that put `x` in order along an axis; equal elements stay in their order.

    >>> argsort(dl.tensor([3.0, 1.0, 2.0]))
    tensor([1, 2, 0])
    """
    indices: Tensor = _sort_op(x, axis=axis, descending=descending)[1]
    return indices


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) elements along an axis, in order, and their positions (int64).

    Of equal elements the first come first. Raises ArgumentError when the axis has fewer than `k` elements.

    >>> topk(dl.tensor([3.0, 1.0, 2.0]), 2)
    (tensor([3., 2.]), tensor([0, 2]))
    """
    values, indices = _topk_op(x, k=k, axis=axis, largest=largest)
    return values, indices


# ---- order statistics


def quantile(x: Tensor, q: float, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Value below which the fraction `q` in [0, 1] of the elements lies, between two of them by linear interpolation.

    axis: None takes all elements. Raises ArgumentError for q outside [0, 1], ShapeError where there are no elements.

    >>> quantile(dl.tensor([0.0, 10.0, 20.0]), 0.25)
    tensor(5.)
    """
    if not 0 <= q <= 1:
        raise ArgumentError(f"quantile: q must lie in [0, 1]; got {q}")
    rows = x.reshape(-1) if axis is None else moveaxis(x, axis, -1)
    if rows.shape[-1] == 0:
        raise ShapeError(f"quantile: there is no element over axis {axis} of x{list(x.shape)}")
    place = q * (rows.shape[-1] - 1)
    low = int(place)
    ordered = sort(rows)
    out: Tensor = lerp(ordered[..., low], ordered[..., min(low + 1, rows.shape[-1] - 1)], place - low)
    return _with_axis(out, x, axis) if keepdims else out


def _with_axis(y: Tensor, x: Tensor, axis: int | None) -> Tensor:
    return y.reshape(tuple(1 if axis is None or i == axis_index(axis, x.ndim) else n for i, n in enumerate(x.shape)))


def median(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Middle element, or the mean of the two middle ones; see `quantile`.

    >>> median(dl.tensor([9.0, 1.0, 2.0]))
    tensor(2.)
    """
    return quantile(x, 0.5, axis, keepdims)


# ---- search


def _search_attrs(d: Dims, *, side: str) -> Mapping[str, Any]:
    if side not in ("left", "right"):
        raise ArgumentError(f"side must be 'left' or 'right'; got {side!r}")
    return {}


searchsorted = define(
    "searchsorted",
    "boundaries[N] x[S...] -> y[S...]:int",
    lambda xp, boundaries, x, *, side="left": xp.searchsorted(boundaries, x, side=side),
    infer=_search_attrs,
    samples=lambda: [
        sample(np.asarray([-1.0, 0.0, 0.5, 0.5, 2.0]), (3, 5)),
        sample(np.asarray([1, 4, 4, 6]), Arr((7,), 0, 9, dtype="int64"), side="right"),
        sample(np.asarray([1, 4, 4, 6]), Arr((), 0, 9, dtype="int64"), side="left"),
        sample(np.asarray([]), (2,)),
    ],
    doc="Where to insert each element of x into sorted boundaries to keep them sorted, before (or after) equal ones.",
)


def unique(x: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct elements of `x` in order, the position of each element of `x` among them, and how often each occurs.

    The result's size depends on the values, so this runs on the host and carries no gradient.

    >>> unique(dl.tensor([3, 1, 3]))
    (tensor([1, 3]), tensor([1, 0, 1]), tensor([1, 2]))
    """
    values, inverse, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    device = x.device if isinstance(x, Tensor) else None
    return asarray(values, device=device), asarray(inverse, device=device), asarray(counts, device=device)
