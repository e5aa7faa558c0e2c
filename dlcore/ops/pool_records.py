"""The records of max and average pooling and their gradients; `pool.py` holds the functions that users call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from dlcore.errors import ShapeError
from dlcore.op import OPS, Arr, Op, Sample, define, sample
from dlcore.ops import window
from dlcore.ops.conv_records import SPACE
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor


def _positions(xp: Any, size: Shape, padding: Shape, total: Shape) -> Any:
    """Row-major position of each element of the padded input, -1 in the padding."""
    return window.pad(xp, xp.reshape(xp.arange(prod(size)), size), padding, total, value=-1)


def _max_pool(
    xp: Any, x: Any, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool = False
) -> Any:
    size = x.shape[2:]
    out = window.output_sizes(size, kernel, stride, padding, dilation, ceil_mode)
    total = window.covered(size, out, kernel, stride, padding, dilation)
    wide, positions = window.pad(xp, x, padding, total), _positions(xp, size, padding, total)
    best = xp.zeros((*x.shape[:2], *out), dtype=x.dtype)
    index = xp.full(best.shape, -1, dtype=positions.dtype)
    for view in window.views(kernel, out, stride, dilation):
        value, position = wide[view], positions[view]
        larger = (index < 0) | (value > best) | (value != value)  # the first of equals; NaN beats all
        wins = (position >= 0) & larger
        best, index = xp.where(wins, value, best), xp.where(wins, position, index)
    return best, index


def _max_pool_grad(
    xp: Any, dy: Any, i: Any, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    out = dy.shape[2:]
    total = window.covered(size, out, kernel, stride, padding, dilation)
    positions = _positions(xp, size, padding, total)
    wide = xp.zeros((*dy.shape[:2], *total), dtype=dy.dtype)
    for view in window.views(kernel, out, stride, dilation):
        wide[view] += xp.where(i == positions[view], dy, xp.zeros_like(dy))
    return wide[window.inner(padding, size)]


def _counts(
    xp: Any, like: Any, size: Shape, out: Shape, kernel: Shape, stride: Shape, padding: Shape, include_pad: bool
) -> Any:
    """How many elements each window averages: those inside the input, or inside input and padding."""
    counts = xp.ones((), dtype=like.dtype)
    for n, o, k, s, p in zip(size, out, kernel, stride, padding, strict=True):
        low, high = (-p, n + p) if include_pad else (0, n)
        starts = [j * s - p for j in range(o)]
        along = xp.asarray([min(a + k, high) - max(a, low) for a in starts], dtype=like.dtype)
        counts = counts[..., None] * along
    return counts


def _avg_pool(
    xp: Any, x: Any, *, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    size, ones = x.shape[2:], (1,) * len(kernel)
    out = window.output_sizes(size, kernel, stride, padding, ones, ceil_mode)
    wide = window.pad(xp, x, padding, window.covered(size, out, kernel, stride, padding, ones))
    total = xp.zeros((*x.shape[:2], *out), dtype=x.dtype)
    for view in window.views(kernel, out, stride, ones):
        total += wide[view]
    return total / _counts(xp, x, size, out, kernel, stride, padding, count_include_pad)


def _avg_pool_grad(
    xp: Any, dy: Any, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    out, ones = dy.shape[2:], (1,) * len(kernel)
    wide = xp.zeros((*dy.shape[:2], *window.covered(size, out, kernel, stride, padding, ones)), dtype=dy.dtype)
    share = dy / _counts(xp, dy, size, out, kernel, stride, padding, count_include_pad)
    for view in window.views(kernel, out, stride, ones):
        wide[view] += share
    return wide[window.inner(padding, size)]


class Family:
    """The pooling ops of one rank: `max_pool<rank>d`, `avg_pool<rank>d` and the gradient of each."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.X, _, self.Y = SPACE[rank]
        self.x, self.y = f"[N,C,{self.X}]", f"[N,C,{self.Y}]"
        self.max, self.max_grad = self._define_max(f"max_pool{rank}d")
        self.avg, self.avg_grad = self._define_avg(f"avg_pool{rank}d")

    def _define_max(self, name: str) -> tuple[Op, Op]:
        forward: Op = define(
            name,
            f"x{self.x} -> y{self.y} i{self.y}:int",
            _max_pool,
            vjp={"x": lambda g, i, x_shape, attrs: backward(g, i, size=x_shape[2:], **attrs)},
            infer=self._out_dims,
            samples=lambda: [sample(Arr(x, distinct=True), **a) for x, a in _max_cases(self.rank)],
            doc=f"Largest element of each window, and its row-major position among the spatial axes. See `dl.{name}`.",
        )
        backward: Op = define(
            f"{name}_grad",
            f"dy{self.y} i{self.y}:int -> dx{self.x}",
            _max_pool_grad,
            vjp={"dy": _taken},
            infer=self._in_dims,
            samples=self._max_grad_samples,
            doc=f"Gradient of `{name}` for x of spatial sizes `size`: dy added up at the positions i.",
        )
        return forward, backward

    def _define_avg(self, name: str) -> tuple[Op, Op]:
        forward: Op = define(
            name,
            f"x{self.x}:float -> y{self.y}",
            _avg_pool,
            vjp={"x": lambda g, x_shape, attrs: backward(g, size=x_shape[2:], **attrs)},
            infer=self._out_dims,
            samples=lambda: [sample(x, **a) for x, a in _avg_cases(self.rank)],
            doc=f"Mean of each window. See `dl.{name}`.",
        )
        backward: Op = define(
            f"{name}_grad",
            f"dy{self.y}:float -> dx{self.x}",
            _avg_pool_grad,
            vjp={"dy": lambda g, attrs: forward(g, **_without(attrs, "size"))},
            infer=self._in_dims,
            samples=self._avg_grad_samples,
            doc=f"Gradient of `{name}` for x of spatial sizes `size`: dy spread evenly over its windows.",
        )
        return forward, backward

    def _out_dims(
        self, d: Dims, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape | None = None,
        ceil_mode: bool, **_: Any,
    ) -> Mapping[str, Any]:  # fmt: skip
        dilation = dilation or (1,) * self.rank
        window.check(self.rank, 1, kernel=kernel, stride=stride, dilation=dilation)
        window.check(self.rank, 0, padding=padding)
        size = window.pick(d, self.X)
        out = window.output_sizes(size, kernel, stride, padding, dilation, ceil_mode)
        _check_windows(size, out, kernel, stride, padding, dilation)
        return dict(zip(self.Y.split(","), out, strict=True))

    def _in_dims(self, d: Dims, *, size: Shape, **attrs: Any) -> Mapping[str, Any]:
        window.check(self.rank, 0, size=size)
        found = dict(zip(self.X.split(","), size, strict=True))
        expected, got = tuple(self._out_dims(Dims(d | found), **attrs).values()), window.pick(d, self.Y)
        if expected != got:
            raise ShapeError(f"these sizes give dy[N,C,{','.join(map(str, expected))}]; got {got}")
        return found

    def _max_grad_samples(self) -> Iterable[Sample]:
        rng = np.random.default_rng(0)
        for x, attrs in _max_cases(self.rank):
            _, i = _max_pool(np, rng.normal(size=x), **attrs)
            yield sample(i.shape, i, size=x[2:], **attrs)

    def _avg_grad_samples(self) -> Iterable[Sample]:
        for x, attrs in _avg_cases(self.rank):
            yield sample(self.avg.resolve([x], {**self.avg.attrs, **attrs})[1][0], size=x[2:], **attrs)


def _taken(g: Tensor, i: Tensor) -> Tensor:
    """Elements of `g[N,C,S...]` at the positions `i[N,C,P...]`."""
    lead = i.shape[:2]
    flat = g.reshape(*lead, prod(g.shape[2:])), i.reshape(*lead, prod(i.shape[2:]))
    found: Tensor = OPS["take_along_axis"](*flat, axis=-1).reshape(i.shape)
    return found


def _check_windows(size: Shape, out: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> None:
    for n, o, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True):
        starts = [j * s - p for j in range(o)]
        if not all(any(0 <= a + t * d < n for t in range(k)) for a in starts):
            raise ShapeError(f"a window of {k} (dilation {d}) lies wholly in the padding of {p}")


def _without(attrs: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in attrs.items() if k != name}


def _max_cases(rank: int) -> Iterable[tuple[Shape, dict[str, Any]]]:
    """Shapes of x with attributes: overlapping, gapped, padded and dilated windows, odd and zero sizes."""
    if rank == 3:
        plain: dict[str, Any] = {"kernel": (2, 1, 2), "stride": (2, 1, 1), "padding": (0,) * 3, "dilation": (1,) * 3}
        return [((1, 2, 4, 2, 3), plain), ((2, 1, 3, 2, 3), {**plain, "ceil_mode": True}), ((0, 1, 2, 2, 2), plain)]
    plain = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    return [
        ((2, 3, 4, 6), plain),
        ((1, 2, 5, 5), {**plain, "kernel": (3, 2), "padding": (1, 1), "stride": (1, 3), "ceil_mode": True}),
        ((2, 1, 6, 5), {**plain, "kernel": (2, 3), "dilation": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
        ((1, 1, 1, 1), {**plain, "kernel": (1, 1)}),
        ((0, 2, 3, 3), plain),
    ]


def _avg_cases(rank: int) -> Iterable[tuple[Shape, dict[str, Any]]]:
    for x, attrs in _max_cases(rank):
        yield x, {"ceil_mode": False, **_without(attrs, "dilation"), "count_include_pad": x[0] == 1}


FAMILY = {rank: Family(rank) for rank in SPACE}
