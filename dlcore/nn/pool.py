"""Pooling layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlcore.nn.module import Module
from dlcore.ops import pool, resize
from dlcore.ops.window import Sizes
from dlcore.tensor import Tensor


class _Pool(Module):
    """Applies `run` with settings; what they mean stands in the function of `dlcore.ops.pool`."""

    run: Callable[..., Any]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, **more: Any) -> None:
        self.kernel_size, self.settings = kernel_size, {"stride": stride, "padding": padding, **more}

    def forward(self, x: Tensor) -> Any:
        """`x[N, C, ...]` with smaller spatial sizes."""
        return type(self).run(x, self.kernel_size, **self.settings)

    def extra_repr(self) -> str:
        """The settings that were given."""
        given = [f", {k}={v!r}" for k, v in self.settings.items() if v not in (None, 0)]
        return f"{self.kernel_size!r}" + "".join(given)


class MaxPool1d(_Pool):
    """Largest element of windows of `x[N, C, L]`; see `dl.max_pool1d`."""

    run = staticmethod(pool.max_pool1d)


class MaxPool2d(_Pool):
    """Largest element of windows of `x[N, C, H, W]`; see `dl.max_pool2d`.

    >>> MaxPool2d(2)(dl.zeros((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    run = staticmethod(pool.max_pool2d)


class MaxPool3d(_Pool):
    """Largest element of windows of `x[N, C, D, H, W]`; see `dl.max_pool3d`."""

    run = staticmethod(pool.max_pool3d)


class AvgPool1d(_Pool):
    """Mean of windows of `x[N, C, L]`; see `dl.avg_pool1d`."""

    run = staticmethod(pool.avg_pool1d)


class AvgPool2d(_Pool):
    """Mean of windows of `x[N, C, H, W]`; see `dl.avg_pool2d`."""

    run = staticmethod(pool.avg_pool2d)


class AvgPool3d(_Pool):
    """Mean of windows of `x[N, C, D, H, W]`; see `dl.avg_pool3d`."""

    run = staticmethod(pool.avg_pool3d)


class AdaptiveAvgPool(Module):
    """Mean of windows of `x[N, C, ...]` laid out to give spatial sizes `output_size`; see `dl.adaptive_avg_pool`.

    >>> AdaptiveAvgPool(1)(dl.zeros((2, 3, 5, 7))).shape
    (2, 3, 1, 1)
    """

    run = staticmethod(resize.adaptive_avg_pool)

    def __init__(self, output_size: Sizes) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, *output_size]`."""
        return type(self).run(x, self.output_size)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.output_size!r}"


class AdaptiveMaxPool(AdaptiveAvgPool):
    """Largest element of windows laid out as for `AdaptiveAvgPool`."""

    run = staticmethod(resize.adaptive_max_pool)


class GlobalAvgPool(Module):
    """Mean over the spatial axes, `x[N, C, ...] -> y[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C]`."""
        return resize.global_avg_pool(x)


class GlobalMaxPool(Module):
    """Largest element over the spatial axes, `x[N, C, ...] -> y[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C]`."""
        return resize.global_max_pool(x)


AdaptiveAvgPool1d = AdaptiveAvgPool2d = AdaptiveAvgPool3d = AdaptiveAvgPool
AdaptiveMaxPool1d = AdaptiveMaxPool2d = AdaptiveMaxPool3d = AdaptiveMaxPool
