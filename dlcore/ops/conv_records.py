"""The records of convolutions and their two adjoints; `conv.py` holds the functions that users call.

`conv`, `conv_dx` and `conv_dw` are the three ways to contract x, w and y, so each is a gradient of the others and
gradients of every order exist. The
references add up one matrix product per kernel tap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import Op, define, sample
from dlcore.ops import window
from dlcore.ops.reduce import sum
from dlcore.signature import Dims, Shape


def _columns(xp: Any, x: Any, groups: int) -> Any:
    """`x[N,G*C,S...]` as `[N,G,C,S]`."""
    n, c = x.shape[:2]
    return xp.reshape(x, (n, groups, c // groups, prod(x.shape[2:])))


def _rows(xp: Any, x: Any, groups: int) -> Any:
    """`x[N,G*C,S...]` as `[G,C,N*S]`."""
    n, c = x.shape[:2]
    moved = xp.permute_dims(x, (1, 0, *range(2, x.ndim)))
    return xp.reshape(moved, (groups, c // groups, n * prod(x.shape[2:])))


def _taps(xp: Any, w: Any, groups: int) -> list[Any]:
    """`w[O,CG,K...]` as one `[G,OG,CG]` per tap."""
    o, cg, *kernel = w.shape
    moved = xp.permute_dims(w, (*range(2, w.ndim), 0, 1))
    stacked = xp.reshape(moved, (prod(kernel), groups, o // groups, cg))
    return [stacked[i, ...] for i in range(prod(kernel))]


def _conv(xp: Any, x: Any, w: Any, b: Any, *, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Any:
    n, o, size, kernel = x.shape[0], w.shape[0], x.shape[2:], w.shape[2:]
    out = window.output_sizes(size, kernel, stride, padding, dilation)
    wide = window.pad(xp, x, padding, window.padded(size, padding))
    y = xp.zeros((n, groups, o // groups, prod(out)), dtype=x.dtype)
    for tap, view in zip(_taps(xp, w, groups), window.views(kernel, out, stride, dilation), strict=True):
        y += xp.matmul(tap, _columns(xp, wide[view], groups))
    y = xp.reshape(y, (n, o, *out))
    return y if b is None else y + xp.reshape(b, (o, *(1 for _ in out)))


def _conv_dx(
    xp: Any, dy: Any, w: Any, *, size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> Any:
    n, c, out, kernel = dy.shape[0], w.shape[1] * groups, dy.shape[2:], w.shape[2:]
    wide = xp.zeros((n, c, *window.padded(size, padding)), dtype=dy.dtype)
    columns = _columns(xp, dy, groups)
    for tap, view in zip(_taps(xp, w, groups), window.views(kernel, out, stride, dilation), strict=True):
        wide[view] += xp.reshape(xp.matmul(xp.matrix_transpose(tap), columns), (n, c, *out))
    return wide[window.inner(padding, size)]


def _conv_dw(
    xp: Any, dy: Any, x: Any, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> Any:
    wide = window.pad(xp, x, padding, window.padded(x.shape[2:], padding))
    rows = _rows(xp, dy, groups)
    views = window.views(kernel, dy.shape[2:], stride, dilation)
    taps = [xp.matmul(rows, xp.matrix_transpose(_rows(xp, wide[view], groups))) for view in views]
    return xp.reshape(xp.stack(taps, axis=-1), (dy.shape[1], x.shape[1] // groups, *kernel))


SPACE = {2: ("H,W", "KH,KW", "P,Q"), 3: ("D,H,W", "KD,KH,KW", "R,P,Q")}
"""Names of the spatial dims of x, w and y by rank."""


class Family:
    """The ops `conv<rank>d`, `conv<rank>d_dx` and `conv<rank>d_dw`."""

    def __init__(self, rank: int) -> None:
        self.rank, self.name = rank, f"conv{rank}d"
        self.X, self.K, self.Y = SPACE[rank]
        x, w, y = f"[N,C,{self.X}]", f"[O,CG,{self.K}]", f"[N,O,{self.Y}]"
        self.conv = self._define_conv(f"x{x} w{w} b[O]? -> y{y}")
        self.dx = self._define_dx(f"dy{y} w{w} -> dx{x}")
        self.dw = self._define_dw(f"dy{y} x{x} -> dw{w}")

    def _define_conv(self, signature: str) -> Op:
        return define(
            self.name,
            signature,
            _conv,
            infer=self._conv_dims,
            flops=self._flops,
            vjp={
                "x": lambda g, w, x_shape, attrs: self.dx(g, w, size=x_shape[2:], **attrs),
                "w": lambda g, x, w_shape, attrs: self.dw(g, x, kernel=w_shape[2:], **attrs),
                "b": lambda g: sum(g, axis=(0, *range(2, g.ndim))),
            },
            samples=lambda: [
                sample(x, w, (w[0],) if i % 2 == 0 else None, **a) for i, (x, w, a) in enumerate(_cases(self.rank))
            ],
            doc=f"Cross-correlation of x with the kernels w; CG is C / groups. See `dl.{self.name}`.",
        )

    def _define_dx(self, signature: str) -> Op:
        return define(
            f"{self.name}_dx",
            signature,
            _conv_dx,
            infer=self._dx_dims,
            flops=self._flops,
            vjp={
                "dy": lambda g, w, attrs: self.conv(g, w, **_without(attrs, "size")),
                "w": lambda g, dy, w_shape, attrs: self.dw(dy, g, kernel=w_shape[2:], **_without(attrs, "size")),
            },
            samples=lambda: [sample(self._y(x, w, a), w, size=x[2:], **a) for x, w, a in _cases(self.rank)],
            doc=f"Gradient of `{self.name}` for x of spatial sizes `size`: spreads dy through the kernels.",
        )

    def _define_dw(self, signature: str) -> Op:
        return define(
            f"{self.name}_dw",
            signature,
            _conv_dw,
            infer=self._dw_dims,
            flops=self._flops,
            vjp={
                "dy": lambda g, x, attrs: self.conv(x, g, **_without(attrs, "kernel")),
                "x": lambda g, dy, x_shape, attrs: self.dx(dy, g, size=x_shape[2:], **_without(attrs, "kernel")),
            },
            samples=lambda: [sample(self._y(x, w, a), x, kernel=w[2:], **a) for x, w, a in _cases(self.rank)],
            doc=f"Gradient of `{self.name}` for w of spatial sizes `kernel`: correlates dy with x.",
        )

    def _conv_dims(self, d: Dims, **attrs: Any) -> Mapping[str, Any]:
        self._check(d, **attrs)
        if d.CG * attrs["groups"] != d.C:
            raise ShapeError(self._channel_mismatch(d, attrs["groups"]))
        return dict(zip(self.Y.split(","), self._output(d, **attrs), strict=True))

    def _dx_dims(self, d: Dims, *, size: Shape, **attrs: Any) -> Mapping[str, Any]:
        window.check(self.rank, 0, size=size)
        self._check(d, **attrs)
        return self._fit(d, {"C": d.CG * attrs["groups"]} | dict(zip(self.X.split(","), size, strict=True)), **attrs)

    def _dw_dims(self, d: Dims, *, kernel: Shape, **attrs: Any) -> Mapping[str, Any]:
        window.check(self.rank, 1, kernel=kernel)
        self._check(d, **attrs)
        if d.C % attrs["groups"]:
            raise ArgumentError(f"{d.C} input channels do not split into {attrs['groups']} groups")
        return self._fit(d, {"CG": d.C // attrs["groups"]} | dict(zip(self.K.split(","), kernel, strict=True)), **attrs)

    def _check(self, d: Dims, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> None:
        window.check(self.rank, 1, stride=stride, dilation=dilation)
        window.check(self.rank, 0, padding=padding)
        if groups < 1 or d.O % groups:
            raise ArgumentError(f"{d.O} output channels do not split into {groups} groups")

    def _output(self, d: Dims, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Shape:
        return window.output_sizes(window.pick(d, self.X), window.pick(d, self.K), stride, padding, dilation)

    def _fit(self, d: Dims, found: dict[str, Any], **attrs: Any) -> Mapping[str, Any]:
        """The sizes found for the output, refused where dy is not of the shape that they give."""
        expected, got = self._output(Dims(d | found), **attrs), window.pick(d, self.Y)
        if expected != got:
            raise ShapeError(f"these sizes give dy[N,O,{','.join(map(str, expected))}]; got {got}")
        return found

    def _channel_mismatch(self, d: Dims, groups: int) -> str:
        x = ",".join(map(str, (d.N, d.C, *window.pick(d, self.X))))
        w = ",".join(map(str, (d.O, d.CG, *window.pick(d, self.K))))
        channels, wanted = ("C", f"{d.CG}") if groups == 1 else ("C/groups", f"{groups}*{d.CG}")
        expected = f"x[N,C,{self.X}] w[O,{channels},{self.K}]"
        return f"expected {expected}; got x[{x}] w[{w}] (C: {d.C} vs {wanted})"

    def _flops(self, d: Dims) -> int:
        return 2 * prod((d.N, d.O, d.CG, *window.pick(d, self.K), *window.pick(d, self.Y)))

    def _y(self, x: Shape, w: Shape, attrs: Mapping[str, Any]) -> Shape:
        return self.conv.resolve([x, w, None], attrs)[1][0]


def _without(attrs: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in attrs.items() if k != name}


def _cases(rank: int) -> Iterable[tuple[Shape, Shape, dict[str, Any]]]:
    """Shapes of x and w with attributes: odd, size-1, zero-size, and each attribute in play."""
    plain = {"stride": (1,) * rank, "padding": (0,) * rank, "dilation": (1,) * rank, "groups": 1}
    for x, w, attrs in _CASES[rank]:
        yield x, w, {**plain, **attrs}


_CASES: dict[int, list[tuple[Shape, Shape, dict[str, Any]]]] = {
    2: [
        ((2, 3, 5, 4), (2, 3, 3, 2), {}),
        ((1, 2, 5, 6), (2, 2, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
        ((2, 4, 5, 5), (6, 2, 2, 3), {"groups": 2, "dilation": (3, 1), "padding": (0, 1)}),
        ((1, 3, 4, 5), (3, 1, 3, 1), {"groups": 3, "stride": (1, 2)}),
        ((1, 1, 1, 1), (1, 1, 1, 1), {}),
        ((0, 2, 3, 3), (1, 2, 2, 2), {}),
        ((2, 0, 3, 3), (2, 0, 2, 2), {"padding": (1, 0)}),
    ],
    3: [
        ((1, 2, 3, 2, 3), (2, 2, 2, 2, 1), {"padding": (1, 0, 0), "stride": (2, 1, 1)}),
        ((2, 2, 3, 3, 2), (2, 1, 2, 1, 2), {"dilation": (2, 1, 1), "groups": 2}),
        ((0, 1, 2, 2, 2), (1, 1, 1, 1, 1), {}),
    ],
}

FAMILY = {rank: Family(rank) for rank in SPACE}
