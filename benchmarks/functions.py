"""Functions bound by memory or by the cost of a call, against PyTorch: rows of `python -m benchmarks peers`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import dlcore as dl
from benchmarks import harness

FOUR_MILLION = 4 * 2**20


def rows(only: str, peak: float) -> Iterator[harness.Row]:
    """Every row whose name contains `only`."""
    rng = np.random.default_rng(0)
    for name, (shape, ours, theirs, exact, captured) in _cases().items():
        if only in name:
            x = rng.normal(size=shape).astype(np.float32)
            yield _row(name, x, dl.capture(ours) if captured else ours, theirs, exact, peak)
    for name, f in (("tiny autograd", _backward), ("tiny autograd captured", dl.capture(_backward))):
        if only in name:
            yield _tiny(name, f, peak)


def _cases() -> dict[str, Any]:
    """Shape, ours, PyTorch's, in float64, whether ours is captured."""
    functional, scale, shift = torch.nn.functional, dl.ones(1024), dl.zeros(1024)
    erf = np.vectorize(math.erf, otypes=[np.float64])
    rows, million = (4096, 1024), FOUR_MILLION

    def chain(x: Any) -> Any:
        return (x * 2 + 1).tanh() * x

    def layer_norm(x: Any) -> Any:
        return functional.layer_norm(x, (1024,))

    return {
        "softmax 4096x1024": (rows, lambda x: dl.softmax(x, axis=-1), lambda x: torch.softmax(x, -1), _softmax, False),
        "layer norm 4096x1024": (rows, lambda x: dl.layer_norm(x, scale, shift), layer_norm, _norm, False),
        "gelu 4M": (million, dl.gelu, functional.gelu, lambda x: 0.5 * x * (1 + erf(x / 2**0.5)), False),
        "chain 4M captured": (million, chain, chain, lambda x: np.tanh(x * 2 + 1) * x, True),
    }


def _row(name: str, x: Any, ours: Any, theirs: Any, exact: Any, peak: float) -> harness.Row:
    dx, tx, expected = dl.asarray(x), torch.from_numpy(x), [exact(x.astype(np.float64))]
    errors = harness.relative_error([ours(dx)], expected), harness.relative_error([theirs(tx)], expected)
    return harness.compare(name, lambda: ours(dx), lambda: theirs(tx), errors, x.size, peak)


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _backward(x: Any) -> None:
    (x * x + x).sum().backward()


def _tiny(name: str, f: Any, peak: float) -> harness.Row:
    """(x x + x).sum().backward() on four numbers."""
    values = np.float32([0.5, -1, 2, 3])
    x, peer = dl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)

    def ours() -> None:
        x.grad = None
        f(x)

    def theirs() -> None:
        peer.grad = None
        _backward(peer)

    ours(), theirs()
    expected = [2 * values.astype(np.float64) + 1]
    errors = harness.relative_error([x.grad], expected), harness.relative_error([peer.grad.numpy()], expected)
    return harness.compare(name, ours, theirs, errors, 3 * x.size, peak)
