"""Losses. Arguments and defaults are PyTorch's; shapes must agree exactly, targets must be numbers.

reduction: `none` (one loss per element or position), `mean` or `sum`. Every function raises ShapeError for operands of
different shapes and ArgumentError for targets that are NaN, an unknown reduction and the mean of an empty batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.creation import asarray
from dlcore.errors import ArgumentError, ShapeError
from dlcore.ops.activation import logsigmoid
from dlcore.ops.cross_entropy import cross_entropy as _cross_entropy
from dlcore.ops.elementwise import abs, clip, exp, log, maximum, square
from dlcore.ops.gather import take, take_along_axis
from dlcore.ops.index import check_labels
from dlcore.ops.shape import astype, expand_dims, squeeze, where
from dlcore.ops.softmax import log_softmax
from dlcore.tensor import Tensor


def reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    """A loss per element as it is, summed or averaged."""
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(f"{name}: unknown reduction {reduction!r}; expected one of none, mean, sum")
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    not_empty(name, loss.size)
    return loss.mean()


def not_empty(name: str, count: int) -> None:
    """Refuse a mean over nothing."""
    if count == 0:
        raise ArgumentError(f"{name}: the mean of an empty batch; use reduction='sum' or 'none'")


def same_shape(name: str, **operands: Any) -> None:
    """Refuse operands of different shapes: losses do not broadcast."""
    shapes = {label: x.shape for label, x in operands.items() if x is not None}
    if len(set(shapes.values())) > 1:
        shown = " ".join(f"{label}{list(shape)}" for label, shape in shapes.items())
        raise ShapeError(f"{name}: expected operands of one shape; got {shown}")


def checked(name: str, targets: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse targets that are NaN or outside [low, high]."""
    host = np.asarray(targets)
    if host.size == 0:
        return
    least = host.min()  # NaN if one is
    if least != least:
        raise ArgumentError(f"{name}: a target is NaN")
    if not (low <= least and (high == math.inf or host.max() <= high)):
        raise ArgumentError(f"{name}: targets must lie in [{low}, {high}]; got {least} to {host.max()}")


# ---- classes


def cross_entropy(
    logits: Tensor,
    labels: Any,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of `softmax(logits)` over axis 1 with labels.

    logits: [N, C, ...] (or [C]). labels: integers [N, ...], or probabilities of the shape of `logits`.
    weight: one weight per class [C]; the mean divides by the weights of the labels. ignore_index: label of positions
    that do not count. label_smoothing: share of the target that is spread evenly over the classes, in [0, 1].
    Raises IndexRangeError for a label outside [0, C).

    >>> cross_entropy(dl.zeros((2, 4)), dl.tensor([0, 3]))
    tensor(1.3862944)
    """
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"cross_entropy: label_smoothing must lie in [0, 1]; got {label_smoothing}")
    if weight is not None and weight.requires_grad:
        raise ArgumentError("cross_entropy: no gradient flows to the class weights; pass weight.detach()")
    if _is_float(labels):
        return _soft_cross_entropy(logits, labels, weight, label_smoothing, reduction)
    if logits.ndim == 1:
        loss = cross_entropy(
            logits.reshape(1, -1), np.asarray(labels).reshape(1), weight, ignore_index, label_smoothing, reduction
        )
        return loss.reshape(())
    if reduction == "mean":
        not_empty("cross_entropy", np.size(labels))
    _, out = _cross_entropy(
        logits, labels, weight, ignore_index=ignore_index, label_smoothing=float(label_smoothing), reduction=reduction
    )
    found: Tensor = out
    return found


def _is_float(labels: Any) -> bool:
    dtype = getattr(labels, "dtype", None)
    return dtype is not None and dtypes.kind(dtype) == "float"


def _check_classes(name: str, labels: Any, classes: int, ignore_index: int, reduction: str) -> None:
    host = np.asarray(labels)
    check_labels(name, host, classes, ignore_index)
    if reduction == "mean":
        not_empty(name, host.size)
        if (host == ignore_index).all():
            raise ArgumentError(f"{name}: every label is ignored ({ignore_index}), so there is no mean")


def _soft_cross_entropy(
    logits: Tensor, p: Tensor, weight: Tensor | None, label_smoothing: float, reduction: str
) -> Tensor:
    if logits.shape != p.shape:
        raise ShapeError(
            f"cross_entropy: expected integer labels[N,...] or probabilities[{','.join(map(str, logits.shape))}]; "
            f"got {p.dtype} {list(p.shape)}"
        )
    checked("cross_entropy", p)
    axis = min(1, logits.ndim - 1)
    share = p * (1 - label_smoothing) + label_smoothing / logits.shape[axis]
    if weight is not None:
        share = share * _per_class(weight, logits, axis)
    return reduced("cross_entropy", -(share * log_softmax(logits, axis=axis)).sum(axis=axis), reduction)


def _per_class(weight: Tensor, x: Tensor, axis: int) -> Tensor:
    if weight.shape != (x.shape[axis],):
        raise ShapeError(f"cross_entropy: expected weight[{x.shape[axis]}]; got {list(weight.shape)}")
    return weight.reshape(-1, *(1,) * (x.ndim - axis - 1))


def nll_loss(
    log_probs: Tensor, labels: Any, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood: minus the log-probability of each label, times its class's weight.

    log_probs: [N, C, ...]. labels: integers [N, ...]. Other arguments and errors as for `cross_entropy`.
    """
    if log_probs.ndim < 2 or log_probs.shape[:1] + log_probs.shape[2:] != np.shape(labels):
        raise ShapeError(
            f"nll_loss: expected log_probs[N,C,S...] labels[N,S...]; "
            f"got log_probs{list(log_probs.shape)} labels{list(np.shape(labels))}"
        )
    _check_classes("nll_loss", labels, log_probs.shape[1], ignore_index, reduction)
    labels = asarray(labels, device=log_probs.device)
    counted = labels != ignore_index
    safe = where(counted, labels, 0)
    scale: Tensor = astype(counted, dtype=log_probs.dtype)
    if weight is not None:
        scale = scale * take(weight, safe)
    loss = -squeeze(take_along_axis(log_probs, expand_dims(safe, 1), axis=1), 1) * scale
    if reduction == "mean":
        return loss.sum() / scale.sum()
    return reduced("nll_loss", loss, reduction)


# ---- yes or no


def binary_cross_entropy(
    probs: Tensor, targets: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), logarithms cut at -100, times a weight per element (which broadcasts).

    Raises ArgumentError for probabilities or targets outside [0, 1].
    """
    name = "binary_cross_entropy"
    same_shape(name, probs=probs, targets=targets)
    checked(name, targets, 0, 1)
    checked(name, probs, 0, 1)
    loss = -(targets * _cut_log(probs) + (1 - targets) * _cut_log(1 - probs))
    return reduced(name, _weighted(name, loss, weight), reduction)


def _cut_log(p: Tensor) -> Tensor:
    """log(p), at least -100."""
    out: Tensor = where(p > 0, maximum(log(where(p > 0, p, 1.0)), -100.0), -100.0)
    return out


def _weighted(name: str, loss: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return loss
    out = loss * weight
    if out.shape != loss.shape:
        raise ShapeError(f"{name}: weight{list(weight.shape)} does not broadcast to {list(loss.shape)}")
    return out


def binary_cross_entropy_with_logits(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of `sigmoid(logits)`, without overflow.

    pos_weight: factor of the positive term (it broadcasts). Raises ArgumentError for targets outside [0, 1].
    """
    name = "binary_cross_entropy_with_logits"
    same_shape(name, logits=logits, targets=targets)
    checked(name, targets, 0, 1)
    factor = 1.0 if pos_weight is None else (pos_weight - 1) * targets + 1
    loss = (1 - targets) * logits - factor * logsigmoid(logits)
    return reduced(name, _weighted(name, loss, weight), reduction)


# ---- numbers


def mse_loss(pred: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared difference."""
    same_shape("mse_loss", pred=pred, target=target)
    checked("mse_loss", target)
    return reduced("mse_loss", square(pred - target), reduction)


def l1_loss(pred: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Absolute difference."""
    same_shape("l1_loss", pred=pred, target=target)
    checked("l1_loss", target)
    return reduced("l1_loss", abs(pred - target), reduction)


def huber_loss(pred: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d**2 / 2 for differences d below `delta`, delta * (|d| - delta / 2) above (Huber 1964)."""
    if delta <= 0:
        raise ArgumentError(f"huber_loss: delta must be positive; got {delta}")
    return reduced("huber_loss", _huber("huber_loss", pred, target, delta), reduction)


def smooth_l1_loss(pred: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """`huber_loss` with delta = beta, divided by beta; for beta = 0 the absolute difference (Girshick 2015)."""
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: beta must not be negative; got {beta}")
    if beta == 0:
        return l1_loss(pred, target, reduction)
    return reduced("smooth_l1_loss", _huber("smooth_l1_loss", pred, target, beta) / beta, reduction)


def _huber(name: str, pred: Tensor, target: Tensor, delta: float) -> Tensor:
    same_shape(name, pred=pred, target=target)
    checked(name, target)
    d = abs(pred - target)
    out: Tensor = where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta))
    return out


def gaussian_nll_loss(
    pred: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log v + (pred - target)**2 / v) / 2 with v = max(var, eps); `full` adds log(2 pi) / 2.

    No gradient reaches a variance through the cut. Raises ArgumentError for a negative variance.
    """
    name = "gaussian_nll_loss"
    same_shape(name, pred=pred, target=target, var=var)
    checked(name, target)
    if not (np.asarray(var) >= 0).all():
        raise ArgumentError(f"{name}: a variance is negative or NaN")
    v = var + (clip(var.detach(), min=eps) - var.detach())
    loss = 0.5 * (log(v) + square(pred - target) / v)
    return reduced(name, loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def poisson_nll_loss(
    pred: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """rate - target * log(rate), where `pred` is the log of the rate (or the rate, to which eps is added in the log).

    full: adds Stirling's approximation of log(target!) for targets above 1.
    """
    name = "poisson_nll_loss"
    same_shape(name, pred=pred, target=target)
    checked(name, target, 0)
    loss = exp(pred) - target * pred if log_input else pred - target * log(pred + eps)
    if full:
        t = where(target > 1, target, 1.0)
        loss = loss + where(target > 1, t * log(t) - t + 0.5 * log(2 * math.pi * t), 0.0)
    return reduced(name, loss, reduction)


def kl_div(log_probs: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log target - log_probs), element by element; `log_target` says that target is a logarithm already.

    reduction: also `batchmean`, the sum over the size of axis 0 (the divergence per example).
    """
    same_shape("kl_div", log_probs=log_probs, target=target)
    checked("kl_div", target)
    loss: Tensor
    if log_target:
        loss = exp(target) * (target - log_probs)
    else:
        loss = target * (where(target > 0, log(where(target > 0, target, 1.0)), 0.0) - log_probs)
    if reduction != "batchmean":
        return reduced("kl_div", loss, reduction)
    count = loss.shape[0] if loss.ndim else 1
    not_empty("kl_div", count)
    return loss.sum() / count
