"""The training loop."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

from dlcore import graph, random
from dlcore.autograd import no_grad
from dlcore.errors import ArgumentError, TrainingError
from dlcore.nn import Module
from dlcore.optim import EMA, Optimizer, ReduceLROnPlateau, Schedule, clip_grad_norm
from dlcore.tensor import Tensor
from dlcore.train.callbacks import Callback, EarlyStopping, Record, monitored
from dlcore.train.checkpoints import Checkpoints, load_checkpoint
from dlcore.train.metrics import MeanLoss, Metric
from dlcore.train.progress import Progress

Loss = Callable[[Any, Any], Tensor]


class Trainer:
    """Trains a model on batches `(inputs..., targets)` with `loss_fn(model(inputs...), targets)`.

    Args:
        model, optimizer: `optimizer` holds the model's parameters.
        loss_fn: gives a scalar, the mean over the batch.
        schedule: changes the learning rate once per optimizer step; ReduceLROnPlateau once per epoch, by
            `val_loss` where there is a validation set, else by `loss`.
        metrics: `dlcore.train.metrics`; the mean loss is always there.
        loggers: CSVLogger, JSONLLogger, TensorBoardLogger, or any Callback.
        checkpoints: where and how often the whole state is saved.
        clip_norm: largest global gradient norm.
        accumulate: batches per optimizer step; their gradients are averaged.
        ema: an exponential moving average of the parameters, used by validation.
        early_stopping: when to stop before `epochs`.
        progress: show a bar on the terminal.
        capture: record forward and backward once for each shape of a batch and repeat that (`dl.capture`).

    Example:
        >>> trainer = Trainer(model, optim.AdamW(model.parameters()), nn.cross_entropy, metrics=[Accuracy()])
        >>> history = trainer.fit(loader, epochs=5, val_loader=val)
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        schedule: Schedule | None = None,
        metrics: Sequence[Metric] = (),
        loggers: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: EMA | None = None,
        early_stopping: EarlyStopping | None = None,
        progress: bool = True,
        capture: bool = False,
    ) -> None:
        if accumulate < 1:
            raise ArgumentError(f"Trainer: accumulate must be at least 1, got {accumulate}")
        self.model, self.optimizer, self.loss_fn, self.schedule = model, optimizer, loss_fn, schedule
        self.metrics = [MeanLoss(), *metrics]
        self.checkpoints, self.early_stopping, self.ema = checkpoints, early_stopping, ema
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self._backward = graph.capture(self._forward_and_backward) if capture else self._forward_and_backward
        listeners = [Progress() if progress else None, *loggers, early_stopping, checkpoints]
        self.callbacks: list[Callback] = [listener for listener in listeners if listener is not None]
        self.epoch = self.step = self.batch = 0  # what is done: epochs, optimizer steps, batches of this epoch
        self.loader: Any = None
        self.epochs = 0
        self.history: list[Record] = []  # one record per epoch
        self.stop_reason: str | None = None
        self._interrupted = False

    def fit(
        self,
        loader: Any,
        *,
        epochs: int,
        steps: int | None = None,
        val_loader: Iterable[Any] | None = None,
        resume: bool = False,
    ) -> list[Record]:
        """Train until `epochs` epochs or `steps` optimizer steps are done in all; give one record per epoch.

        With `resume`, continue from the latest checkpoint, if there is one, exactly as if it had not stopped. Ctrl-C
        finishes the step, saves a checkpoint and raises KeyboardInterrupt.

        Raises:
            TrainingError: the loss is not finite.
            ArgumentError: no batches, or checkpoints with a loader that cannot tell its position.
        """
        self.loader, self.epochs, self.stop_reason = loader, epochs, None
        if self.checkpoints and not hasattr(loader, "load_state_dict"):
            raise ArgumentError("Trainer: checkpoints need a loader with state_dict and load_state_dict")
        self._take_up_position(resume)
        limit = math.inf if steps is None else steps
        try:
            self._notify("on_start")
            with self._finish_step_on_interrupt():
                while self.epoch < epochs and self.step < limit and self.stop_reason is None:
                    if self._train_epoch(limit):
                        self._finish_epoch(val_loader)
            if self.checkpoints and self.batch:
                self.checkpoints.save(self)
        finally:
            self._notify("on_end")
        return self.history

    def evaluate(self, loader: Iterable[Any]) -> Record:
        """Mean loss and metrics over `loader`, in evaluation mode, with the averaged weights where there is an `ema`.

        Raises:
            ArgumentError: the loader gives no batches.
        """
        metrics = [copy.deepcopy(metric).reset() for metric in self.metrics]
        was_training = self.model.training
        self.model.eval()
        try:
            with no_grad(), self.ema.swap() if self.ema else nullcontext():
                for batch in loader:
                    outputs, targets, loss = self._forward(batch)
                    _update(metrics, outputs, targets, loss.item())
        finally:
            self.model.train(was_training)
        return {metric.name: metric.compute() for metric in metrics}

    def stop(self, reason: str) -> None:
        """Make `fit` end after this epoch; for callbacks."""
        self.stop_reason = reason

    def _train_epoch(self, limit: float) -> bool:
        """Train to the end of the epoch (True) or to the step limit (False)."""
        self._started = time.perf_counter()
        self.model.train()
        for group in _groups(self.loader, self.accumulate):
            loss = self._train_step(group)
            self.batch += len(group)
            self._notify("on_step", {"step": self.step, "epoch": self.epoch, "loss": loss, "lr": self.optimizer.lr})
            self._stop_if_interrupted()
            if self.step >= limit:
                return False
        return True

    def _train_step(self, group: Sequence[Any]) -> float:
        """One optimizer step on the mean gradient of the batches in `group`; give their mean loss."""
        total = 0.0
        for batch in group:
            outputs, targets, loss = self._backward(batch, len(group))
            value = self._finite(loss.item())
            total += value
            _update(self.metrics, outputs, targets, value)
        if self.clip_norm is not None:
            clip_grad_norm(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        if self.ema:
            self.ema.update()
        self.step += 1
        return total / len(group)

    def _forward_and_backward(self, batch: Sequence[Any], parts: int) -> tuple[Any, Any, Tensor]:
        """Outputs, targets and loss; gradients of a part of the loss are added to the parameters'."""
        outputs, targets, loss = self._forward(batch)
        (loss / parts).backward()
        return outputs, targets, loss

    def _forward(self, batch: Sequence[Any]) -> tuple[Any, Any, Tensor]:
        *inputs, targets = batch
        outputs = self.model(*inputs)
        return outputs, targets, self.loss_fn(outputs, targets)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            self.optimizer.zero_grad()
            raise TrainingError(
                f"the loss is {loss} in step {self.step + 1} (epoch {self.epoch + 1}); that step was not taken. Try a "
                "smaller learning rate or clip_norm, check the inputs, or find the op with DLCORE_DEBUG=1"
            )
        return loss

    def _finish_epoch(self, val_loader: Iterable[Any] | None) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        record = {"epoch": self.epoch, "step": self.step, "lr": self.optimizer.lr}
        record |= {metric.name: metric.compute() for metric in self.metrics}
        for metric in self.metrics:
            metric.reset()
        if val_loader is not None:
            record |= {f"val_{name}": value for name, value in self.evaluate(val_loader).items()}
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(monitored(record, None))
        record["seconds"] = time.perf_counter() - self._started
        self.history.append(record)
        self._notify("on_epoch", record)
        self._stop_if_interrupted()

    def _notify(self, point: str, *arguments: Record) -> None:
        for callback in self.callbacks:
            getattr(callback, point)(self, *arguments)

    @contextmanager
    def _finish_step_on_interrupt(self) -> Iterator[None]:
        """Only note the first Ctrl-C, so that no step is left half done; the second one interrupts at once."""
        self._interrupted = False
        if threading.current_thread() is not threading.main_thread():  # signals only reach the main thread
            yield
            return

        def note(signum: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            saved = f"; saved {self.checkpoints.save(self)}, go on with fit(resume=True)" if self.checkpoints else ""
            raise KeyboardInterrupt(f"interrupted after step {self.step}{saved}")

    # ---- state

    def _parts(self) -> dict[str, Any]:
        """Everything that has a state of its own, by its name in a checkpoint."""
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "ema": self.ema,
            "early_stopping": self.early_stopping,
        }
        parts |= {f"metric.{metric.name}": metric for metric in self.metrics}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: dicts and lists of tensors, numbers and strings."""
        counters = {"epoch": self.epoch, "step": self.step, "batch": self.batch, "history": self.history}
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        position = self.loader.state_dict() if hasattr(self.loader, "state_dict") else None
        return {**counters, "random": random.state(), "loader": position, "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state, into parts of the same kinds.

        Raises:
            ArgumentError: the state has other parts (a schedule, an EMA, ...) than this trainer.
        """
        parts = self._parts()
        if set(parts) != set(state["parts"]):
            differing = ", ".join(sorted(set(parts) ^ set(state["parts"])))
            raise ArgumentError(f"Trainer: the saved state and this trainer do not both have: {differing}")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        if self.loader is not None:
            self.loader.load_state_dict(state["loader"])
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.history = list(state["history"])
        random.set_state(state["random"])

    def _take_up_position(self, resume: bool) -> None:
        if resume and self.checkpoints is None:
            raise ArgumentError("Trainer: fit(resume=True) needs checkpoints=Checkpoints(folder)")
        latest = self.checkpoints.latest() if resume and self.checkpoints else None
        if latest is not None:
            self.load_state_dict(load_checkpoint(latest))
        elif self.batch and hasattr(self.loader, "load_state_dict"):  # the last `fit` stopped inside this epoch
            self.loader.load_state_dict(self.loader.state_dict())


def _update(metrics: Iterable[Metric], outputs: Any, targets: Any, loss: float) -> None:
    for metric in metrics:
        metric.update(outputs, targets, loss)


def _groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group
