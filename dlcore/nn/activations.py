"""Activation functions as layers. Settings are those of the op, by position or name."""

from __future__ import annotations

from typing import Any

from dlcore.creation import full
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter
from dlcore.op import Op
from dlcore.ops import activation, elementwise, softmax
from dlcore.tensor import Tensor


class Activation(Module):
    """Base class: applies `op` with the given settings.

    >>> LeakyReLU(0.2), LeakyReLU(slope=0.2)
    """

    op: Op

    def __init__(self, *values: Any, **settings: Any) -> None:
        self.settings = dict(zip(self.op.attrs, values, strict=False)) | settings

    def forward(self, x: Tensor) -> Tensor:
        """`op(x)`, of the same shape."""
        y: Tensor = self.op(x, **self.settings)
        return y

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())


class ReLU(Activation):
    """max(x, 0)."""

    op = activation.relu


class ReLU6(Activation):
    """min(max(x, 0), 6)."""

    op = activation.relu6


class LeakyReLU(Activation):
    """x where positive, else slope * x."""

    op = activation.leaky_relu


class ELU(Activation):
    """x where positive, else alpha * (e^x - 1)."""

    op = activation.elu


class CELU(Activation):
    """x where positive, else alpha * (e^(x / alpha) - 1)."""

    op = activation.celu


class SELU(Activation):
    """Self-normalising elu."""

    op = activation.selu


class GELU(Activation):
    """x times the normal distribution function of x."""

    op = activation.gelu


class SiLU(Activation):
    """x * sigmoid(x)."""

    op = activation.silu


class Mish(Activation):
    """x * tanh(softplus(x))."""

    op = activation.mish


class Sigmoid(Activation):
    """1 / (1 + e^-x)."""

    op = activation.sigmoid


class LogSigmoid(Activation):
    """log(sigmoid(x))."""

    op = activation.logsigmoid


class Softplus(Activation):
    """log(1 + e^(beta * x)) / beta."""

    op = activation.softplus


class Softsign(Activation):
    """x / (1 + |x|)."""

    op = activation.softsign


class Tanhshrink(Activation):
    """x - tanh(x)."""

    op = activation.tanhshrink


class Hardtanh(Activation):
    """x bounded to [low, high]."""

    op = activation.hardtanh


class Hardsigmoid(Activation):
    """x / 6 + 1 / 2 bounded to [0, 1]."""

    op = activation.hardsigmoid


class Hardswish(Activation):
    """x * hardsigmoid(x)."""

    op = activation.hardswish


class Hardshrink(Activation):
    """x where |x| > lambd, else 0."""

    op = activation.hardshrink


class Softshrink(Activation):
    """x moved towards 0 by lambd."""

    op = activation.softshrink


class Threshold(Activation):
    """x where x > threshold, else value."""

    op = activation.threshold


class Tanh(Activation):
    """Hyperbolic tangent."""

    op = elementwise.tanh


class Softmax(Activation):
    """e^x over its sum along an axis."""

    op = softmax.softmax


class LogSoftmax(Activation):
    """log(softmax(x)) along an axis."""

    op = softmax.log_softmax


class PReLU(Module):
    """x where positive, else weight * x, with one learned slope or one per channel (axis 1)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = Parameter(full(num_parameters, init))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return activation.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """Number of slopes."""
        return f"num_parameters={self.weight.size}"


class GLU(Module):
    """First half of an axis times the sigmoid of its second half."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Half as large along the axis."""
        return activation.glu(x, self.axis)

    def extra_repr(self) -> str:
        """The axis."""
        return f"axis={self.axis}"
