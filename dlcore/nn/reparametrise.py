"""Layers whose weight is computed from other parameters at every call."""

from __future__ import annotations

from typing import Any

from dlcore import autograd
from dlcore.creation import zeros
from dlcore.errors import ArgumentError
from dlcore.nn import init
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter
from dlcore.ops.reduce import norm
from dlcore.tensor import Tensor


class Reparametrised(Module):
    """Base class: takes the parameter `name` of a layer over and gives the layer `weight()` during each call."""

    def __init__(self, layer: Module, name: str = "weight") -> None:
        if not isinstance(vars(layer).get(name), Parameter):
            raise ArgumentError(f"{type(self).__name__}: {type(layer).__name__} has no parameter {name!r}")
        self.layer, self.name = layer, name
        self.raw = vars(layer)[name]
        vars(layer)[name] = self.raw.detach()

    def weight(self) -> Tensor:
        """The weight for this call."""
        raise NotImplementedError

    def forward(self, *args: Any) -> Any:
        """The layer's output with that weight."""
        weight = self.weight()
        vars(self.layer)[self.name] = weight
        try:
            return self.layer(*args)
        finally:
            vars(self.layer)[self.name] = weight.detach()


class WeightNorm(Reparametrised):
    """weight = scale * raw / |raw|, the norm over all axes but the first.

    Salimans & Kingma, "Weight normalization" (2016).

    >>> WeightNorm(Linear(4, 2))
    """

    def __init__(self, layer: Module, name: str = "weight") -> None:
        super().__init__(layer, name)
        self.scale = Parameter(self._norm().detach())

    def _norm(self) -> Tensor:
        return norm(self.raw, axis=tuple(range(1, self.raw.ndim)), keepdims=True)

    def weight(self) -> Tensor:
        """Of the shape of `raw`."""
        out: Tensor = self.raw * (self.scale / self._norm())
        return out


class SpectralNorm(Reparametrised):
    """weight = raw / its largest singular value (axes after the first as one), by power iteration in training.

    Miyato et al., "Spectral normalization for generative adversarial networks" (2018), algorithm 1.

    >>> SpectralNorm(Conv2d(3, 8, 3))
    """

    left: Tensor

    def __init__(self, layer: Module, name: str = "weight", iterations: int = 1, eps: float = 1e-12) -> None:
        super().__init__(layer, name)
        self.iterations, self.eps = iterations, eps
        self.register_buffer("left", init.normal(zeros(self.raw.shape[:1], self.raw.dtype, self.raw.device)))

    def weight(self) -> Tensor:
        """Of the shape of `raw`."""
        matrix = self.raw.reshape(self.raw.shape[0], -1)
        with autograd.no_grad():
            left = self._iterated(matrix) if self.training and not autograd.is_recomputing() else self.left
            right = self._unit(left @ matrix)
        out: Tensor = self.raw / ((left @ matrix) * right).sum()
        return out

    def _iterated(self, matrix: Tensor) -> Tensor:
        left = self.left
        for _ in range(self.iterations):
            left = self._unit(matrix @ self._unit(left @ matrix))
        self.left.assign(left)
        return left

    def _unit(self, x: Tensor) -> Tensor:
        out: Tensor = x / (norm(x) + self.eps)
        return out
