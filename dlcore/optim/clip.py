"""Gradient clipping. Gradients are replaced, not written in place: two parameters may share one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from dlcore import dtypes, recording
from dlcore.autograd import no_grad
from dlcore.errors import ArgumentError
from dlcore.ops import elementwise
from dlcore.tensor import Tensor


def clip_grad_value(params: Iterable[Tensor], limit: float) -> None:
    """Clip every element of the gradients to [-limit, limit]."""
    if not limit > 0:
        raise ArgumentError(f"clip_grad_value: limit must be > 0; got {limit}")
    params = list(params)
    with no_grad():
        for p, grad in zip(params, recording.grads(params), strict=True):
            if grad is not None:
                p.grad = elementwise.clip(grad, -limit, limit)


def grad_norm(params: Iterable[Tensor], norm_type: float = 2.0) -> float:
    """Norm of all gradients together, as one vector (`math.inf` for the largest magnitude)."""
    with no_grad():
        return _norm([g for g in recording.grads(params) if g is not None], norm_type)


def clip_grad_norm(
    params: Iterable[Tensor], max_norm: float, norm_type: float = 2.0, *, per_parameter: bool = False
) -> float:
    """Scale the gradients so that their common norm is at most `max_norm`; returns the norm before.

    per_parameter: each gradient to a norm of at most `max_norm` by itself. A norm that is not finite clips nothing.
    Pascanu et al., "On the difficulty of training recurrent neural networks" (2013).

    >>> norm = clip_grad_norm(model.parameters(), 1.0)
    """
    if not (max_norm > 0 and norm_type > 0):
        raise ArgumentError(f"clip_grad_norm: max_norm and norm_type must be > 0; got {max_norm} and {norm_type}")
    params = [p for p in params if p.grad is not None]
    total, *grads = _clipped((max_norm, norm_type, per_parameter), *recording.grads(params))
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    found: float = total
    return found


@recording.host
def _clipped(limits: tuple[float, float, bool], *grads: Tensor) -> tuple[Any, ...]:
    """The norm of all gradients and, scaled, the gradients."""
    max_norm, norm_type, per_parameter = limits
    with no_grad():
        total = _norm(grads, norm_type)
        norms = [_norm([g], norm_type) if per_parameter else total for g in grads]
        return total, *[g * (max_norm / n) if max_norm < n < math.inf else g for g, n in zip(grads, norms, strict=True)]


def _norm(grads: Sequence[Tensor], norm_type: float) -> float:
    """In float32 at least, and in float64 where powers in float32 overflow; one read from the device."""
    grads = [g.astype(dtypes.float32) if dtypes.is_half(g.dtype) else g for g in grads if g.size]
    if not grads:
        return 0.0
    largest = math.isinf(norm_type)
    device = grads[0].device
    parts = [(abs(g).max() if largest else _power(g, norm_type).sum()).to(device) for g in grads]
    total = float(reduce(elementwise.maximum if largest else elementwise.add, parts))
    if total == math.inf and not largest and any(g.dtype == dtypes.float32 for g in grads):
        return _norm([g.astype(dtypes.float64) for g in grads], norm_type)
    return total if largest else total ** (1 / norm_type)


def _power(g: Tensor, exponent: float) -> Tensor:
    """|g| ** exponent."""
    y: Tensor = elementwise.square(g) if exponent == 2 else abs(g) ** exponent
    return y
