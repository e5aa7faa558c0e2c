"""Loggers: records to a CSV file, a JSON-lines file or TensorBoard."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dlcore.errors import ArgumentError, DataError
from dlcore.io.atomic import write_atomic
from dlcore.train.callbacks import Callback, Record

if TYPE_CHECKING:
    from dlcore.train.trainer import Trainer


class CSVLogger(Callback):
    """One row per epoch in `path`; the whole file is rewritten each time, so a resumed run leaves no double rows."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Write the history so far."""
        text = StringIO()
        columns = list(dict.fromkeys(name for row in trainer.history for name in row))
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(trainer.history)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, [text.getvalue().encode()])


class JSONLLogger(Callback):
    """One JSON object per line: a step's record every `every` steps, an epoch's with `"kind": "epoch"`.

    A resumed run first drops the lines that it will write again.
    """

    def __init__(self, path: str | Path, *, every: int = 1) -> None:
        if every < 1:
            raise ArgumentError(f"JSONLLogger: every must be at least 1, got {every}")
        self.path, self.every = Path(path), every
        self._file: TextIO | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Open the file, keeping what was logged up to this step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_jsonl(self.path) if row["step"] <= trainer.step] if trainer.step else []
        write_atomic(self.path, [(json.dumps(row) + "\n").encode() for row in kept])
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by on_end)

    def on_step(self, trainer: Trainer, record: Record) -> None:
        """Write a step's line."""
        if trainer.step % self.every == 0:
            self._write({"kind": "step", **record})

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Write an epoch's line."""
        self._write({"kind": "epoch", **record})

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def on_end(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSON-lines log; none when the file is missing. Raises DataError for a line that is not JSON."""
    if not Path(path).exists():
        return []
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    return rows


class TensorBoardLogger(Callback):
    """Scalars for TensorBoard in `folder`, under `step/` and `epoch/`. Needs the package tensorboardX.

    Raises:
        DataError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise DataError("TensorBoardLogger needs tensorboardX: pip install 'dlcore[train]'") from None
        self._make_writer, self._writer = SummaryWriter, None
        self.folder = Path(folder)

    def on_start(self, trainer: Trainer) -> None:
        """Start an event file; TensorBoard drops what an earlier one has past this step."""
        self._writer = self._make_writer(str(self.folder), purge_step=trainer.step + 1)

    def on_step(self, trainer: Trainer, record: Record) -> None:
        """Write a step's scalars."""
        self._write("step", trainer.step, record)

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Write an epoch's scalars."""
        self._write("epoch", trainer.step, record)

    def _write(self, kind: str, step: int, record: Record) -> None:
        assert self._writer is not None
        for name, value in record.items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def on_end(self, trainer: Trainer) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
