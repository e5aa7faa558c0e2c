"""Convolutional layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dlcore.errors import ArgumentError
from dlcore.nn.init import fan_in_parameter
from dlcore.nn.module import Module
from dlcore.ops import conv
from dlcore.ops.window import Sizes, sizes
from dlcore.tensor import Tensor


class _Conv(Module):
    """What all convolutions share. weight and bias start uniform in +-1 / sqrt(fan_in)."""

    rank: int
    run: Callable[..., Tensor]
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, **more: Any,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{name}: channels {in_channels} and {out_channels} do not split into {groups} groups")
        kernel = sizes(kernel_size, self.rank, "kernel_size", name)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, **more}
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *kernel)
        fan_in = math.prod(shape[1:])
        self.weight = fan_in_parameter(shape, fan_in)
        self.bias = fan_in_parameter((out_channels,), fan_in) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """`x[N, in_channels, ...] -> y[N, out_channels, ...]`."""
        return type(self).run(x, self.weight, self.bias, **self.attrs)

    def extra_repr(self) -> str:
        """Sizes, and attributes that are not the default."""
        usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
        unusual = [f", {k}={v!r}" for k, v in self.attrs.items() if v != usual[k]]
        plain = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return plain + "".join(unusual) + ("" if self.bias is not None else ", bias=False")


class Conv1d(_Conv):
    """1-d convolution of `x[N, C, L]`; see `Conv2d`."""

    rank, run = 1, staticmethod(conv.conv1d)


class Conv2d(_Conv):
    """2-d convolution of `x[N, C, H, W]` with weight `[O, C / groups, KH, KW]`.

    stride, padding, dilation: an int or one per axis; padding may be "same" or "valid". groups: see `dl.conv2d`.

    >>> Conv2d(3, 16, 3, padding=1)(dl.zeros((1, 3, 8, 8))).shape
    (1, 16, 8, 8)
    """

    rank, run = 2, staticmethod(conv.conv2d)


class Conv3d(_Conv):
    """3-d convolution of `x[N, C, D, H, W]`; see `Conv2d`."""

    rank, run = 3, staticmethod(conv.conv3d)


class _ConvTranspose(_Conv):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            output_padding=output_padding,
        )  # fmt: skip


class ConvTranspose1d(_ConvTranspose):
    """1-d transposed convolution of `x[N, C, L]`; see `ConvTranspose2d`."""

    rank, run = 1, staticmethod(conv.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Adjoint of a 2-d convolution, with weight `[C, O / groups, KH, KW]`; output_padding: see `dl.conv_transpose2d`.

    >>> ConvTranspose2d(16, 3, 2, stride=2)(dl.zeros((1, 16, 4, 4))).shape
    (1, 3, 8, 8)
    """

    rank, run = 2, staticmethod(conv.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """3-d transposed convolution of `x[N, C, D, H, W]`; see `ConvTranspose2d`."""

    rank, run = 3, staticmethod(conv.conv_transpose3d)
