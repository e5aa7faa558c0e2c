"""Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017), fused.

The op keeps the logarithm of each row's sum of exponentials instead of the probabilities; its gradient computes those
again (Dao et al., "FlashAttention", 2022), so that no kernel has to hold a T x S matrix in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.creation import constant
from dlcore.errors import ArgumentError, DTypeError, ShapeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.derive import define_derived
from dlcore.ops.matmul import matmul
from dlcore.ops.random import dropout
from dlcore.ops.shape import broadcast_to, where
from dlcore.ops.softmax import softmax
from dlcore.ops.window import as_tensor
from dlcore.tensor import Tensor


def _scores(xp: Any, q: Any, k: Any, bias: Any, causal: bool, scale: float | None) -> Any:
    """Logits `[..., T, S]`; -inf where a key is out of sight."""
    scores = xp.matmul(q, xp.matrix_transpose(k)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    if not causal:
        return scores
    seen = xp.asarray(np.tri(q.shape[-2], k.shape[-2], dtype=np.bool_))
    return xp.where(seen, scores, xp.zeros_like(scores) - inf)


def _probabilities(xp: Any, scores: Any, lse: Any) -> Any:
    """exp(scores - lse); rows without a visible key, whose lse is -inf, get 0."""
    return xp.exp(scores - xp.where(lse == -inf, xp.zeros_like(lse), lse)[..., None])


def _attention(xp: Any, q: Any, k: Any, v: Any, bias: Any, *, causal: bool = False, scale: float | None = None) -> Any:
    scores = _scores(xp, q, k, bias, causal, scale)
    top = xp.max(scores, axis=-1)
    top = xp.where(top == -inf, xp.zeros_like(top), top)
    lse = top + xp.log(xp.sum(xp.exp(scores - top[..., None]), axis=-1))
    return xp.matmul(_probabilities(xp, scores, lse), v), lse


def _attention_grad(
    xp: Any, dy: Any, dlse: Any, q: Any, k: Any, v: Any, bias: Any, y: Any, lse: Any, *, causal: bool = False,
    scale: float | None = None,
) -> Any:  # fmt: skip
    p = _probabilities(xp, _scores(xp, q, k, bias, causal, scale), lse)
    ds = _scores_grad(xp, p, dy, dlse, v, y) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return xp.matmul(ds, k), xp.matmul(xp.matrix_transpose(ds), q), xp.matmul(xp.matrix_transpose(p), dy)


def _scores_grad(xp: Any, p: Any, dy: Any, dlse: Any, v: Any, y: Any) -> Any:
    """Gradient for the logits: p (dp - sum(dy y) + dlse), since sum(dp p) over a row is sum(dy y)."""
    row = xp.sum(dy * y, axis=-1)
    row = row if dlse is None else row - dlse
    return p * (xp.matmul(dy, xp.matrix_transpose(v)) - row[..., None])


def _attention_bias_grad(
    xp: Any, dy: Any, dlse: Any, q: Any, k: Any, v: Any, bias: Any, y: Any, lse: Any, *, causal: bool = False,
    scale: float | None = None,
) -> Any:  # fmt: skip
    return _scores_grad(xp, _probabilities(xp, _scores(xp, q, k, bias, causal, scale), lse), dy, dlse, v, y)


def _vjp(
    g_y: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Any, y: Tensor, lse: Tensor, needs: Sequence[bool], attrs: Any,
    g_lse: Any = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    operands = g_y, g_lse, q, k, v, bias, y, lse
    three = attention_grad(*operands, **attrs) if any(needs[:3]) else (None, None, None)
    return *three, attention_bias_grad(*operands, **attrs) if needs[3] else None


def _samples() -> Iterable[Sample]:
    yield sample((2, 3, 5), (2, 4, 5), (2, 4, 3), None)
    yield sample((2, 2, 3, 4), (2, 1, 3, 4), (2, 1, 3, 4), (1, 3, 3), causal=True)
    yield sample((3, 2), (5, 2), (5, 1), (2, 1, 3, 5), scale=0.3)
    yield sample((1, 2), (1, 2), (1, 2), None)
    yield sample((0, 3, 2), (0, 4, 2), (0, 4, 2), None)


def _grad_samples() -> Iterable[Sample]:
    for k, s in enumerate(_samples()):
        q, key, v, bias = s.operands
        lead = np.broadcast_shapes(q[:-2], key[:-2], (bias or ())[:-2])
        rows = (*lead, q[-2])
        yield sample(
            (*rows, v[-1]), rows if k < 2 else None, q, key, v, bias, (*rows, v[-1]), Arr(rows, 1, 2), **s.attrs
        )


def _bias_grad_samples() -> Iterable[Sample]:
    return (s for s in _grad_samples() if s.operands[5] is not None or 0 in s.operands[0])


_OPERANDS = "q[...,T,D]:float k[...,S,D]:float v[...,S,E]:float bias[...,T,S]:float?"
_GRAD_OPERANDS = f"dy[...,T,E]:float dlse[...,T]:float? {_OPERANDS} y[...,T,E]:float lse[...,T]:float"

attention: Op = define(
    "attention",
    f"{_OPERANDS} -> y[...,T,E] lse[...,T]",
    _attention,
    vjp=_vjp,
    flops=lambda d: 2 * d.size() * d.T * d.S * (d.D + d.E),
    samples=_samples,
    doc="softmax(scale q k^T + bias) v, and the logarithm of each row's sum of exponentials; rows of -inf alone give "
    "0 and -inf. See `dl.scaled_dot_product_attention`.",
)

attention_grad: Op = define_derived(
    "attention_grad",
    f"{_GRAD_OPERANDS} -> dq[...,T,D] dk[...,S,D] dv[...,S,E]",
    _attention_grad,
    flops=lambda d: 2 * d.size() * d.T * d.S * (3 * d.D + 2 * d.E),
    samples=_grad_samples,
    doc="Gradient of attention for q, k and v; computes the probabilities again.",
)

attention_bias_grad: Op = define_derived(
    "attention_bias_grad",
    f"{_GRAD_OPERANDS} -> dbias[...,T,S]",
    _attention_bias_grad,
    flops=lambda d: 2 * d.size() * d.T * d.S * (d.D + d.E),
    samples=_bias_grad_samples,
    doc="Gradient of attention for the bias.",
)


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, mask: Any = None, *, causal: bool = False, dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Attention of queries `q[...,H,T,D]` to keys `k[...,H,S,D]` and values `v[...,H,S,E]`; returns `[...,H,T,E]`.

    mask: bool (True: visible) or added to the logits, of a shape that broadcasts to `[...,H,T,S]`.
    causal: query t sees keys 0 to t. A query that sees no key gets 0.
    dropout_p: probability with which a weight is dropped. scale: of the logits (None: 1/sqrt(D)).
    k and v may have fewer heads than q, if their number divides H: consecutive queries share them.
    Raises ShapeError, ArgumentError, DTypeError (a mask of whole numbers).

    >>> scaled_dot_product_attention(*[dl.ones((2, 4, 5, 8))] * 3, causal=True).shape
    (2, 4, 5, 8)
    """
    if not 0 <= dropout_p <= 1:
        raise ArgumentError(f"scaled_dot_product_attention: dropout_p must lie in [0, 1]; got {dropout_p}")
    q = as_tensor(q)
    k, v = as_tensor(k, q), as_tensor(v, q)
    bias = None if mask is None else _bias(as_tensor(mask, q), q, k)
    heads, shared = (q.shape[-3], k.shape[-3]) if min(q.ndim, k.ndim) > 2 else (1, 1)
    if shared in (1, heads):
        return _attend(q, k, v, bias, causal, dropout_p, scale)
    if heads % shared:
        raise ShapeError(f"scaled_dot_product_attention: {heads} query heads do not share {shared} key heads evenly")
    q, k, v = (_in_groups(x, shared) for x in (q, k, v))
    y = _attend(q, k, v, None if bias is None else _in_groups(bias, shared), causal, dropout_p, scale)
    return y.reshape(*y.shape[:-4], heads, *y.shape[-2:])


def _attend(q: Any, k: Any, v: Any, bias: Any, causal: bool, dropout_p: float, scale: float | None) -> Tensor:
    if dropout_p == 0:
        y: Tensor = attention(q, k, v, bias, causal=causal, scale=scale)[0]
        return y
    if causal:
        seen = constant(np.tri(q.shape[-2], k.shape[-2], dtype=np.bool_), device=q.device)
        bias = where(seen, 0.0 if bias is None else bias, -inf)
    scores = matmul(q, k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return matmul(dropout(softmax(scores if bias is None else scores + bias), dropout_p), v)


def _bias(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """A mask as what is added to the logits, with the last two sizes (T, S)."""
    if dtypes.kind(mask.dtype) == "int":
        raise DTypeError(
            "scaled_dot_product_attention: mask must be bool (True: visible) or floats added to the logits; "
            f"got {mask.dtype}"
        )
    wanted = q.shape[-2], k.shape[-2]
    if mask.ndim < 2:
        mask = mask.reshape(*(1,) * (2 - mask.ndim), *mask.shape)
    added = where(mask, 0.0, -inf).astype(q.dtype) if dtypes.kind(mask.dtype) == "bool" else mask
    if added.shape[-2:] == wanted:
        return added
    out: Tensor = broadcast_to(added, shape=(*added.shape[:-2], *wanted))
    return out


def _in_groups(x: Tensor, groups: int) -> Tensor:
    """`x[...,H,A,B]` as `[...,G,H/G,A,B]`; a single head stays one."""
    heads = x.shape[-3] if x.ndim > 2 else 1
    if heads == 1:
        return x.reshape(*x.shape[:-2], 1, *x.shape[-2:]) if x.ndim > 2 else x
    return x.reshape(*x.shape[:-3], groups, heads // groups, *x.shape[-2:])
