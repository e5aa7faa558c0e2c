"""Functions bound by memory or by the cost of a call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import dlcore as dl
from benchmarks import libraries
from benchmarks.row import Case, Work, compared

ROWS, MILLIONS = (4096, 1024), (4 * 2**20,)


@dataclass(frozen=True)
class Spec:
    """What each library calls of its own. exact(xp, x): the definition, for NumPy, JAX and in float64."""

    shape: tuple[int, ...]
    ours: Callable[[Any], Any]
    torch: Callable[[Any, Any], Any]
    exact: Callable[[Any, Any], Any]
    passes: float = 2  # how many arrays of x's size are read and written
    captured: bool = False
    defined: bool = True  # by functions that NumPy has


def _chain(_: Any, x: Any) -> Any:
    return (x * 2 + 1).tanh() * x


def _softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _norm(xp: Any, x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / xp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _gelu(_: Any, x: Any) -> Any:
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / 2**0.5))


def _specs() -> dict[str, Spec]:
    scale, shift = dl.ones(1024), dl.zeros(1024)
    return {
        "softmax 4096x1024": Spec(ROWS, lambda x: dl.softmax(x, axis=-1), lambda t, x: t.softmax(x, -1), _softmax),
        "layer norm 4096x1024": Spec(
            ROWS, lambda x: dl.layer_norm(x, scale, shift), lambda t, x: t.layer_norm(x, (1024,)), _norm
        ),
        "gelu 4M": Spec(MILLIONS, dl.gelu, lambda t, x: t.nn.functional.gelu(x), _gelu, defined=False),
        "chain 4M captured": Spec(
            MILLIONS, partial(_chain, dl), _chain, lambda xp, x: xp.tanh(x * 2 + 1) * x, captured=True
        ),
        "add 4M": Spec(MILLIONS, lambda x: x + x, lambda _, x: x + x, lambda _, x: x + x),
        "exp 4M": Spec(MILLIONS, dl.exp, lambda t, x: t.exp(x), lambda xp, x: xp.exp(x)),
        "sine 4M": Spec(MILLIONS, dl.sin, lambda t, x: t.sin(x), lambda xp, x: xp.sin(x)),
        "running sum of rows 4096x1024": Spec(
            ROWS, lambda x: dl.cumsum(x, axis=1), lambda _, x: x.cumsum(1), lambda xp, x: xp.cumsum(x, axis=1)
        ),
        "sort of rows 4096x1024": Spec(
            ROWS, lambda x: dl.sort(x, axis=1), lambda t, x: t.sort(x, 1)[0], lambda xp, x: xp.sort(x, axis=1)
        ),
        "sum of rows 4096x1024": Spec(ROWS, lambda x: x.sum(axis=1), lambda _, x: x.sum(1), lambda _, x: x.sum(1), 1),
        "sum of columns 4096x1024": Spec(
            ROWS, lambda x: x.sum(axis=0), lambda _, x: x.sum(0), lambda _, x: x.sum(0), 1
        ),
        "transposed copy 4096x1024": Spec(
            ROWS, lambda x: x.T.reshape(-1), lambda _, x: x.T.reshape(-1), lambda _, x: x.T.reshape(-1)
        ),
    }


def cases(peers: tuple[str, ...]) -> Iterator[Case]:
    """Functions of one array. peers: libraries."""
    for name, spec in _specs().items():
        here = peers if spec.defined else tuple(p for p in peers if p == "torch")
        if here:
            yield Case(name, partial(_work, spec, here))


def _work(spec: Spec, peers: tuple[str, ...]) -> Work:
    x = np.random.default_rng(0).normal(size=spec.shape).astype(np.float32)
    f, own = dl.capture(spec.ours) if spec.captured else spec.ours, dl.asarray(x)
    others = {p: libraries.run(p, spec.torch if p == "torch" else spec.exact, x) for p in peers}
    exact = spec.exact(np, x.astype(np.float64))
    return compared(lambda: [f(own)], others, [exact], spec.passes * x.nbytes)
