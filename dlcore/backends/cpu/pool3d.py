"""3-d pooling by the 2-d one: every plane first, then along depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.cast import cast, widened
from dlcore.backends.cpu.conv3d import flat, of_depth, zeros
from dlcore.backends.cpu.pool import max_pool2d, max_pool2d_grad, refuse
from dlcore.dispatch import implement
from dlcore.ops import window
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]


def _merged(x: Array) -> Array:
    """`[N,C,D,H,W] -> [N,C*D,H,W]`."""
    dense: Array = _C.contiguous(x)
    return dense.reshape(x.shape[0], -1, *x.shape[3:])


def _along(planes: int, k: int, attrs: dict[str, Any]) -> Array:
    """The depth that tap k of each of so many windows sees; perhaps outside."""
    stride, padding, dilation = of_depth(attrs)
    depths: Array = np.arange(planes) * stride - padding + k * dilation
    return depths


@implement("max_pool3d", "cpu", "planes", refuse=refuse)
def max_pool3d(x: Array, **attrs: Any) -> tuple[Array, Array]:
    """`x[N,C,D,H,W] -> y[N,C,R,P,Q] i[N,C,R,P,Q]`. Of equals the first wins, and NaN beats all."""
    n, c, size = x.shape[0], x.shape[1], x.shape[2:]
    out = window.output_sizes(size, **attrs)
    y, i = (part.reshape(n, c, -1, *out[1:]) for part in max_pool2d(_merged(x), **flat(attrs)))
    best, index = np.zeros((n, c, *out), x.dtype), np.full((n, c, *out), -1)
    for k in range(attrs["kernel"][0]):
        depths = _along(out[0], k, attrs)
        inside = ((depths >= 0) & (depths < size[0]))[:, None, None]
        depths = np.clip(depths, 0, size[0] - 1)
        value = y[:, :, depths]
        wins = inside & ((index < 0) | (value > best) | (value != value))
        np.copyto(best, value, where=wins)
        np.copyto(index, i[:, :, depths] + (depths * (size[1] * size[2]))[:, None, None], where=wins)
    return best, index


@implement("max_pool3d_grad", "cpu", "planes", refuse=refuse)
def max_pool3d_grad(dy: Array, i: Array, *, size: Shape, **attrs: Any) -> Array:
    """`dy[N,C,R,P,Q] i[N,C,R,P,Q] -> dx[N,C,D,H,W]`, `size` being (D, H, W); 16-bit floats are added in float32."""
    wide, planes = widened(dy), dy.shape[2]
    dx = zeros((*dy.shape[:2], *size), wide.dtype)
    depth, place = np.divmod(i, size[1] * size[2])
    for k in range(attrs["kernel"][0]):
        depths = _along(planes, k, attrs)
        inside = (depths >= 0) & (depths < size[0])
        here = np.where(depth == depths[:, None, None], place, -1)[:, :, inside]
        part = max_pool2d_grad(_merged(wide[:, :, inside]), _merged(here), size=size[1:], **flat(attrs))
        dx[:, :, depths[inside]] += part.reshape(*dy.shape[:2], -1, *size[1:])
    return cast(dx, dy.dtype)
