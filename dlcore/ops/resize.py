"""Resizing of spatial axes: interpolation, adaptive pooling, pixel shuffling.

Interpolation and adaptive averaging weigh the elements of one axis after the other, so each is a matrix product per
axis; the matrices are made once for each pair of sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, prod
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.creation import constant
from dlcore.errors import ArgumentError, ShapeError
from dlcore.ops import window
from dlcore.ops.join import concat
from dlcore.ops.matmul import matmul
from dlcore.ops.reduce import max, mean
from dlcore.ops.window import Sizes
from dlcore.signature import Shape
from dlcore.tensor import Tensor

Matrix = np.ndarray[Any, Any]


def _weighted(x: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    """Multiply the spatial axes of `x[N,C,S...]` by one matrix `[size, new size]` each, in at least float32."""
    wide = dtypes.float64 if x.dtype == dtypes.float64 else dtypes.float32
    order = (0, 1, *range(3, x.ndim), 2)
    y = x.astype(wide)
    for matrix in matrices:  # each turn moves the first spatial axis to the end, where it is multiplied
        y = matmul(y.permute(*order), constant(matrix.astype(wide), device=x.device))
    return y.astype(x.dtype) if dtypes.kind(x.dtype) == "float" else y


def _spatial(x: Any, name: str) -> Tensor:
    found = window.as_tensor(x)
    if found.ndim < 3:
        raise ShapeError(f"{name}: x must be [N,C,...] with 1 to 3 spatial axes; got shape {found.shape}")
    return found


# ---- pooling to a given size


def _windows(size: int, out: int) -> list[tuple[int, int]]:
    """Start and end of the elements that each of `out` adaptive windows covers."""
    return [(i * size // out, ceil((i + 1) * size / out)) for i in range(out)]


@lru_cache(maxsize=256)
def _averaging(size: int, out: int) -> Matrix:
    weights = np.zeros((size, out))
    for column, (start, end) in enumerate(_windows(size, out)):
        weights[start:end, column] = 1 / (end - start)
    return weights


def adaptive_avg_pool(x: Any, output_size: Sizes) -> Tensor:
    """Mean of windows of `x[N,C,S...]` laid out so that the spatial axes get the sizes `output_size`.

    output_size: an int, or one per spatial axis. Window i of n covers elements floor(i S / n) to ceil((i + 1) S / n).
    Raises ShapeError, ArgumentError.

    >>> adaptive_avg_pool(dl.arange(6.0).reshape(1, 1, 6), 2).tolist()
    [[[1.0, 4.0]]]
    """
    x = _spatial(x, "adaptive_avg_pool")
    out = window.sizes(output_size, x.ndim - 2, "output_size", "adaptive_avg_pool")
    _positive("adaptive_avg_pool", x.shape[2:] + out)
    return _weighted(x, [_averaging(*pair) for pair in zip(x.shape[2:], out, strict=True)])


def adaptive_max_pool(x: Any, output_size: Sizes) -> Tensor:
    """Largest element of windows of `x[N,C,S...]`, laid out as for `adaptive_avg_pool`.

    >>> adaptive_max_pool(dl.arange(6.0).reshape(1, 1, 6), 2).tolist()
    [[[2.0, 5.0]]]
    """
    x = _spatial(x, "adaptive_max_pool")
    out = window.sizes(output_size, x.ndim - 2, "output_size", "adaptive_max_pool")
    _positive("adaptive_max_pool", x.shape[2:] + out)
    for axis, count in enumerate(out, start=2):
        lead = (slice(None),) * axis
        pieces = [x[*lead, slice(*w)] for w in _windows(x.shape[axis], count)]
        x = concat([max(piece, axis=axis, keepdims=True) for piece in pieces], axis=axis)
    return x  # type: ignore[no-any-return]


def global_avg_pool(x: Any, keepdims: bool = False) -> Tensor:
    """Mean over the spatial axes of `x[N,C,S...]`; returns `[N,C]`, with keepdims `[N,C,1...]`."""
    x = _spatial(x, "global_avg_pool")
    y: Tensor = mean(x, axis=tuple(range(2, x.ndim)), keepdims=keepdims)
    return y


def global_max_pool(x: Any, keepdims: bool = False) -> Tensor:
    """Largest element over the spatial axes of `x[N,C,S...]`; returns `[N,C]`, with keepdims `[N,C,1...]`."""
    x = _spatial(x, "global_max_pool")
    y: Tensor = max(x, axis=tuple(range(2, x.ndim)), keepdims=keepdims)
    return y


def _positive(name: str, sizes: Shape) -> None:
    if prod(sizes) == 0 or min(sizes) < 0:
        raise ShapeError(f"{name}: sizes must be at least 1; got {sizes}")


# ---- interpolation


@lru_cache(maxsize=256)
def _nearest(size: int, out: int, step: float, align_corners: bool) -> Matrix:
    if align_corners:
        raise ArgumentError('interpolate: align_corners is for mode="linear"')
    picked = np.minimum(np.floor(np.arange(out) * step), size - 1).astype(np.int64)
    return np.eye(size)[:, picked]


@lru_cache(maxsize=256)
def _linear(size: int, out: int, step: float, align_corners: bool) -> Matrix:
    """Weights of the two neighbours of each output: corners aligned, or centres of equal cells."""
    if align_corners:
        at = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        at = np.maximum((np.arange(out) + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(at).astype(np.int64), size - 1)
    share = np.clip(at - low, 0, 1)
    columns = np.arange(out)
    weights = np.zeros((size, out))
    weights[low, columns] += 1 - share
    weights[np.minimum(low + 1, size - 1), columns] += share
    return weights


_MODES: dict[str, Callable[[int, int, float, bool], Matrix]] = {"nearest": _nearest, "linear": _linear}


def interpolate(
    x: Any, size: Sizes | None = None, *, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:  # fmt: skip
    """Resize the spatial axes of `x[N,C,S...]` to `size`, or by `scale_factor` (sizes are rounded down).

    mode: "nearest", or "linear" along every axis (bilinear for images, trilinear for volumes).
    align_corners: first and last elements keep their places; else elements are cells of equal width.
    Raises ShapeError, ArgumentError.

    >>> interpolate(dl.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    x = _spatial(x, "interpolate")
    if mode not in _MODES:
        raise ArgumentError(f"interpolate: mode must be one of {', '.join(_MODES)}; got {mode!r}")
    out, steps = _targets(x.shape[2:], size, scale_factor)
    _positive("interpolate", x.shape[2:] + out)
    axes = zip(x.shape[2:], out, steps, strict=True)
    return _weighted(x, [_MODES[mode](n, o, step, align_corners) for n, o, step in axes])


def _targets(sizes: Shape, size: Sizes | None, factor: Any) -> tuple[Shape, list[float]]:
    """New sizes, and how many old elements a new one spans along each axis."""
    if (size is None) == (factor is None):
        raise ArgumentError("interpolate: give either size or scale_factor")
    if size is not None:
        out = window.sizes(size, len(sizes), "size", "interpolate")
        return out, [n / o if o else 0.0 for n, o in zip(sizes, out, strict=True)]
    factors = (factor,) * len(sizes) if isinstance(factor, (int, float)) else tuple(factor)
    if len(factors) != len(sizes) or any(f <= 0 for f in factors):
        raise ArgumentError(f"interpolate: scale_factor must be positive, one or {len(sizes)}; got {factor!r}")
    return tuple(int(n * f) for n, f in zip(sizes, factors, strict=True)), [1 / f for f in factors]


# ---- pixels and channels


def pixel_shuffle(x: Any, factor: int) -> Tensor:
    """Channels to pixels: `x[N,C*r*r,H,W]` becomes `[N,C,H*r,W*r]` for `factor` r.

    Shi et al., "Real-time single image super-resolution" (2016), equation 4. Raises ShapeError.

    >>> pixel_shuffle(dl.ones((1, 8, 3, 3)), 2).shape
    (1, 2, 6, 6)
    """
    x, r = window.as_tensor(x), factor
    if r < 1 or x.ndim != 4 or x.shape[1] % (r * r):
        raise ShapeError(f"pixel_shuffle: expected x[N,{r * r}*C,H,W]; got x{list(x.shape)}")
    n, c, h, w = x.shape
    blocks: Tensor = x.reshape(n, c // r**2, r, r, h, w)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)


def pixel_unshuffle(x: Any, factor: int) -> Tensor:
    """Pixels to channels, the inverse of `pixel_shuffle`: `x[N,C,H*r,W*r]` becomes `[N,C*r*r,H,W]`."""
    x, r = window.as_tensor(x), factor
    if r < 1 or x.ndim != 4 or x.shape[2] % r or x.shape[3] % r:
        raise ShapeError(f"pixel_unshuffle: expected x[N,C,{r}*H,{r}*W]; got x{list(x.shape)}")
    n, c, h, w = x.shape
    blocks: Tensor = x.reshape(n, c, h // r, r, w // r, r)
    return blocks.permute(0, 1, 3, 5, 2, 4).reshape(n, c * r * r, h // r, w // r)
