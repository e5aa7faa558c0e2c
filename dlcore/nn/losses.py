"""Losses as layers. Settings are keywords of the function that each names, where operands and errors are described."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dlcore.errors import ArgumentError
from dlcore.nn.module import Module
from dlcore.ops import ctc, loss, margin_loss
from dlcore.tensor import Tensor


class Loss(Module):
    """Base class: applies `run` with settings; tensors among them (class weights) become buffers.

    Raises ArgumentError for a setting that the function does not have.

    >>> CrossEntropyLoss(label_smoothing=0.1)(logits, labels)
    """

    run: Callable[..., Tensor]

    def __init__(self, **settings: Any) -> None:
        parameters = inspect.signature(type(self).run).parameters.values()
        known = [p.name for p in parameters if p.default is not p.empty]
        for name, value in settings.items():
            if name not in known:
                raise ArgumentError(f"{type(self).__name__}: unknown setting {name!r}; it takes {', '.join(known)}")
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
        self.settings = {k: v for k, v in settings.items() if not isinstance(v, Tensor)}

    def forward(self, *operands: Any) -> Tensor:
        """Predictions first, then targets; a scalar unless `reduction="none"`."""
        return type(self).run(*operands, **self.settings, **{name: getattr(self, name) for name in self._buffers})

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits `[N, C, ...]` and integer labels `[N, ...]`. See `dl.cross_entropy`."""

    run = staticmethod(loss.cross_entropy)


class NLLLoss(Loss):
    """Negative log-likelihood of log-probabilities `[N, C, ...]` and integer labels. See `dl.nll_loss`."""

    run = staticmethod(loss.nll_loss)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities. See `dl.binary_cross_entropy`."""

    run = staticmethod(loss.binary_cross_entropy)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits. See `dl.binary_cross_entropy_with_logits`."""

    run = staticmethod(loss.binary_cross_entropy_with_logits)


class MSELoss(Loss):
    """Squared error. See `dl.mse_loss`."""

    run = staticmethod(loss.mse_loss)


class L1Loss(Loss):
    """Absolute error. See `dl.l1_loss`."""

    run = staticmethod(loss.l1_loss)


class HuberLoss(Loss):
    """Squared error up to `delta`, absolute beyond. See `dl.huber_loss`."""

    run = staticmethod(loss.huber_loss)


class SmoothL1Loss(Loss):
    """Huber loss over `beta`. See `dl.smooth_l1_loss`."""

    run = staticmethod(loss.smooth_l1_loss)


class GaussianNLLLoss(Loss):
    """Negative log-likelihood of targets under normal predictions with given variances. See `dl.gaussian_nll_loss`."""

    run = staticmethod(loss.gaussian_nll_loss)


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts under Poisson predictions. See `dl.poisson_nll_loss`."""

    run = staticmethod(loss.poisson_nll_loss)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence of the target from log-probabilities. See `dl.kl_div`."""

    run = staticmethod(loss.kl_div)


class HingeLoss(Loss):
    """max(0, margin - target * score). See `dl.hinge_loss`."""

    run = staticmethod(margin_loss.hinge_loss)


class HingeEmbeddingLoss(Loss):
    """Distance of similar pairs; max(0, margin - distance) of others. See `dl.hinge_embedding_loss`."""

    run = staticmethod(margin_loss.hinge_embedding_loss)


class MarginRankingLoss(Loss):
    """max(0, margin - target * (x1 - x2)). See `dl.margin_ranking_loss`."""

    run = staticmethod(margin_loss.margin_ranking_loss)


class TripletMarginLoss(Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin). See `dl.triplet_margin_loss`."""

    run = staticmethod(margin_loss.triplet_margin_loss)


class ContrastiveLoss(Loss):
    """Pulls similar pairs together, pushes others `margin` apart. See `dl.contrastive_loss`."""

    run = staticmethod(margin_loss.contrastive_loss)


class CosineEmbeddingLoss(Loss):
    """1 - cos of similar pairs; max(0, cos - margin) of others. See `dl.cosine_embedding_loss`."""

    run = staticmethod(margin_loss.cosine_embedding_loss)


class CTCLoss(Loss):
    """Connectionist temporal classification: all alignments of labels with frames. See `dl.ctc_loss`."""

    run = staticmethod(ctc.ctc_loss)
