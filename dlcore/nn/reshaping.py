"""Layers that move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlcore.nn.module import Module
from dlcore.ops import resize, shape
from dlcore.ops.window import Sizes
from dlcore.tensor import Tensor


class Flatten(Module):
    """Axes from `start_axis` to `end_axis` as one; by default all but the first.

    >>> Flatten()(dl.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: Tensor) -> Tensor:
        """The same elements in row-major order."""
        return shape.flatten(x, self.start_axis, self.end_axis)


class Unflatten(Module):
    """One axis as several; one size may be -1."""

    def __init__(self, axis: int, sizes: Sequence[int]) -> None:
        self.axis, self.sizes = axis, tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """The same elements in row-major order."""
        return shape.unflatten(x, self.axis, self.sizes)

    def extra_repr(self) -> str:
        """Axis and sizes."""
        return f"axis={self.axis}, sizes={self.sizes}"


class Upsample(Module):
    """Resize the spatial axes of `x[N, C, ...]` to `size` or by `scale_factor`; see `dl.interpolate`.

    mode: "nearest" or "linear" (bilinear for images, trilinear for volumes).

    >>> Upsample(scale_factor=2)(dl.zeros((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:  # fmt: skip
        self.size = size
        self.settings: dict[str, Any] = {"scale_factor": scale_factor, "mode": mode, "align_corners": align_corners}

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, ...]` with the new spatial sizes."""
        return resize.interpolate(x, self.size, **self.settings)

    def extra_repr(self) -> str:
        """The settings that were given."""
        return ", ".join(f"{k}={v!r}" for k, v in {"size": self.size, **self.settings}.items() if v)


class PixelShuffle(Module):
    """`x[N, C * r * r, H, W] -> y[N, C, H * r, W * r]`: channels become finer pixels; see `dl.pixel_shuffle`."""

    run = staticmethod(resize.pixel_shuffle)

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """The same elements, rearranged."""
        return type(self).run(x, self.factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor}"


class PixelUnshuffle(PixelShuffle):
    """`x[N, C, H * r, W * r] -> y[N, C * r * r, H, W]`, the inverse of `PixelShuffle`."""

    run = staticmethod(resize.pixel_unshuffle)
