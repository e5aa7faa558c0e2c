"""Progress on the terminal: a tqdm bar per epoch, or a plain line per epoch where tqdm is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlcore.train.callbacks import Callback, Record

if TYPE_CHECKING:
    from dlcore.train.trainer import Trainer


class Progress(Callback):
    """Shows the running loss during an epoch, and every metric at its end."""

    def __init__(self) -> None:
        try:
            from tqdm import tqdm as bar
        except ImportError:
            bar = None
        self._new_bar: Any = bar
        self._bar: Any = None

    def on_step(self, trainer: Trainer, record: Record) -> None:
        """Move the bar on."""
        if self._new_bar is None:
            return
        if self._bar is None:
            self._bar = self._new_bar(
                total=len(trainer.loader),
                initial=max(trainer.batch - trainer.accumulate, 0),
                desc=f"epoch {trainer.epoch + 1}/{trainer.epochs}",
                unit="batch",
            )
        self._bar.update(trainer.batch - self._bar.n)
        self._bar.set_postfix(loss=f"{record['loss']:.4f}", refresh=False)

    def on_epoch(self, trainer: Trainer, record: Record) -> None:
        """Show the epoch's metrics and close its bar."""
        numbers = {name: f"{value:.4g}" for name, value in record.items() if name not in ("epoch", "step", "seconds")}
        if self._bar is not None:
            self._bar.set_postfix(numbers)
            self._close()
        else:
            line = ", ".join(f"{name} {text}" for name, text in numbers.items())
            print(f"epoch {trainer.epoch}/{trainer.epochs}: {line} ({record['seconds']:.0f} s)", flush=True)

    def on_end(self, trainer: Trainer) -> None:
        """Close a bar left open by an error or an interrupt."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
