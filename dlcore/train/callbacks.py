"""What can listen to a Trainer, and early stopping."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from dlcore.errors import ArgumentError

if TYPE_CHECKING:
    from dlcore.train.trainer import Trainer

Record = dict[str, float]
Mode = Literal["min", "max"]


class Callback:
    """Base class with the four points at which a Trainer calls its listeners.

    A record maps column names to numbers. A step's has `step, epoch, loss, lr`; an epoch's has besides every metric,
    those of the validation set with the prefix `val_`, and `seconds`.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of `fit`, after a resumed state is in place."""

    def on_step(self, trainer: Trainer, record: Record) -> None:
        """After each optimizer step."""

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """After each epoch and its validation."""

    def on_end(self, trainer: Trainer) -> None:
        """When `fit` ends, also by an error."""


def monitored(record: Record, monitor: str | None) -> float:
    """The value a choice rests on: `monitor`, or with None `val_loss` where there is one, else `loss`."""
    name = monitor or ("val_loss" if "val_loss" in record else "loss")
    if name not in record:
        raise ArgumentError(f"monitor={name!r} is not in the record; there are {', '.join(record)}")
    return record[name]


def better(mode: Mode, value: float, than: float) -> bool:
    """Whether `value` is better: smaller for "min", larger for "max"."""
    return value < than if mode == "min" else value > than


def check_mode(owner: str, mode: str) -> None:
    """Raise ArgumentError unless mode is "min" or "max"."""
    if mode not in ("min", "max"):
        raise ArgumentError(f"{owner}: mode must be 'min' or 'max', got {mode!r}")


class EarlyStopping(Callback):
    """Stop when the monitored value has not become better by `min_delta` for `patience` epochs.

    Args:
        monitor: a record's column; None means `val_loss` where there is one, else `loss`.
        mode: "min" where smaller is better, "max" where larger is.

    Example:
        >>> Trainer(..., early_stopping=EarlyStopping("val_accuracy", patience=3, mode="max"))
    """

    def __init__(
        self, monitor: str | None = None, *, patience: int = 3, min_delta: float = 0.0, mode: Mode = "min"
    ) -> None:
        check_mode("EarlyStopping", mode)
        if patience < 1 or not min_delta >= 0:
            raise ArgumentError(f"EarlyStopping: expected patience >= 1, min_delta >= 0; got {patience}, {min_delta}")
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, min_delta, mode
        self.best, self.waited = math.inf if mode == "min" else -math.inf, 0

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Compare this epoch with the best."""
        value = monitored(record, self.monitor)
        margin = self.min_delta if self.mode == "min" else -self.min_delta
        if better(self.mode, value + margin, self.best):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(f"no better {self.monitor or 'loss'} than {self.best:.6g} for {self.patience} epochs")

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long ago it was."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.waited = state["best"], state["waited"]
