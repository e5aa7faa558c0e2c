"""Work with gradients, of a layer in dlcore and in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.row import Run, Work, compared
from dlcore import autograd

Convert = Callable[[torch.Tensor], torch.Tensor]
LAYOUTS: dict[str, Convert] = {
    "torch": lambda x: x,
    "torch channels_last": lambda x: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x,
}


@dataclass
class Side:
    """`forward()`, the tensors whose gradients are asked for, and the gradient that comes."""

    forward: Callable[[], Any]
    operands: list[Any]
    dy: Any


def work(ours: Side, theirs: Callable[[Convert], Side], backward: bool, channels_last: bool = False) -> Work:
    """The values alone, or values and gradients. theirs(convert): PyTorch's side with its tensors converted."""
    peers = {name: theirs(convert) for name, convert in LAYOUTS.items() if channels_last or name == "torch"}
    exact = _torch(theirs(torch.Tensor.double), backward)()
    return compared(_dlcore(ours, backward), {name: _torch(s, backward) for name, s in peers.items()}, exact)


def _torch(side: Side, backward: bool) -> Run:
    def values() -> list[Any]:
        with torch.no_grad():
            return [side.forward()]

    def both() -> list[Any]:
        y = side.forward()
        return [y.detach(), *torch.autograd.grad(y, side.operands, side.dy)]

    return both if backward else values


def _dlcore(side: Side, backward: bool) -> Run:
    def values() -> list[Any]:
        return [side.forward()]

    def both() -> list[Any]:
        y = side.forward()
        return [y.detach(), *autograd.gradients(y, side.operands, [side.dy])]

    return both if backward else values
