"""Convolution on `_C.conv2d` and its gradients: packed matrix products whose packer gathers patches.

Kernels of 3 x 3 with 16 channels or more go by Winograd's algorithm, variant "winograd": 4 multiplications for 9. Its
rounding errors are as large, but an infinity or a NaN reaches up to one result further. Without it:
`DLCORE_VARIANT=conv2d=native,conv2d_dx=native`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]
MAX_STRIDE = 16
LEAST_CHANNELS = 16  # of Winograd's, in and out: with fewer, its transforms cost more than it saves


def _refuse(call: Call) -> str | None:
    if dtypes.kind(call.dtype) != "float":
        return f"no kernel for {call.dtype}"
    if 0 in call.dims.values():
        return "no kernel for arrays without elements"
    if max(call.attrs["stride"]) > MAX_STRIDE:
        return f"no kernel for a stride above {MAX_STRIDE}"
    return None


def _refuse_winograd(call: Call) -> str | None:
    _, w, *_ = call.shapes
    attrs = call.attrs
    if dtypes.wide(call.dtype) != dtypes.float32:
        return f"not for {call.dtype}"
    if w is None or w[2:] != (3, 3) or {*attrs["stride"], *attrs["dilation"], attrs["groups"]} != {1}:
        return "only for 3 x 3, stride and dilation 1, one group"
    if min(w[:2]) < LEAST_CHANNELS:
        return f"not for fewer than {LEAST_CHANNELS} channels"
    return _refuse(call)


def ready(x: Array) -> Array:
    """`x` as the kernels take it: contiguous, 16-bit floats widened to float32."""
    return np.ascontiguousarray(x, np.float32 if dtypes.is_half(x.dtype) else None)


def _run(kernel: Any, operands: tuple[Array | None, ...], shape: Shape, dtype: Any, *more: Any) -> Array:
    """`kernel` of the operands into a new array; 16-bit results are rounded once."""
    out: Array = _C.empty(shape, dtypes.wide(dtype))
    kernel(*[x if x is None else ready(x) for x in operands], out, *more)
    return out if out.dtype == dtype else out.astype(dtype)


def _outputs(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _forward(kernel: Callable[..., None]) -> Callable[..., Array]:
    def conv2d(
        x: Array, w: Array, b: Array | None = None, *others: Array, stride: Shape, padding: Shape, dilation: Shape,
        groups: int, then: Any = None,
    ) -> Array:  # fmt: skip
        """`x[N,C,H,W] w[O,C/groups,KH,KW] b[O]? -> y[N,O,P,Q]`. then: a chain to go on with, in place, and `others`."""
        sizes = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
        shape = (x.shape[0], w.shape[0], *(_outputs(*size) for size in sizes))
        return _run(kernel, (x, w, b), shape, x.dtype, stride, padding, dilation, groups, then, *others)

    return conv2d


def _backward(kernel: Callable[..., None]) -> Callable[..., Array]:
    def conv2d_dx(
        dy: Array, w: Array, *others: Array, size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int,
        then: Any = None,
    ) -> Array:  # fmt: skip
        """`dy[N,O,P,Q] w[O,C/groups,KH,KW] -> dx[N,C,H,W]`, `size` being (H, W); `then` as for `conv2d`."""
        shape = (dy.shape[0], w.shape[1] * groups, *size)
        return _run(kernel, (dy, w), shape, dy.dtype, stride, padding, dilation, groups, then, *others)

    return conv2d_dx


implement("conv2d", "cpu", refuse=_refuse)(_forward(_C.conv2d))
implement("conv2d", "cpu", "winograd", refuse=_refuse_winograd)(_forward(_C.conv2d_winograd))
implement("conv2d_dx", "cpu", refuse=_refuse)(_backward(_C.conv2d_dx))
implement("conv2d_dx", "cpu", "winograd", refuse=_refuse_winograd)(_backward(_C.conv2d_dx_winograd))


@implement("conv2d_dw", "cpu", refuse=_refuse)
def conv2d_dw(
    dy: Array, x: Array, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> Array:
    """`dy[N,O,P,Q] x[N,C,H,W] -> dw[O,C/groups,KH,KW]`, `kernel` being (KH, KW)."""
    shape = (dy.shape[1], x.shape[1] // groups, *kernel)
    return _run(_C.conv2d_dw, (dy, x), shape, x.dtype, stride, padding, dilation, groups)
