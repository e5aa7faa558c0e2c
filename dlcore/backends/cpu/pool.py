"""Max and average pooling on `_C`, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast
from dlcore.backends.cpu.conv import ready
from dlcore.dispatch import Call, implement
from dlcore.graph import Value
from dlcore.ops import window
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]
NEAR = 1 << 20
"""Bytes for each thread of what is pooled next: they stay in its second cache."""


def refuse(call: Call) -> str | None:
    """Why the kernels cannot take a pooling, or None."""
    if dtypes.kind(call.dtype) != "float":
        return f"no kernel for {call.dtype}"
    return "no kernel for arrays without elements" if 0 in call.dims.values() else None


def _empty(shape: Shape, dtype: Any) -> Array:
    """A new array, of float32 for the 16-bit floats."""
    out: Array = _C.empty(shape, dtypes.wide(dtype))
    return out


@implement("max_pool2d", "cpu", refuse=refuse)
def max_pool2d(
    x: Array, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool = False
) -> tuple[Array, Array]:
    """`x[N,C,H,W] -> y[N,C,P,Q] i[N,C,P,Q]`."""
    out = (*x.shape[:2], *window.output_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode))
    y, i = _empty(out, x.dtype), _C.empty(out, dtypes.int64)
    _C.max_pool2d(ready(x), y, i, kernel, stride, padding, dilation)
    return cast(y, x.dtype), i


def pooled(
    convolve: Callable[..., Array], x: Value, y: Value, *, kernel: Shape, stride: Shape, padding: Shape,
    dilation: Shape, ceil_mode: bool = False,
) -> Callable[..., tuple[Array, Array]]:  # fmt: skip
    """A function: `max_pool2d`, x to y, of what `convolve` makes, some images at a time."""
    geometry = kernel, stride, padding, dilation
    some = max(1, NEAR // (prod(x.shape[1:]) * x.dtype.itemsize)) * _C.num_threads()

    def call(images: Array, *more: Any, **attrs: Any) -> tuple[Array, Array]:
        largest, i = _C.empty(y.shape, y.dtype), _C.empty(y.shape, dtypes.int64)
        for n in range(0, len(images), some):
            part = slice(n, n + some)
            _C.max_pool2d(convolve(images[part], *more, **attrs), largest[part], i[part], *geometry)
        return largest, i

    return call


@implement("max_pool2d_grad", "cpu", refuse=refuse)
def max_pool2d_grad(
    dy: Array, i: Array, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape,
    ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """`dy[N,C,P,Q] i[N,C,P,Q] -> dx[N,C,H,W]`, `size` being (H, W)."""
    dx = _empty((*dy.shape[:2], *size), dy.dtype)
    _C.max_pool2d_grad(ready(dy), np.ascontiguousarray(i, dtypes.int64), dx, kernel, stride, padding, dilation)
    return cast(dx, dy.dtype)


@implement("avg_pool2d", "cpu", refuse=refuse)
def avg_pool2d(
    x: Array, *, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False, count_include_pad: bool = True
) -> Array:
    """`x[N,C,H,W] -> y[N,C,P,Q]`."""
    out = window.output_sizes(x.shape[2:], kernel, stride, padding, (1, 1), ceil_mode)
    y = _empty((*x.shape[:2], *out), x.dtype)
    _C.avg_pool2d(ready(x), y, kernel, stride, padding, count_include_pad)
    return cast(y, x.dtype)


@implement("avg_pool2d_grad", "cpu", refuse=refuse)
def avg_pool2d_grad(
    dy: Array, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """`dy[N,C,P,Q] -> dx[N,C,H,W]`, `size` being (H, W)."""
    dx = _empty((*dy.shape[:2], *size), dy.dtype)
    _C.avg_pool2d_grad(ready(dy), dx, kernel, stride, padding, count_include_pad)
    return cast(dx, dy.dtype)
