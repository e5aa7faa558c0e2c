"""3-d convolution by 2-d ones: the depths that a plane of results sees become channels of one image."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dlcore import _C
from dlcore.backends.cpu.cast import cast, widened
from dlcore.backends.cpu.conv import ready, refuse
from dlcore.dispatch import Call, choose, get_backend, implement
from dlcore.op import OPS
from dlcore.ops import window
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]


def flat(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the 2-d op: those of all axes but depth."""
    return {name: value[1:] if isinstance(value, tuple) else value for name, value in attrs.items()}


def _run(name: str, *operands: Array | None, **attrs: Any) -> Array:
    """A 2-d op by the variant that dispatch would choose."""
    shapes = tuple(None if x is None else x.shape for x in operands)
    out: Array = _chosen(name, shapes, operands[0].dtype, tuple(attrs.items()))(*operands, **attrs)  # type: ignore[union-attr]
    return out


@lru_cache(maxsize=1024)
def _chosen(name: str, shapes: tuple[Shape | None, ...], dtype: Any, attrs: tuple[tuple[str, Any], ...]) -> Any:
    op, given = OPS[name], dict(attrs)
    return choose(Call(op, shapes, dtype, op.resolve(list(shapes), given)[0], given, get_backend("cpu"))).fn


def _images(x: Array, planes: int, depth: int, stride: int, padding: int, dilation: int) -> Array:
    """`x[N,C,D,H,W] -> [N*R,C*KD,H,W]`: for each of R = `planes`, the KD = `depth` planes that it sees."""
    n, c, d, h, w = x.shape
    wide = x
    if padding:
        wide = zeros((n, c, d + 2 * padding, h, w), x.dtype)
        wide[:, :, padding : padding + d] = x
    sn, sc, sd, *rest = wide.strides
    seen = as_strided(wide, (n, planes, c, depth, h, w), (sn, stride * sd, sc, dilation * sd, *rest), writeable=False)
    images: Array = _C.contiguous(seen)
    return images.reshape(n * planes, c * depth, h, w)


def zeros(shape: Shape, dtype: Any) -> Array:
    """Of memory from the cache, where NumPy takes fresh pages."""
    out: Array = get_backend("cpu").full(shape, 0, dtype)
    return out


def _planes(y: Array) -> Array:
    """`[N,O,R,P,Q] -> [N*R,O,P,Q]`."""
    n, o, r, p, q = y.shape
    planes: Array = _C.contiguous(y.transpose(0, 2, 1, 3, 4))
    return planes.reshape(n * r, o, p, q)


def of_depth(attrs: dict[str, Any]) -> tuple[int, int, int]:
    """stride, padding and dilation."""
    return attrs["stride"][0], attrs["padding"][0], attrs["dilation"][0]


def _kernels(w: Array) -> Array:
    """`[O,CG,KD,KH,KW] -> [O,CG*KD,KH,KW]`."""
    return ready(w).reshape(w.shape[0], -1, *w.shape[3:])


@implement("conv3d", "cpu", "planes", refuse=refuse)
def conv3d(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Array:
    """`x[N,C,D,H,W] w[O,C/groups,KD,KH,KW] b[O]? -> y[N,O,R,P,Q]`."""
    stride, padding, dilation = of_depth(attrs)
    n, depth = x.shape[0], w.shape[2]
    (planes,) = window.output_sizes(x.shape[2:3], (depth,), (stride,), (padding,), (dilation,))
    images = _images(widened(x), planes, depth, stride, padding, dilation)
    y = _run("conv2d", images, _kernels(w), None if b is None else widened(b), **flat(attrs))
    out: Array = _C.contiguous(y.reshape(n, planes, *y.shape[1:]).swapaxes(1, 2))
    return cast(out, x.dtype)


@implement("conv3d_dx", "cpu", "planes", refuse=refuse)
def conv3d_dx(dy: Array, w: Array, *, size: Shape, **attrs: Any) -> Array:
    """`dy[N,O,R,P,Q] w[O,C/groups,KD,KH,KW] -> dx[N,C,D,H,W]`, `size` being (D, H, W)."""
    stride, padding, dilation = of_depth(attrs)
    n, planes, depth = dy.shape[0], dy.shape[2], w.shape[2]
    parts = _run("conv2d_dx", _planes(widened(dy)), _kernels(w), size=size[1:], **flat(attrs))
    parts = parts.reshape(n, planes, -1, depth, *size[1:])
    wide = zeros((n, parts.shape[2], size[0] + 2 * padding, *size[1:]), parts.dtype)
    for k in range(depth):
        seen = slice(k * dilation, k * dilation + (planes - 1) * stride + 1, stride)
        wide[:, :, seen] += parts[:, :, :, k].swapaxes(1, 2)
    return cast(_C.contiguous(wide[:, :, padding : padding + size[0]]), dy.dtype)


@implement("conv3d_dw", "cpu", "planes", refuse=refuse)
def conv3d_dw(dy: Array, x: Array, *, kernel: Shape, **attrs: Any) -> Array:
    """`dy[N,O,R,P,Q] x[N,C,D,H,W] -> dw[O,C/groups,KD,KH,KW]`, `kernel` being (KD, KH, KW)."""
    stride, padding, dilation = of_depth(attrs)
    images = _images(widened(x), dy.shape[2], kernel[0], stride, padding, dilation)
    dw = _run("conv2d_dw", _planes(widened(dy)), images, kernel=kernel[1:], **flat(attrs))
    return cast(dw.reshape(dy.shape[1], -1, *kernel), x.dtype)
