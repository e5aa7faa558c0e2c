"""Patches of images as columns of matrices (im2col) and back (col2im)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from dlcore.errors import ShapeError
from dlcore.op import Op, Sample, define, sample
from dlcore.ops import window
from dlcore.ops.window import Sizes
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor


def _unfold(xp: Any, x: Any, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Any:
    n, c, *size = x.shape
    out = window.output_sizes(tuple(size), kernel, stride, padding, dilation)
    wide = window.pad(xp, x, padding, window.padded(tuple(size), padding))
    patches = xp.stack([wide[view] for view in window.views(kernel, out, stride, dilation)], axis=2)
    return xp.reshape(patches, (n, c * prod(kernel), prod(out)))


def _fold(xp: Any, x: Any, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Any:
    n, c = x.shape[0], x.shape[1] // prod(kernel)
    out = window.output_sizes(size, kernel, stride, padding, dilation)
    patches = xp.reshape(x, (n, c, prod(kernel), *out))
    wide = xp.zeros((n, c, *window.padded(size, padding)), dtype=x.dtype)
    for k, view in enumerate(window.views(kernel, out, stride, dilation)):
        wide[view] += patches[:, :, k, ...]
    return wide[window.inner(padding, size)]


def _count(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> int:
    window.check(2, 1, kernel=kernel, stride=stride, dilation=dilation)
    window.check(2, 0, padding=padding)
    return prod(window.output_sizes(size, kernel, stride, padding, dilation))


def _unfolded(d: Dims, *, kernel: Shape, **attrs: Any) -> Mapping[str, Any]:
    return {"L": _count((d.H, d.W), kernel, **attrs), "K": d.C * prod(kernel)}


def _folded(d: Dims, *, size: Shape, kernel: Shape, **attrs: Any) -> Mapping[str, Any]:
    window.check(2, 0, size=size)
    count = _count(size, kernel, **attrs)
    if count != d.L or d.K % prod(kernel):
        raise ShapeError(f"expected x[N,C*{prod(kernel)},{count}] for these sizes; got x[{d.N},{d.K},{d.L}]")
    return {"C": d.K // prod(kernel), "H": size[0], "W": size[1]}


def _samples(folded: bool) -> Iterable[Sample]:
    plain = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    for shape, attrs in [
        ((2, 3, 3, 4), plain),
        ((1, 2, 5, 4), {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 0), "dilation": (3, 1)}),
        ((1, 1, 1, 1), {**plain, "kernel": (1, 1)}),
        ((0, 1, 3, 3), plain),
    ]:
        if folded:
            patches = unfold_op.resolve([shape], attrs)[1][0]
            yield sample(patches, size=shape[2:], **attrs)
        else:
            yield sample(shape, **attrs)


unfold_op: Op = define(
    "unfold",
    "x[N,C,H,W] -> y[N,K,L]",
    _unfold,
    vjp={"x": lambda g, x_shape, attrs: fold_op(g, size=x_shape[2:], **attrs)},
    infer=_unfolded,
    samples=lambda: _samples(False),
    doc="Patches as columns; K is C times the kernel's elements, L the number of patches. See `dl.unfold`.",
)

fold_op: Op = define(
    "fold",
    "x[N,K,L] -> y[N,C,H,W]",
    _fold,
    vjp={"x": lambda g, attrs: unfold_op(g, **{k: v for k, v in attrs.items() if k != "size"})},
    infer=_folded,
    samples=lambda: _samples(True),
    doc="Columns added up at the places of their patches: the adjoint of unfold. See `dl.fold`.",
)


def unfold(x: Any, kernel_size: Sizes, *, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1) -> Tensor:
    """Patches of `x[N,C,H,W]` that a kernel sees, as columns `[N,C*KH*KW,L]` in row-major order of their places.

    The attributes are those of `conv2d`; `matmul(w.reshape(O, -1), unfold(x, ...))` is that convolution.

    >>> unfold(dl.ones((1, 3, 4, 4)), 2).shape
    (1, 12, 9)
    """
    attrs = window.attrs("unfold", 2, kernel=kernel_size, stride=stride, padding=padding, dilation=dilation)
    y: Tensor = unfold_op(x, **attrs)
    return y


def fold(
    x: Any, output_size: Sizes, kernel_size: Sizes, *, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1
) -> Tensor:
    """Add the columns of `x[N,C*KH*KW,L]` up at the places of their patches in `[N,C,*output_size]`.

    >>> fold(dl.ones((1, 12, 9)), (4, 4), 2).shape
    (1, 3, 4, 4)
    """
    given = {"size": output_size, "kernel": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    y: Tensor = fold_op(x, **window.attrs("fold", 2, **given))
    return y
