"""Dropout layers."""

from __future__ import annotations

from dlcore.creation import ones
from dlcore.errors import ArgumentError
from dlcore.nn.module import Module
from dlcore.ops import random
from dlcore.tensor import Tensor


class Dropout(Module):
    """In training, zero each element with probability `p` and divide the others by 1 - p; else the identity.

    Srivastava et al., "Dropout" (2014).
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError(f"{type(self).__name__}: p must lie in [0, 1]; got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return random.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class ChannelDropout(Dropout):
    """Dropout of whole channels: all elements of `x[N, C, ...]` that share n and c. Tompson et al. (2015)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        if not self.training or self.p == 0:
            return x
        mask = ones((*x.shape[:2], *(1 for _ in x.shape[2:])), x.dtype, x.device)
        return x * random.dropout(mask, self.p)


Dropout1d = Dropout2d = Dropout3d = ChannelDropout
