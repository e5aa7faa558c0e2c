"""Softmax and its logarithm along an axis.

Both subtract the largest element first, so nothing overflows. Elements of -inf are masked: they get probability 0. A
row of -inf alone has probability 0 everywhere (and log-probability -inf), where the formula would give NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np

from dlcore.op import Op, Sample, define, sample
from dlcore.ops.elementwise import exp
from dlcore.ops.reduce import sum
from dlcore.ops.shape import axis_index
from dlcore.signature import Dims
from dlcore.tensor import Tensor


def _shifted(xp: Any, x: Any, axis: int) -> Any:
    """x less the largest finite element of its row."""
    if x.shape[axis] == 0:
        return x
    top = xp.max(x, axis=axis, keepdims=True)
    return x - xp.where(top == -inf, xp.zeros_like(top), top)


def _softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    e = xp.exp(_shifted(xp, x, axis))
    total = xp.sum(e, axis=axis, keepdims=True)
    return e / xp.where(total == 0, xp.ones_like(total), total)


def _log_softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    z = _shifted(xp, x, axis)
    total = xp.sum(xp.exp(z), axis=axis, keepdims=True)
    return z - xp.log(xp.where(total == 0, xp.ones_like(total), total))


def _softmax_grad(xp: Any, dy: Any, y: Any, *, axis: int = -1) -> Any:
    return y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))


def _log_softmax_grad(xp: Any, dy: Any, y: Any, *, axis: int = -1) -> Any:
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)


def _check(d: Dims, *, axis: int) -> dict[str, Any]:
    axis_index(axis, len(d.S))
    return {}


def _samples(count: int) -> Iterable[Sample]:
    for shape, axis in [((3, 5), -1), ((2, 3, 4), 1), ((1,), 0), ((0, 3), 1), ((3, 0), 1), ((2, 1, 33), -1)]:
        yield sample(*(shape,) * count, axis=axis)


def _masked_samples() -> Iterable[Sample]:
    yield from _samples(1)
    yield sample(np.asarray([[1.0, -inf, 2.0], [-inf, -inf, -inf]]))


def _row_sum(x: Tensor, axis: int) -> Tensor:
    total: Tensor = sum(x, axis=axis, keepdims=True)
    return total


def _softmax_grad_dy(g: Tensor, dy: Tensor, y: Tensor, axis: int) -> Tensor:
    return g * (dy - _row_sum(dy * y, axis)) - dy * _row_sum(g * y, axis)


softmax: Op = define(
    "softmax",
    "x[S...]:float -> y[S...]",
    _softmax,
    vjp={"x": lambda g, y, axis: softmax_grad(g, y, axis=axis)},
    infer=_check,
    flops=lambda d: 4 * d.size("S"),
    samples=_masked_samples,
    doc="exp(x) / sum(exp(x)) along `axis`; rows of -inf alone give 0.",
)

softmax_grad: Op = define(
    "softmax_grad",
    "dy[S...]:float y[S...]:float -> dx[S...]",
    _softmax_grad,
    vjp={"dy": lambda g, y, axis: softmax_grad(g, y, axis=axis), "y": _softmax_grad_dy},
    infer=_check,
    flops=lambda d: 4 * d.size("S"),
    samples=lambda: _samples(2),
    doc="Gradient of softmax from its output: y * (dy - sum(dy * y)).",
)

log_softmax: Op = define(
    "log_softmax",
    "x[S...]:float -> y[S...]",
    _log_softmax,
    vjp={"x": lambda g, y, axis: log_softmax_grad(g, y, axis=axis)},
    infer=_check,
    flops=lambda d: 4 * d.size("S"),
    samples=lambda: _samples(1),
    doc="log(softmax(x)) along `axis`; elements of -inf, and rows of them alone, give -inf.",
)

log_softmax_grad: Op = define(
    "log_softmax_grad",
    "dy[S...]:float y[S...]:float -> dx[S...]",
    _log_softmax_grad,
    vjp={
        "dy": lambda g, y, axis: g - _row_sum(g * exp(y), axis),
        "y": lambda g, dy, y, axis: -g * exp(y) * _row_sum(dy, axis),
    },
    infer=_check,
    flops=lambda d: 4 * d.size("S"),
    samples=lambda: _samples(2),
    doc="Gradient of log_softmax from its output: dy - exp(y) * sum(dy).",
)
