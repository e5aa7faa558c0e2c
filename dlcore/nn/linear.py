"""Affine layers."""

from __future__ import annotations

from dlcore import ops
from dlcore.nn.init import fan_in_parameter
from dlcore.nn.module import Module
from dlcore.tensor import Tensor


class Linear(Module):
    """y = activation(x @ weight.T + bias), `x[..., I] -> y[..., O]`.

    weight `[O, I]` and bias `[O]` start uniform in +-1 / sqrt(I). activation: "none", "relu", "gelu", "tanh" or
    "sigmoid", computed in the same kernel.

    >>> Linear(784, 10)(dl.zeros((32, 784))).shape
    (32, 10)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activation: str = "none") -> None:
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = fan_in_parameter((out_features, in_features), in_features)
        self.bias = fan_in_parameter((out_features,), in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The affine map of the last axis."""
        y: Tensor = ops.matmul.linear(x, self.weight, self.bias, activation=self.activation)
        return y

    def extra_repr(self) -> str:
        """Sizes and options."""
        fused = f", activation={self.activation!r}" if self.activation != "none" else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{fused}"


class Bilinear(Module):
    """y[..., k] = x1 @ weight[k] @ x2 + bias[k], `x1[..., I] x2[..., J] -> y[..., O]`."""

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True) -> None:
        self.weight = fan_in_parameter((out_features, in1_features, in2_features), in1_features)
        self.bias = fan_in_parameter((out_features,), in1_features) if bias else None

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The bilinear map of the last axes."""
        y = ops.einsum.einsum("...i,kij,...j->...k", x1, self.weight, x2)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Sizes."""
        o, i, j = self.weight.shape
        return f"{i}, {j}, {o}, bias={self.bias is not None}"
