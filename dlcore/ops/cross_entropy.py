"""Cross-entropy of logits with integer labels: a fused op, its gradient, and the gradient of that.

With t the target weights (see `cross_entropy_targets`), p the softmax and lse the logsumexp over the classes, the loss
at one position is sum_c t_c (lse - logits_c), and its gradient is p_c sum(t) - t_c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.errors import ArgumentError
from dlcore.op import Op, Sample, define, sample
from dlcore.ops.elementwise import exp
from dlcore.ops.index import labels_in_range
from dlcore.ops.shape import astype, expand_dims
from dlcore.signature import Dims
from dlcore.tensor import Tensor

Xp = Any
Array = Any
Attrs = Mapping[str, Any]


def _weights(
    xp: Xp, dtype: Any, labels: Array, weight: Array, classes: int, ignore_index: int, label_smoothing: float
) -> Array:
    """t[N,C,S...]"""
    ones = (1,) * (labels.ndim - 1)
    labels = xp.expand_dims(labels, axis=1)
    hot = labels == xp.reshape(xp.arange(classes), (classes, *ones))
    t = xp.astype(hot, dtype) * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        t = t * xp.reshape(xp.astype(weight, dtype), (classes, *ones))
    return xp.where(labels == ignore_index, xp.zeros_like(t), t)


targets: Op = define(
    "cross_entropy_targets",
    "labels[N,S...]:int weight[C]? -> t[N,C,S...]",
    lambda xp, labels, weight=None, *, num_classes=1, ignore_index=-100, label_smoothing=0.0, dtype=dtypes.float32: (
        _weights(xp, getattr(xp, dtype.name), labels, weight, num_classes, ignore_index, label_smoothing)
    ),
    infer=lambda d, *, num_classes, **_: {"C": num_classes},
    dtype=lambda promoted, attrs: attrs["dtype"],
    samples=lambda: [
        sample(np.asarray([[0, 2], [-100, 1]]), (3,), num_classes=3, label_smoothing=0.1, dtype=dtypes.float64),
        sample(np.asarray([0]), num_classes=1),
        sample(np.zeros((0, 2), np.int64), num_classes=3),
    ],
    doc="weight * ((1 - s) * one_hot(labels) + s / C) for label smoothing s, and 0 at ignored labels.",
)


def _divisor(xp: Xp, logits: Array, labels: Array, weight: Array, ignore_index: int, reduction: str) -> Any:
    if reduction != "mean":
        return 1.0
    return xp.sum(_weights(xp, logits.dtype, labels, weight, logits.shape[1], ignore_index, 0.0))


def _cross_entropy(
    xp: Xp,
    logits: Array,
    labels: Array,
    weight: Array = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    t = _weights(xp, logits.dtype, labels, weight, logits.shape[1], ignore_index, label_smoothing)
    top = xp.max(logits, axis=1, keepdims=True)
    lse = xp.log(xp.sum(xp.exp(logits - top), axis=1, keepdims=True)) + top
    loss = xp.sum(xp.where(t == 0, 0.0, t * (lse - logits)), axis=1)
    if reduction != "none":
        loss = xp.sum(loss) / _divisor(xp, logits, labels, weight, ignore_index, reduction)
    return xp.squeeze(lse, axis=1), loss


def _sizes(d: Dims, *, reduction: str, **_: Any) -> Mapping[str, Any]:
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(f"unknown reduction {reduction!r}; expected one of none, mean, sum")
    if d.C == 0:
        raise ArgumentError("there are no classes")
    return {"R": (d.N, *d.S) if reduction == "none" else ()}


def _check_labels(
    read: Callable[[Array], Any], logits: Array, labels: Array, weight: Array = None, *, ignore_index: int,
    reduction: str, **_: Any,
) -> None:  # fmt: skip
    host = read(labels)
    labels_in_range(host, logits.shape[1], ignore_index)
    if reduction == "mean" and (host == ignore_index).all():
        raise ArgumentError(f"every label is ignored ({ignore_index}), so there is no mean")


def _logits_gradient(
    g_loss: Tensor, logits: Tensor, lse: Tensor, labels: Tensor, weight: Tensor | None, attrs: Attrs,
    g_lse: Tensor | None = None,
) -> Tensor:  # fmt: skip
    out: Tensor = cross_entropy_grad(g_lse, g_loss, logits, lse, labels, weight, **attrs)
    return out


def _wide(promoted: Any, attrs: Attrs) -> Any:
    """Of 16-bit logits lse is float32, as the softmax is exp(logits - lse), and so is the loss, a sum over all rows."""
    return (dtypes.wide(promoted),) * 2


def _samples() -> list[Sample]:
    """No gradient flows to the weights, so they are ints here."""
    return [
        sample((4, 5), np.asarray([0, -1, 2, 2]), np.asarray([1, 3, 2, 1, 5]), ignore_index=-1, label_smoothing=0.2),
        sample((4, 5), np.asarray([0, 4, 2, 2])),
        sample((2, 3, 2, 1), np.asarray([[[0], [2]], [[1], [1]]]), np.asarray([2, 1, 3]), reduction="none"),
        sample((1, 1), np.asarray([0]), reduction="sum", label_smoothing=0.1),
        sample((0, 3), np.asarray([], np.int64), reduction="sum"),
    ]


cross_entropy: Op = define(
    "cross_entropy",
    "logits[N,C,S...]:float labels[N,S...]:int weight[C]? -> lse[N,S...] loss[R...]",
    _cross_entropy,
    vjp={"logits": _logits_gradient},
    infer=_sizes,
    dtype=_wide,
    flops=lambda d: 5 * d.N * d.C * d.size("S"),
    check=_check_labels,
    samples=_samples,
    doc="Logsumexp over the classes and -sum_c t_c log softmax(logits)_c, reduced; the mean is over the label weights.",
)


def _grad_reference(
    xp: Xp,
    g_lse: Array | None,
    g_loss: Array,
    logits: Array,
    lse: Array,
    labels: Array,
    weight: Array = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    t = _weights(xp, logits.dtype, labels, weight, logits.shape[1], ignore_index, label_smoothing)
    scale = g_loss / _divisor(xp, logits, labels, weight, ignore_index, reduction)
    scale = xp.expand_dims(xp.broadcast_to(scale, labels.shape), axis=1)
    p = xp.exp(logits - xp.expand_dims(lse, axis=1))
    of_p = scale * xp.sum(t, axis=1, keepdims=True)
    return p * (of_p if g_lse is None else of_p + xp.expand_dims(g_lse, axis=1)) - scale * t


def _grad_vjp(
    g: Tensor, g_lse: Tensor | None, g_loss: Tensor, logits: Tensor, lse: Tensor, labels: Tensor, weight: Tensor | None,
    attrs: Attrs,
) -> tuple[Tensor, ...]:  # fmt: skip
    g, logits, lse = (astype(x, dtype=dtypes.float32) if dtypes.is_half(x.dtype) else x for x in (g, logits, lse))
    known = {"num_classes": logits.shape[1], "ignore_index": attrs["ignore_index"], "dtype": logits.dtype}
    t = targets(labels, weight, label_smoothing=attrs["label_smoothing"], **known)
    divisor = targets(labels, weight, **known).sum() if attrs["reduction"] == "mean" else 1.0
    total = t.sum(axis=1)
    gp = g * exp(logits - expand_dims(lse, 1))
    of_p = g_loss / divisor * total
    to_logits = gp * expand_dims(of_p if g_lse is None else of_p + g_lse, 1)
    to_loss = ((gp.sum(axis=1) * total) - (g * t).sum(axis=1)) / divisor
    return gp.sum(axis=1), to_loss, to_logits, -to_logits.sum(axis=1)


def _grad_samples() -> Iterable[Sample]:
    for k, s in enumerate(_samples()):
        logits, labels, *weight = s.operands
        loss = labels.shape if s.attrs.get("reduction") == "none" else ()
        yield sample(None if k == 1 else labels.shape, loss, logits, labels.shape, labels, *weight, **s.attrs)


cross_entropy_grad: Op = define(
    "cross_entropy_grad",
    "g_lse[N,S...]:wide? g_loss[R...]:wide logits[N,C,S...]:float lse[N,S...]:wide labels[N,S...]:int weight[C]? "
    "-> dlogits[N,C,S...]",
    _grad_reference,
    vjp=_grad_vjp,
    flops=lambda d: 5 * d.N * d.C * d.size("S"),
    samples=_grad_samples,
    doc="Gradient of cross_entropy for gradients of both its outputs.",
)
