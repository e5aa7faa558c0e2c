"""Gradient clipping. Gradients are replaced, not written in place: two parameters may share one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from dlcore.errors import ArgumentError
from dlcore.tensor import Tensor


def clip_grad_value(params: Iterable[Tensor], limit: float) -> None:
    """Clip every element of the gradients to [-limit, limit]."""
    if not limit > 0:
        raise ArgumentError(f"clip_grad_value: limit must be > 0; got {limit}")
    for p in params:
        if p.grad is not None:
            p.grad = Tensor._wrap(np.clip(p.grad._array, -limit, limit), p._backend)


def grad_norm(params: Iterable[Tensor], norm_type: float = 2.0) -> float:
    """Norm of all gradients together, as one vector (`math.inf` for the largest magnitude), summed in float64."""
    norms = [_norm(p.grad, norm_type) for p in params if p.grad is not None]
    return _combine(norms, norm_type)


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
    with_grad = [p for p in params if p.grad is not None]
    norms = [_norm(p.grad, norm_type) for p in with_grad if p.grad is not None]
    total = _combine(norms, norm_type)
    for p, norm in zip(with_grad, norms if per_parameter else [total] * len(norms), strict=True):
        if max_norm < norm < math.inf and p.grad is not None:
            p.grad = Tensor._wrap(p.grad._array * p.grad.dtype.type(max_norm / norm), p._backend)
    return total


def _norm(grad: Tensor | None, norm_type: float) -> float:
    values = np.abs(np.asarray(grad, np.float64))
    if math.isinf(norm_type):
        return float(values.max(initial=0.0))
    return float(np.sum(values**norm_type) ** (1 / norm_type))


def _combine(norms: list[float], norm_type: float) -> float:
    if math.isinf(norm_type):
        return max(norms, default=0.0)
    return float(sum(n**norm_type for n in norms) ** (1 / norm_type))
