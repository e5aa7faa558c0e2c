"""Attention and its gradients on `_C`: tiles of keys, no T x S matrix of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]
MOST_AXES = 8  # leading ones; `csrc/attention.h`


def _refuse(call: Call) -> str | None:
    shapes = [shape for shape in call.shapes if shape is not None]
    if any(0 in shape for shape in shapes):
        return "no kernel for arrays without elements"
    if max(map(len, shapes)) > MOST_AXES + 2:
        return f"no kernel for more than {MOST_AXES} leading axes"
    return refuse_all_but_f32_f64(call)


def _ready(x: Array | None) -> Array | None:
    """With contiguous columns."""
    return x if x is None or x.strides[-1] == x.itemsize or x.shape[-1] == 1 else _C.contiguous(x)


def _like(x: Array, shape: Shape) -> Array:
    """A new array; heads inside of positions where those of `x` lie so, as a projection to all heads gives them."""
    if x.ndim > 2 and len(shape) > 2 and x.strides[-3] < x.strides[-2]:
        inside: Array = _C.empty((*shape[:-3], shape[-2], shape[-3], shape[-1]), x.dtype)
        return inside.swapaxes(-3, -2)
    out: Array = _C.empty(shape, x.dtype)
    return out


def _scale(q: Array, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else float(scale)


@implement("attention", "cpu", refuse=_refuse)
def attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, *, causal: bool, scale: float | None
) -> tuple[Array, Array]:
    """Results and the logarithm of each row's sum of exponentials."""
    lead = np.broadcast_shapes(*[x.shape[:-2] for x in (q, k, v, bias) if x is not None])
    y, lse = _like(q, (*lead, q.shape[-2], v.shape[-1])), _C.empty((*lead, q.shape[-2]), q.dtype)
    _C.attention(*[_ready(x) for x in (q, k, v, bias)], y, lse, causal, _scale(q, scale))
    return y, lse


@implement("attention_grad", "cpu", refuse=_refuse)
def attention_grad(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array, *,
    causal: bool, scale: float | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Gradients for q, k and v, each over all leading axes."""
    lead = y.shape[:-2]
    dq, dk, dv = (_like(x, (*lead, *x.shape[-2:])) for x in (q, k, v))
    operands = [_ready(x) for x in (q, k, v, bias, y)]
    _C.attention_grad(_ready(dy), dlse, *operands, lse, dq, dk, dv, causal, _scale(q, scale))
    return dq, dk, dv


def joined_gradients(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array, *,
    causal: bool, scale: float | None,
) -> Array:  # fmt: skip
    """Gradients for q[..., H, T, D], k and v as the columns of one array [..., T, columns], heads after heads."""
    *lead, heads, _, _ = y.shape
    ends = np.cumsum([heads * x.shape[-1] for x in (q, k, v)])
    out: Array = _C.empty((*lead, q.shape[-2], int(ends[-1])), q.dtype)
    parts = [part.reshape(*part.shape[:-1], heads, -1).swapaxes(-3, -2) for part in np.split(out, ends[:-1], -1)]
    operands = [_ready(x) for x in (q, k, v, bias, y)]
    _C.attention_grad(_ready(dy), dlse, *operands, lse, *parts, causal, _scale(q, scale))
    return out


@implement("attention_bias_grad", "cpu", refuse=_refuse)
def attention_bias_grad(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array, *,
    causal: bool, scale: float | None,
) -> Array:  # fmt: skip
    """Gradient for the bias, over all leading axes."""
    out: Array = _C.empty((*y.shape[:-1], k.shape[-2]), q.dtype)
    operands = [_ready(x) for x in (q, k, v, bias, y)]
    _C.attention_bias_grad(_ready(dy), dlse, *operands, lse, out, causal, _scale(q, scale))
    return out
