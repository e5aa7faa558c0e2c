"""Indexing, masks and one-hot vectors. Positions may be negative: they count from the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlcore import dtypes, indexing
from dlcore.creation import asarray
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError, named
from dlcore.op import Arr, Op, define, sample
from dlcore.ops.shape import where
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

NO_SCATTER = {"array_api": "the standard has no scatter in which repeated positions add up"}


def _indexed(d: Dims, *, index: indexing.Key) -> dict[str, Any]:
    probe = np.broadcast_to(np.empty((), np.bool_), d.S)
    try:
        return {"R": probe[indexing.decode(index, [np.zeros(s, np.int64) for s in d.ids])].shape}
    except IndexError:
        raise ShapeError(f"index arrays of shapes {', '.join(map(str, d.ids))} do not broadcast") from None


getitem: Op = define(
    "getitem",
    "x[S...] *ids[...]:int -> y[R...]",
    lambda xp, x, *ids, index=(): x[indexing.decode(index, ids)],
    vjp={"x": lambda g, ids, x_shape, index: getitem_grad(g, *ids, index=index, shape=x_shape)},
    infer=_indexed,
    check=lambda read, x, *ids, index: indexing.check(index, x.shape, [read(i) for i in ids]),
    view=True,
    samples=lambda: [
        sample((4, 5), index=(1, ("slice", None, None, 2))),
        sample((4, 5), np.asarray([3, 0, 0]), index=(("array", 0), "...")),
        sample((4, 3, 5), np.asarray([[3], [-1]]), np.asarray([0, 0]), index=(("array", 0), "...", ("array", 1))),
        sample((3, 1), index=(("slice", None, None, -1), None, 0)),
        sample((3, 0), index=("...", None)),
    ],
    exempt={"array_api": "the standard leaves indexing with integer arrays and slices together undefined"},
    doc="Elements by a NumPy-style index; written `x[...]`.",
)


def _getitem_grad(xp: Any, g: Any, *ids: Any, index: indexing.Key = (), shape: Shape = ()) -> Any:
    y = xp.zeros(shape, dtype=g.dtype)
    if ids:
        xp.add.at(y, indexing.decode(index, ids), g)
    else:
        y[indexing.decode(index, ids)] = g
    return y


def _placed(d: Dims, *, index: indexing.Key, shape: Shape) -> dict[str, Any]:
    expected = _indexed(Dims(S=shape, ids=d.ids), index=index)["R"]
    if expected != d.R:
        raise ShapeError(f"the index selects shape {expected}; got {d.R}")
    return {"S": tuple(shape)}


getitem_grad: Op = define(
    "getitem_grad",
    "g[R...] *ids[...]:int -> dx[S...]",
    _getitem_grad,
    vjp={"g": lambda g, ids, index: getitem(g, *ids, index=index)},
    infer=_placed,
    samples=lambda: [
        sample((3,), index=(1, ("slice", None, None, 2)), shape=(4, 5)),
        sample((3, 5), np.asarray([3, 0, 0]), index=(("array", 0), "..."), shape=(4, 5)),
        sample((0,), np.asarray([], np.int64), index=(("array", 0),), shape=(3,)),
    ],
    exempt=NO_SCATTER,
    doc="Zeros of `shape` with g added at the indexed positions: the adjoint of getitem.",
)


def _counted(d: Dims, *, num_classes: int, **_: Any) -> Mapping[str, Any]:
    if num_classes < 0:
        raise ArgumentError(f"num_classes must not be negative; got {num_classes}")
    return {"C": num_classes}


_one_hot: Op = define(
    "one_hot",
    "labels[S...]:int -> y[S...,C]",
    lambda xp, labels, *, num_classes=0, dtype=dtypes.float32: labels[..., None] == xp.arange(num_classes),
    infer=_counted,
    check=lambda read, labels, *, num_classes, dtype: labels_in_range(read(labels), num_classes),
    dtype=lambda promoted, attrs: attrs["dtype"],
    samples=lambda: [
        sample(Arr((2, 3), 0, 4, dtype="int64"), num_classes=4),
        sample(Arr((), 0, 4, dtype="int64"), num_classes=4, dtype=dtypes.int64),
        sample(Arr((0,), dtype="int64"), num_classes=2),
    ],
    doc="1 at the label's place along a new last axis, 0 elsewhere.",
)


def one_hot(labels: Any, num_classes: int, dtype: Any = float) -> Tensor:
    """1 at each label's place along a new last axis of size `num_classes`, 0 elsewhere.

    Raises IndexRangeError for a label outside [0, num_classes).

    >>> one_hot(dl.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    out: Tensor = _one_hot(labels, num_classes=num_classes, dtype=dtypes.dtype(dtype))
    return out


NO_CLASS = "label {} is out of range for {} classes"


def check_labels(name: str, labels: Any, num_classes: int, ignored: int | None = None) -> None:
    """Raise IndexRangeError that starts with `name` for a label outside [0, num_classes) that is not `ignored`."""
    with named(name):
        labels_in_range(labels, num_classes, ignored)


def labels_in_range(labels: Any, num_classes: int, ignored: int | None = None) -> None:
    """Raise IndexRangeError for a label outside [0, num_classes) that is not `ignored`."""
    host = np.asarray(labels)
    if not host.size or (host.min() >= 0 and host.max() < num_classes):
        return
    bad = (host < 0) | (host >= num_classes)
    if ignored is not None:
        bad &= host != ignored
    if bad.any():
        raise IndexRangeError(NO_CLASS.format(host[bad][0], num_classes))


def masked_fill(x: Tensor, mask: Any, value: float) -> Tensor:
    """`value` where the boolean mask (which broadcasts) is true, else `x`."""
    out: Tensor = where(mask, value, x)
    return out


def masked_select(x: Tensor, mask: Any) -> Tensor:
    """The elements at which the boolean mask (which broadcasts to x) is true, as a vector. Reads the mask on the host.

    >>> masked_select(dl.arange(4), dl.tensor([True, False, True, False]))
    tensor([0, 2])
    """
    host = np.asarray(mask)
    try:
        return x[np.broadcast_to(host, x.shape)]
    except ValueError:
        raise ShapeError(f"masked_select: mask{list(host.shape)} does not broadcast to x{list(x.shape)}") from None


def nonzero(x: Tensor) -> tuple[Tensor, ...]:
    """Positions of the elements that are not zero, one integer vector per axis. Reads `x` on the host."""
    return tuple(asarray(positions, device=x.device) for positions in np.nonzero(np.asarray(x)))
