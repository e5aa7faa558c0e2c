"""Running metrics: fed batch by batch, computed on NumPy arrays at any time."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlcore.errors import ArgumentError, ShapeError


class Metric:
    """Base class: a weighted mean of what `measure` gives per sample. `name` is its column in logs."""

    name: str

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def reset(self) -> Self:
        """Forget everything seen."""
        self.total, self.count = 0.0, 0
        return self

    def update(self, outputs: ArrayLike, targets: ArrayLike, loss: float) -> None:
        """Take in one batch: outputs [B, ...], targets [B, ...] and the batch's mean loss."""
        values = self.measure(np.asarray(outputs), np.asarray(targets), loss)
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

    def measure(self, outputs: NDArray[Any], targets: NDArray[Any], loss: float) -> NDArray[Any]:
        """Values whose mean is the metric, one per sample or element."""
        raise NotImplementedError

    def compute(self) -> float:
        """The metric over everything seen since `reset`. Raises ArgumentError when that is nothing."""
        if self.count == 0:
            raise ArgumentError(f"{self.name}: no batch was seen (is the loader empty?)")
        return self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, for a checkpoint in the middle of an epoch."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.total, self.count = state["total"], state["count"]


class MeanLoss(Metric):
    """Mean loss per sample."""

    name = "loss"

    def measure(self, outputs: NDArray[Any], targets: NDArray[Any], loss: float) -> NDArray[Any]:
        """The batch's loss, once per sample."""
        return np.full(len(targets), loss)


class Accuracy(Metric):
    """Share of samples whose largest of outputs[..., C] is the label in targets[...]."""

    name = "accuracy"

    def measure(self, outputs: NDArray[Any], targets: NDArray[Any], loss: float) -> NDArray[Any]:
        """1 where the prediction is right."""
        return np.asarray(_predictions(self.name, outputs, targets) == targets)


class TopK(Metric):
    """Share of samples whose label is among the k largest of outputs[..., C]."""

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        if k < 1:
            raise ArgumentError(f"TopK: k must be at least 1, got {k}")
        self.k, self.name = k, f"top{k}"

    def measure(self, outputs: NDArray[Any], targets: NDArray[Any], loss: float) -> NDArray[Any]:
        """1 where the label is among the k best; of equal scores the smaller class number counts as better."""
        _predictions(self.name, outputs, targets)
        best = np.argsort(-outputs, axis=-1, kind="stable")[..., : self.k]
        return np.asarray((best == targets[..., None]).any(-1))


class MeanAbsoluteError(Metric):
    """Mean of |outputs - targets| over all elements."""

    name = "mae"

    def measure(self, outputs: NDArray[Any], targets: NDArray[Any], loss: float) -> NDArray[Any]:
        """Absolute error per element."""
        if outputs.shape != targets.shape:
            raise ShapeError(f"{self.name}: outputs {outputs.shape} and targets {targets.shape} differ")
        return np.asarray(np.abs(outputs - targets))


class ConfusionMatrix(Metric):
    """Counts `matrix[label, prediction]`; as a number, the mean recall of the classes seen (balanced accuracy)."""

    name = "balanced_accuracy"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.matrix = np.zeros((classes, classes), dtype=np.int64)

    def reset(self) -> Self:
        """Forget everything seen."""
        self.matrix[:] = 0
        return self

    def update(self, outputs: ArrayLike, targets: ArrayLike, loss: float) -> None:
        """Count one batch: outputs [..., C], targets [...]."""
        labels = np.asarray(targets)
        predictions = _predictions(self.name, np.asarray(outputs), labels)
        np.add.at(self.matrix, (labels, predictions), 1)

    def compute(self) -> float:
        """Mean recall. Raises ArgumentError when nothing was seen."""
        seen = self.matrix.sum(axis=1)
        if not seen.any():
            raise ArgumentError(f"{self.name}: no batch was seen (is the loader empty?)")
        return float((np.diag(self.matrix)[seen > 0] / seen[seen > 0]).mean())

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"matrix": self.matrix}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.matrix[:] = np.asarray(state["matrix"])


def _predictions(name: str, outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    if outputs.shape[:-1] != labels.shape:
        raise ShapeError(f"{name}: expected outputs [..., C] and labels [...]; got {outputs.shape} and {labels.shape}")
    return np.asarray(outputs.argmax(-1))
