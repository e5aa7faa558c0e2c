"""Softmax, its logarithm and the cross-entropy of labels on `_C`, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement
from dlcore.op import OPS

Array = np.ndarray[Any, Any]


def _along(kernel: Callable[..., Array]) -> Callable[..., Array]:
    """A kernel for rows of the last axis as a function of any axis."""

    def call(*arrays: Array, axis: int) -> Array:
        if axis not in (-1, arrays[0].ndim - 1):
            return call(*[x.swapaxes(axis, -1) for x in arrays], axis=-1).swapaxes(axis, -1)
        return kernel(*[x if x.flags.c_contiguous else x.copy() for x in arrays])

    return call


for _name in ("softmax", "log_softmax", "softmax_grad", "log_softmax_grad"):
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64)(_along(getattr(_C, _name)))


def _refuse_cross_entropy(call: Call) -> str | None:
    shapes = {o.name: shape for o, shape in zip(call.op.signature.operands, call.shapes, strict=True)}
    if shapes["weight"] is not None or len(shapes["logits"] or ()) != 2:
        return "no kernel for class weights or axes after the classes"
    return refuse_all_but_f32_f64(call)


@implement("cross_entropy", "cpu", refuse=_refuse_cross_entropy, checks=True)
def cross_entropy(logits: Array, labels: Array, weight: None, **attrs: Any) -> tuple[Array, Array]:
    """Logsumexp and loss."""
    at = np.ascontiguousarray(labels, np.int64)
    if not (at.size and _C.are_labels(at, logits.shape[1])):  # some may be ignored
        OPS["cross_entropy"].check_values(np.asarray, (logits, labels, weight), attrs)
    out: tuple[Array, Array] = _C.cross_entropy(_C.contiguous(logits), at, **attrs)
    return out


@implement("cross_entropy_grad", "cpu", refuse=_refuse_cross_entropy)
def cross_entropy_grad(
    g_lse: Array | None, g_loss: Array, logits: Array, lse: Array, labels: Array, weight: None, **attrs: Any
) -> Array:
    """Gradient for the logits, from those of logsumexp and loss."""
    g_lse = np.zeros(lse.shape, lse.dtype) if g_lse is None else g_lse
    dense = [_C.contiguous(x) for x in (g_lse, g_loss, logits, lse)]
    out: Array = _C.cross_entropy_grad(*dense, np.ascontiguousarray(labels, np.int64), **attrs)
    return out
