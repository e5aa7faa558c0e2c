"""The smallest useful gradient: (x x + x).sum().backward() on four numbers: the time of the library's Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import dlcore as dl
from benchmarks.row import Case, Run, Work, compared

VALUES = np.asarray([0.5, -1, 2, 3], np.float32)


def cases() -> Iterator[Case]:
    """As it is, and captured."""
    yield Case("tiny autograd", partial(_work, _backward))
    yield Case("tiny autograd captured", partial(_work, dl.capture(_backward)))


def _backward(x: Any) -> None:
    (x * x + x).sum().backward()


def _work(f: Any) -> Work:
    ours = _run(f, dl.tensor(VALUES, requires_grad=True))
    peer = _run(_backward, torch.tensor(VALUES, requires_grad=True))
    return compared(ours, {"torch": peer}, [2 * VALUES.astype(np.float64) + 1])


def _run(f: Any, x: Any) -> Run:
    def run() -> list[Any]:
        x.grad = None
        f(x)
        return [x.grad]

    return run
