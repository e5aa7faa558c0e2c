"""Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber, ICML 2006)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.creation import asarray
from dlcore.errors import ArgumentError, ShapeError
from dlcore.ops.elementwise import logaddexp
from dlcore.ops.gather import take_along_axis
from dlcore.ops.index import check_labels
from dlcore.ops.join import pad
from dlcore.ops.loss import reduced
from dlcore.ops.shape import astype, broadcast_to, where
from dlcore.tensor import Tensor

Host = np.ndarray[Any, Any]
NEVER = -1e30  # log of the probability of what cannot happen; finite, so that gradients are


def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability of all alignments of label sequences with frames, with blanks between labels.

    log_probs: [T, N, C], logarithms of probabilities. targets: integers [N, S], without `blank`; what lies beyond a
    length does not count. input_lengths, target_lengths: integers [N].
    reduction: `none` gives [N]; `mean` divides each loss by its target's length first. A target too long for its input
    has loss inf and no gradient; zero_infinity makes that loss 0. Sums are float32 for 16-bit floats.
    Raises ShapeError, ArgumentError for lengths out of range, IndexRangeError for labels out of range.
    """
    labels, frames, counts = (np.asarray(v) for v in (targets, input_lengths, target_lengths))
    _check(log_probs, labels, frames, counts, blank)
    path = _with_blanks(labels, counts, blank)
    alpha = _forward(_emissions(log_probs, path), _may_skip(path, blank), frames)
    likelihood = _ends(alpha, counts)
    impossible = likelihood < NEVER / 2
    loss: Tensor = where(impossible, 0.0 if zero_infinity else math.inf, -likelihood)
    if reduction == "mean":
        loss = loss / asarray(np.maximum(counts, 1).astype(loss.dtype), device=loss.device)
    return reduced("ctc_loss", loss, reduction)


def _check(log_probs: Tensor, labels: Host, frames: Host, counts: Host, blank: int) -> None:
    sizes = log_probs.shape
    fits = len(sizes) == 3 and labels.ndim == 2 and labels.shape[0] == sizes[1]
    if not fits or frames.shape != sizes[1:2] or counts.shape != sizes[1:2]:
        raise ShapeError(
            "ctc_loss: expected log_probs[T,N,C] targets[N,S] input_lengths[N] target_lengths[N]; got "
            f"{list(sizes)} {list(labels.shape)} {list(frames.shape)} {list(counts.shape)}"
        )
    for name, lengths, least, most in [("input", frames, 1, sizes[0]), ("target", counts, 0, labels.shape[1])]:
        if lengths.size and not (least <= lengths.min() and lengths.max() <= most):
            raise ArgumentError(f"ctc_loss: {name}_lengths must lie in [{least}, {most}]; got {lengths.tolist()}")
    check_labels("ctc_loss", np.asarray(blank), sizes[2])
    used = labels[np.arange(labels.shape[1]) < counts[:, None]]
    check_labels("ctc_loss", used, sizes[2])
    if (used == blank).any():
        raise ArgumentError(f"ctc_loss: a target holds the blank label {blank}")


def _with_blanks(labels: Host, counts: Host, blank: int) -> Host:
    """[N, L], L = 2 S + 1: a blank before, between and after the labels."""
    path = np.full((labels.shape[0], 2 * labels.shape[1] + 1), blank)
    path[:, 1::2] = np.where(np.arange(labels.shape[1]) < counts[:, None], labels, blank)
    return path


def _may_skip(path: Host, blank: int) -> Host:
    """[N, L]: whether a place can be reached from two places before, over a blank between different labels."""
    allowed = np.zeros(path.shape, np.bool_)
    allowed[:, 2:] = (path[:, 2:] != blank) & (path[:, 2:] != path[:, :-2])
    return allowed


def _emissions(log_probs: Tensor, path: Host) -> Tensor:
    """[T, N, L]: log-probability of each frame at each place."""
    wide = astype(log_probs, dtype=dtypes.float32) if dtypes.is_half(log_probs.dtype) else log_probs
    at = broadcast_to(asarray(path, device=log_probs.device), shape=(log_probs.shape[0], *path.shape))
    return take_along_axis(wide, at, axis=2)


def _forward(emissions: Tensor, may_skip: Host, frames: Host) -> Tensor:
    """[N, L]: log-probability of the alignments of a sequence's frames that end at each place."""
    steps, _, places = emissions.shape
    alpha = where(np.arange(places) < 2, emissions[0], NEVER)
    for t in range(1, steps):
        one = pad(alpha[:, :-1], ((0, 0), (1, 0)), value=NEVER)
        two = where(may_skip, pad(alpha[:, :-2], ((0, 0), (2, 0)), value=NEVER)[:, :places], NEVER)
        reached = logaddexp(logaddexp(alpha, one), two) + emissions[t]
        alpha = where((t < frames)[:, None], reached, alpha)
    found: Tensor = alpha
    return found


def _ends(alpha: Tensor, counts: Host) -> Tensor:
    """[N]: the alignments that end in the last blank or the last label."""
    last = take_along_axis(alpha, 2 * counts[:, None], axis=1)
    label = take_along_axis(alpha, np.maximum(2 * counts - 1, 0)[:, None], axis=1)
    either: Tensor = logaddexp(last, where((counts > 0)[:, None], label, NEVER))
    return either.reshape(-1)
