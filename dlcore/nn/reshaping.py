"""Layers that move elements."""

from __future__ import annotations

from collections.abc import Sequence

from dlcore.nn.module import Module
from dlcore.ops import join, resize, shape
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
    """Repeat each element `scale` times along every spatial axis: nearest-neighbour enlargement of `[N, C, ...]`.

    >>> Upsample(2)(dl.zeros((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Spatial sizes times `scale`."""
        for axis in range(2, x.ndim):
            x = join.repeat(x, self.scale, axis)
        return x

    def extra_repr(self) -> str:
        """The factor."""
        return f"scale={self.scale}"


class PixelShuffle(Module):
    """Channels become finer pixels: `x[N, C * r * r, H, W] -> y[N, C, H * r, W * r]`; see `dl.pixel_shuffle`.

    Shi et al., "Real-time single image super-resolution" (2016), equation 4. Raises ShapeError where r * r does not
    divide the channels.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Spatial sizes times `factor`."""
        return resize.pixel_shuffle(x, self.factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor}"
