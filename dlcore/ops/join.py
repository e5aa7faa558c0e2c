"""Ops that join, split, repeat, pad and reorder along axes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import Op, define, sample
from dlcore.ops.shape import axis_index, axis_tuple, broadcast_to, expand_dims, moveaxis
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor


def _concatenated(d: Dims, *, axis: int) -> Mapping[str, Any]:
    first: Shape = d.xs[0]
    at = axis_index(axis, len(first))
    for shape in d.xs:
        if shape[:at] + shape[at + 1 :] != first[:at] + first[at + 1 :]:
            raise ShapeError(f"shapes {list(first)} and {list(shape)} may differ along axis {axis} only")
    return {"R": (*first[:at], sum(s[at] for s in d.xs), *first[at + 1 :])}


def _concat_vjp(g: Tensor, xs_shape: Sequence[Shape], needs: Sequence[bool], axis: int) -> tuple[Tensor | None, ...]:
    pieces = split(g, [s[axis] for s in xs_shape], axis=axis)
    return tuple(piece if needed else None for piece, needed in zip(pieces, needs, strict=True))


_concat: Op = define(
    "concat",
    "*xs[...] -> y[R...]",
    lambda xp, *xs, axis=0: xp.concat(xs, axis=axis),
    vjp=_concat_vjp,
    infer=_concatenated,
    samples=lambda: [
        sample((2, 3), (1, 3), (2, 3)), sample((2, 1), (2, 4), axis=-1), sample((1,)), sample((0, 2), (3, 2)),
    ],
    doc="Operands joined along an axis.",
)  # fmt: skip


def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along an axis. Raises ShapeError when other axes differ or there is none to join.

    >>> concat([dl.zeros((2, 3)), dl.ones((1, 3))]).shape
    (3, 3)
    """
    if not len(xs):
        raise ShapeError("concat: no tensor to join")
    out: Tensor = _concat(*xs, axis=axis)
    return out


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis. Raises ShapeError where shapes differ.

    >>> stack([dl.zeros(3), dl.ones(3)], axis=1).shape
    (3, 2)
    """
    shapes = [x.shape for x in xs]
    if len(set(shapes)) > 1:
        raise ShapeError(f"stack: shapes differ: {', '.join(map(str, shapes))}")
    return concat([expand_dims(x, axis) for x in xs], axis)


def _slices(axis: int, rank: int, *bounds: int | None) -> tuple[slice, ...]:
    """An index that slices one axis."""
    return (slice(None),) * axis_index(axis, rank) + (slice(*bounds),)


def _pieces(d: Dims, *, sizes: Sequence[int], axis: int) -> Mapping[str, Any]:
    at = axis_index(axis, len(d.S))
    if len(sizes) < 2 or sum(sizes) != d.S[at] or min(sizes) < 0:
        raise ShapeError(f"sizes {list(sizes)} do not add up to axis {axis} of size {d.S[at]}")
    return {"ys": [(*d.S[:at], size, *d.S[at + 1 :]) for size in sizes]}


def _split_reference(xp: Any, x: Any, *, sizes: Sequence[int] = (), axis: int = 0) -> tuple[Any, ...]:
    stops = itertools.accumulate(sizes)
    return tuple(x[*_slices(axis, x.ndim, stop - size, stop), ...] for size, stop in zip(sizes, stops, strict=True))


_split: Op = define(
    "split",
    "x[S...]:any -> *ys[...]",
    _split_reference,
    vjp={"x": lambda g_ys, axis: concat(g_ys, axis)},
    infer=_pieces,
    view=True,
    samples=lambda: [
        sample((5, 2), sizes=(2, 3)), sample((1, 6), sizes=(1, 2, 3), axis=-1), sample((0, 3), sizes=(0, 3), axis=1),
    ],
    doc="Pieces along an axis, without copying; at least two.",
)  # fmt: skip


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Pieces of `x` along an axis: of the given sizes, or of one size (the last piece may be smaller).

    Raises ShapeError when the sizes do not add up to the axis.

    >>> [p.shape for p in split(dl.ones((5, 2)), 2)]
    [(2, 2), (2, 2), (1, 2)]
    """
    n = x.shape[axis_index(axis, x.ndim)]
    if isinstance(sizes, int):
        if sizes <= 0:
            raise ShapeError(f"split: pieces of size {sizes}")
        sizes = [min(sizes, n - start) for start in range(0, n, sizes)] or [0]
    if list(sizes) == [n]:
        return (x,)
    pieces: tuple[Tensor, ...] = _split(x, sizes=tuple(sizes), axis=axis)
    return pieces


def chunk(x: Tensor, count: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `count` pieces of equal size along an axis (the last may be smaller)."""
    if count <= 0:
        raise ShapeError(f"chunk: {count} pieces")
    return split(x, max(1, -(-x.shape[axis_index(axis, x.ndim)] // count)), axis)


def unstack(x: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without that axis."""
    return tuple(moveaxis(x, axis, 0))


def flip(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Reversed order along axes (all when None)."""
    axes = axis_tuple(axis, x.ndim)
    return x[tuple(slice(None, None, -1 if i in axes else 1) for i in range(x.ndim))]


def roll(x: Tensor, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Elements moved on by `shift` places along axes, those that fall off coming back at the start.

    axis None rolls the flattened elements. Raises ShapeError when shifts and axes differ in number.

    >>> roll(dl.arange(4), 1)
    tensor([3, 0, 1, 2])
    """
    if axis is None:
        return roll(x.reshape(x.size), shift, 0).reshape(x.shape)
    shifts, axes = (v if isinstance(v, tuple) else (v,) for v in (shift, axis))
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for s, a in zip(shifts, axes, strict=True):
        n = x.shape[axis_index(a, x.ndim)]
        cut = n - s % n if n else 0
        x = concat([x[_slices(a, x.ndim, cut, None)], x[_slices(a, x.ndim, 0, cut)]], a)
    return x


def tile(x: Tensor, repetitions: Sequence[int]) -> Tensor:
    """The whole of `x` repeated along each axis (missing leading entries or axes count as 1).

    >>> tile(dl.tensor([1, 2]), (2, 2))
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    rank = max(x.ndim, len(repetitions))
    times = (1,) * (rank - len(repetitions)) + tuple(repetitions)
    sizes = (1,) * (rank - x.ndim) + x.shape
    if min(times, default=0) < 0:
        raise ArgumentError(f"tile: negative repetitions {times}")
    once = x.reshape(tuple(n for size in sizes for n in (1, size)))
    repeated: Tensor = broadcast_to(once, shape=tuple(n for pair in zip(times, sizes, strict=True) for n in pair))
    return repeated.reshape(tuple(t * n for t, n in zip(times, sizes, strict=True)))


def repeat(x: Tensor, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element repeated in place along an axis (flattened when None), by one count or one per element.

    >>> repeat(dl.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    """
    if axis is None:
        return repeat(x.reshape(x.size), repeats, 0)
    at = axis_index(axis, x.ndim)
    counts = np.asarray(repeats)
    if counts.min(initial=0) < 0 or counts.shape not in ((), x.shape[at : at + 1]):
        raise ArgumentError(f"repeat: expected a count >= 0, or one per element of axis {axis}; got {repeats}")
    return _at(x, np.repeat(np.arange(x.shape[at]), counts), at)


def _at(x: Tensor, positions: Any, axis: int) -> Tensor:
    """Slices at positions of an axis."""
    return x[(slice(None),) * axis + (positions,)]


def _padded(d: Dims, *, widths: Sequence[tuple[int, int]], value: float) -> Mapping[str, Any]:
    return {"R": tuple(n + before + after for n, (before, after) in zip(d.S, widths, strict=True))}


def _inside(shape: Shape, widths: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, widths, strict=True))


def _pad(xp: Any, x: Any, *, widths: Sequence[tuple[int, int]] = (), value: float = 0) -> Any:
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    y = xp.full(shape, value, dtype=x.dtype)
    y[_inside(x.shape, widths)] = x
    return y


_pad_op: Op = define(
    "pad",
    "x[S...] -> y[R...]",
    _pad,
    vjp={"x": lambda g, x_shape, widths: g[_inside(x_shape, widths)]},
    infer=_padded,
    samples=lambda: [
        sample((2, 3), widths=((1, 0), (2, 3)), value=2), sample((), widths=()), sample((1, 0), widths=((0, 0), (1, 1)))
    ],
    doc="x with elements of one value put around it.",
)  # fmt: skip

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # as NumPy calls them


def pad(x: Tensor, widths: int | Sequence[tuple[int, int]], mode: str = "constant", value: float = 0) -> Tensor:
    """`x` with elements put before and after it.

    widths: (before, after) for each axis, or one int for all sides. mode: `constant` (filled with `value`), `reflect`
    (mirrored without the edge), `replicate` (the edge repeated) or `circular` (from the other end).
    Raises ArgumentError for an unknown mode or widths that are negative or too large, ShapeError for too few.

    >>> pad(dl.tensor([1, 2, 3]), 2, mode="reflect")
    tensor([3, 2, 1, 2, 3, 2, 1])
    """
    pairs = tuple(((widths, widths),) * x.ndim if isinstance(widths, int) else ((a, b) for a, b in widths))
    if len(pairs) != x.ndim:
        raise ShapeError(f"pad: {len(pairs)} pairs of widths for {x.ndim} axes")
    if min((n for pair in pairs for n in pair), default=0) < 0:
        raise ArgumentError(f"pad: negative width in {pairs}; slice to crop")
    if mode == "constant":
        out: Tensor = _pad_op(x, widths=pairs, value=value)
        return out
    if mode not in _PAD_MODES:
        raise ArgumentError(f"pad: unknown mode {mode!r}; expected constant, {', '.join(_PAD_MODES)}")
    for axis, pair in enumerate(pairs):
        if max(pair):
            x = _at(x, _padded_positions(x.shape[axis], pair, mode), axis)
    return x


def _padded_positions(size: int, pair: tuple[int, int], mode: str) -> Any:
    """Where the elements of a padded axis come from."""
    most = {"reflect": size - 1, "circular": size, "replicate": max(pair) * min(size, 1)}[mode]
    if max(pair) > most:
        raise ArgumentError(f"pad: mode {mode!r} takes widths up to {most} for an axis of size {size}; got {pair}")
    modes: Any = _PAD_MODES
    return np.pad(np.arange(size), pair, mode=modes[mode])


def _triangle(name: str, doc: str, reference: Callable[..., Any]) -> Op:
    record: Op = define(
        name,
        "x[...,M,N] -> y[...,M,N]",
        reference,
        vjp={"x": lambda g, k: record(g, k=k)},
        samples=lambda: [sample((3, 5)), sample((2, 4, 3), k=-1), sample((1, 1), k=1), sample((0, 2))],
        doc=doc,
    )
    return record


tril = _triangle("tril", "Zero above diagonal k of the last two axes.", lambda xp, x, *, k=0: xp.tril(x, k=k))
triu = _triangle("triu", "Zero below diagonal k of the last two axes.", lambda xp, x, *, k=0: xp.triu(x, k=k))


def diagonal(x: Tensor, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    """The elements `x[i, i + offset]` of two axes, as a new last axis.

    >>> diagonal(dl.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    i = np.arange(max(0, -offset), max(0, min(rows, columns - offset)))
    return x[..., i, i + offset]
