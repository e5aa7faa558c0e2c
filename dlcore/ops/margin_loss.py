"""Losses on margins and distances; conventions and errors are those of `dlcore.ops.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore.errors import ArgumentError
from dlcore.ops.activation import relu
from dlcore.ops.elementwise import maximum, minimum, square
from dlcore.ops.loss import checked, reduced, same_shape
from dlcore.ops.reduce import norm
from dlcore.ops.shape import axis_index, where
from dlcore.tensor import Tensor


def _signs(name: str, targets: Any) -> None:
    checked(name, targets)
    if not (np.abs(np.asarray(targets)) == 1).all():
        raise ArgumentError(f"{name}: targets must be 1 or -1")


def hinge_loss(scores: Tensor, targets: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """max(0, margin - target * score) for targets 1 and -1."""
    same_shape("hinge_loss", scores=scores, targets=targets)
    _signs("hinge_loss", targets)
    return reduced("hinge_loss", relu(margin - targets * scores), reduction)


def hinge_embedding_loss(distance: Tensor, targets: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """The distance for target 1, max(0, margin - distance) for target -1."""
    same_shape("hinge_embedding_loss", distance=distance, targets=targets)
    _signs("hinge_embedding_loss", targets)
    return reduced("hinge_embedding_loss", where(targets == 1, distance, relu(margin - distance)), reduction)


def margin_ranking_loss(
    x1: Tensor, x2: Tensor, targets: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (x1 - x2)): target 1 wants x1 above x2, target -1 below."""
    same_shape("margin_ranking_loss", x1=x1, x2=x2, targets=targets)
    _signs("margin_ranking_loss", targets)
    return reduced("margin_ranking_loss", relu(margin - targets * (x1 - x2)), reduction)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> Tensor:
    """p-norm of x1 - x2 + eps over the last axis."""
    same_shape("pairwise_distance", x1=x1, x2=x2)
    return norm(x1 - x2 + eps, p, axis=-1, keepdims=keepdims)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with `pairwise_distance` d (Schroff et al. 2015).

    swap: use d(positive, negative) where it is smaller than d(anchor, negative).
    """
    same_shape("triplet_margin_loss", anchor=anchor, positive=positive, negative=negative)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced("triplet_margin_loss", relu(pairwise_distance(anchor, positive, p, eps) - far + margin), reduction)


def contrastive_loss(x1: Tensor, x2: Tensor, targets: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """d**2 for similar pairs (target 1), max(0, margin - d)**2 for others (target 0), d the distance of the rows.

    x1, x2: [N, D]. targets: [N]. Hadsell, Chopra and LeCun, CVPR 2006, without their factor 1/2.
    """
    same_shape("contrastive_loss", x1=x1, x2=x2)
    checked("contrastive_loss", targets, 0, 1)
    d = pairwise_distance(x1, x2)
    same_shape("contrastive_loss", distance=d, targets=targets)
    return reduced("contrastive_loss", targets * square(d) + (1 - targets) * square(relu(margin - d)), reduction)


def cosine_similarity(x1: Tensor, x2: Tensor, axis: int = 1, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between vectors along an axis; norms below `eps` count as `eps`. Operands broadcast."""
    product = x1 * x2
    axis = axis_index(axis, product.ndim) - product.ndim  # counted from the end, where operands of two ranks align
    lengths: Tensor = maximum(norm(x1, axis=axis), eps) * maximum(norm(x2, axis=axis), eps)
    return product.sum(axis=axis) / lengths


def cosine_embedding_loss(
    x1: Tensor, x2: Tensor, targets: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos for target 1, max(0, cos - margin) for target -1; x1, x2: [N, D], targets: [N]."""
    same_shape("cosine_embedding_loss", x1=x1, x2=x2)
    _signs("cosine_embedding_loss", targets)
    c = cosine_similarity(x1, x2, axis=-1)
    same_shape("cosine_embedding_loss", cosine=c, targets=targets)
    return reduced("cosine_embedding_loss", where(targets == 1, 1 - c, relu(c - margin)), reduction)
