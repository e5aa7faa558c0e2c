"""Checkpoints: a training's whole state in one safetensors file, the last few and the best kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore.errors import ArgumentError, DataError
from dlcore.io import load, load_metadata, save
from dlcore.tensor import Tensor
from dlcore.train.callbacks import Callback, Mode, Record, check_mode, monitored

if TYPE_CHECKING:
    from dlcore.train.trainer import Trainer

TENSOR = "$tensor"


def pack(tree: Any, path: str = "") -> tuple[Any, dict[str, Any]]:
    """Split nested dicts and lists into JSON, where `{"$tensor": path}` stands for a tensor, and tensors by path."""
    if isinstance(tree, Tensor | np.ndarray):
        return {TENSOR: path}, {path: tree}
    if not isinstance(tree, dict | list | tuple):
        return tree, {}
    tensors: dict[str, Any] = {}

    def enter(key: Any, value: Any) -> Any:
        plain, found = pack(value, f"{path}.{key}" if path else str(key))
        tensors.update(found)
        return plain

    if isinstance(tree, dict):
        return {key: enter(key, value) for key, value in tree.items()}, tensors
    return [enter(i, value) for i, value in enumerate(tree)], tensors


def unpack(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `pack`; arrays come back as tensors, tuples as lists."""
    if isinstance(plain, list):
        return [unpack(value, tensors) for value in plain]
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {TENSOR}:
        return tensors[plain[TENSOR]]
    return {key: unpack(value, tensors) for key, value in plain.items()}


class Checkpoints(Callback):
    """Saves a Trainer's state at the end of each epoch into `folder` as `step-<number>.safetensors`.

    Args:
        folder: made when missing.
        keep_last: how many of the latest files to keep.
        keep_best: how many to keep besides, by the monitored value at the end of their epoch.
        monitor: a record's column; None means `val_loss` where there is one, else `loss`.
        mode: "min" where smaller is better, "max" where larger is.
        every: save also every `every` steps.

    Example:
        >>> trainer = Trainer(model, optimizer, loss, checkpoints=Checkpoints("runs/a", monitor="val_loss"))
        >>> trainer.fit(loader, epochs=10, val_loader=val, resume=True)  # goes on where the last run stopped
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 3,
        keep_best: int = 1,
        monitor: str | None = None,
        mode: Mode = "min",
        every: int | None = None,
    ) -> None:
        check_mode("Checkpoints", mode)
        if keep_last < 1 or keep_best < 0 or (every is not None and every < 1):
            given = f"{keep_last}, {keep_best}, {every}"
            raise ArgumentError(f"Checkpoints: expected keep_last >= 1, keep_best >= 0, every >= 1; got {given}")
        self.folder, self.keep_last, self.keep_best = Path(folder), keep_last, keep_best
        self.monitor, self.mode, self.every = monitor, mode, every

    def paths(self) -> list[Path]:
        """The files there are, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def latest(self) -> Path | None:
        """The newest file."""
        return next(reversed(self.paths()), None)

    def best(self) -> Path | None:
        """The file of the best epoch."""
        return next(iter(self._ranked()), None)

    def _ranked(self) -> list[Path]:
        """Files saved at the end of an epoch, best first."""
        scores = {path: load_metadata(path).get("score") for path in self.paths()}
        ranked = {path: float(score) for path, score in scores.items() if score is not None}
        return sorted(ranked, key=lambda path: ranked[path], reverse=self.mode == "max")

    def on_start(self, trainer: Trainer) -> None:
        """Refuse to mix two trainings in one folder."""
        if trainer.step == 0 and self.paths():
            raise ArgumentError(
                f"{self.folder} holds checkpoints of another training; use fit(resume=True) to go on with it, "
                "or another folder"
            )

    def on_step(self, trainer: Trainer, record: Record) -> None:
        """Save every `every` steps."""
        if self.every and trainer.step % self.every == 0:
            self.save(trainer)

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Save, with the monitored value."""
        self.save(trainer, monitored(record, self.monitor))

    def save(self, trainer: Trainer, score: float | None = None) -> Path:
        """Save the trainer's state, then delete what need not be kept. Raises DataError when it cannot be written."""
        plain, tensors = pack(trainer.state_dict())
        metadata = {"state": json.dumps(plain)} | ({} if score is None else {"score": repr(score)})
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{trainer.step:08d}.safetensors"
        save(path, tensors, metadata)
        keep = {*self.paths()[-self.keep_last :], *self._ranked()[: self.keep_best]}
        for old in set(self.paths()) - keep:
            old.unlink()
        return path


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `Trainer.state_dict` gave. Raises DataError when the file is damaged or no checkpoint."""
    metadata = load_metadata(path)
    try:
        state: dict[str, Any] = unpack(json.loads(metadata["state"]), load(path))
    except (KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a checkpoint of a Trainer: {error!r}") from error
    return state
