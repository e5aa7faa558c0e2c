"""Convolution on `_C.conv2d` and its gradients: packed matrix products whose packer gathers patches.

Kernels of 3 x 3 go by Winograd's algorithm, variant "winograd", where there are enough channels and results: tiles of
4 x 4 results take 36 multiplications for 144. Its rounding errors are two to three times as large; an infinity becomes
a NaN, and reaches up to three results further. Without it:
`DLCORE_VARIANT=conv2d=native,conv2d_dx=native,conv2d_dw=native`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast, widened
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]
MAX_STRIDE = 16
TILE = 4  # of Winograd's algorithm
LEAST_CHANNELS = {"conv2d": 8, "conv2d_dx": 8, "conv2d_dw": 24}
"""Of Winograd's, in and out: with fewer, its transforms cost more than it saves."""
LEAST_TILES = {"conv2d": 48, "conv2d_dx": 96, "conv2d_dw": 0}
"""Of 32 channels or more; of fewer channels more tiles: with fewer, Winograd's transform of the weights costs more than
it saves."""


def refuse(call: Call) -> str | None:
    """Why the kernels cannot take a convolution, or None."""
    if dtypes.kind(call.dtype) != "float":
        return f"no kernel for {call.dtype}"
    if 0 in call.dims.values():
        return "no kernel for arrays without elements"
    if max(call.attrs["stride"]) > MAX_STRIDE:
        return f"no kernel for a stride above {MAX_STRIDE}"
    return None


def _refuse_winograd(call: Call) -> str | None:
    name, dims, attrs = call.op.name, call.dims, call.attrs
    if dtypes.wide(call.dtype) != dtypes.float32:
        return f"not for {call.dtype}"
    if (dims["KH"], dims["KW"]) != (3, 3) or {*attrs["stride"], *attrs["dilation"], attrs["groups"]} != {1}:
        return "only for 3 x 3, stride and dilation 1, one group"
    channels = min(dims["C"], dims["O"])
    if channels < LEAST_CHANNELS[name]:
        return f"not for fewer than {LEAST_CHANNELS[name]} channels"
    least = -(-32 * LEAST_TILES[name] // min(32, channels))
    size = ("H", "W") if name == "conv2d_dx" else ("P", "Q")
    return refuse(call) or _refuse_tiles(least, dims["N"], [dims[n] for n in size])


def _refuse_tiles(least: int, batch: int, size: list[int]) -> str | None:
    tiles = batch * math.prod(-(-n // TILE) for n in size)
    if tiles < least:
        return f"not for fewer than {least} tiles of {TILE} x {TILE} results"
    if 3 * batch * math.prod(size) < tiles * TILE**2:
        return f"not for images that fill less than a third of their tiles of {TILE} x {TILE} results"
    return None


def ready(x: Array) -> Array:
    """`x` as the kernels take it: contiguous, 16-bit floats widened to float32."""
    dense: Array = _C.contiguous(widened(x))
    return dense


def _run(kernel: Any, operands: tuple[Array | None, ...], shape: Shape, dtype: Any, *more: Any) -> Array:
    """`kernel` of the operands into a new array; 16-bit results are rounded once."""
    out: Array = _C.empty(shape, dtypes.wide(dtype))
    kernel(*[x if x is None else ready(x) for x in operands], out, *more)
    return cast(out, dtype)


def _outputs(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _forward(call: Callable[..., None]) -> Callable[..., Array]:
    def conv2d(
        x: Array, w: Array, b: Array | None = None, *others: Array, stride: Shape, padding: Shape, dilation: Shape,
        groups: int, then: Any = None,
    ) -> Array:  # fmt: skip
        """`x[N,C,H,W] w[O,C/groups,KH,KW] b[O]? -> y[N,O,P,Q]`. then: a chain to go on with, in place, and `others`."""
        sizes = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
        shape = (x.shape[0], w.shape[0], *(_outputs(*size) for size in sizes))
        return _run(call, (x, w, b), shape, x.dtype, stride, padding, dilation, groups, then, *others)

    return conv2d


def _backward(call: Callable[..., None]) -> Callable[..., Array]:
    def conv2d_dx(
        dy: Array, w: Array, *others: Array, size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int,
        then: Any = None,
    ) -> Array:  # fmt: skip
        """`dy[N,O,P,Q] w[O,C/groups,KH,KW] -> dx[N,C,H,W]`, `size` being (H, W); `then` as for `conv2d`."""
        shape = (dy.shape[0], w.shape[1] * groups, *size)
        return _run(call, (dy, w), shape, dy.dtype, stride, padding, dilation, groups, then, *others)

    return conv2d_dx


def _backward_w(call: Callable[..., None]) -> Callable[..., Array]:
    def conv2d_dw(
        dy: Array, x: Array, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
    ) -> Array:
        """`dy[N,O,P,Q] x[N,C,H,W] -> dw[O,C/groups,KH,KW]`, `kernel` being (KH, KW)."""
        shape = (dy.shape[1], x.shape[1] // groups, *kernel)
        return _run(call, (dy, x), shape, x.dtype, stride, padding, dilation, groups)

    return conv2d_dw


for _op, _make in (("conv2d", _forward), ("conv2d_dx", _backward), ("conv2d_dw", _backward_w)):
    implement(_op, "cpu", refuse=refuse)(_make(getattr(_C, _op)))
    implement(_op, "cpu", "winograd", refuse=_refuse_winograd)(_make(getattr(_C, f"{_op}_winograd")))
