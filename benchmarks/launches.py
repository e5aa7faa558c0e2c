"""What one training step asks of a GPU, launch by launch, counted on the `sim` backend at small sizes.

Beside kernels it counts what the array library does in its own: fills, and ops that have no kernel and run as
references ("array library" in the table; each is at least one launch).
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dlcore as dl
from dlcore import dispatch, nn, optim
from dlcore.backends.cuda import launch

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist.py"
STEPS, BATCH, CLASSES = 5, 6, 10
Launches = Counter[tuple[str, str]]  # by phase and kernel


def demo_cnn() -> tuple[nn.Module, tuple[int, ...]]:
    """The model of the example, and the shape of a batch."""
    spec = importlib.util.spec_from_file_location("fashion_mnist", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_model(8), (BATCH, 1, 8, 8)


class Classifier(nn.Module):
    """A two-layer LSTM whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 12, num_layers=2)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: dl.Tensor) -> dl.Tensor:
        """`x[T,N,5]` gives `[N,CLASSES]`."""
        y: dl.Tensor = self.head(self.lstm(x)[0][-1])
        return y


def lstm() -> tuple[nn.Module, tuple[int, ...]]:
    """The LSTM, and the shape of a batch."""
    return Classifier(), (STEPS, BATCH, 5)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "demo CNN": demo_cnn,
    f"2-layer LSTM, {STEPS} steps": lstm,
}


@contextlib.contextmanager
def noting(note: Callable[[str], None]) -> Iterator[None]:
    """Call `note(kernel)` for each launch on `sim` inside the `with` block."""
    backend: Any = dispatch.get_backend("sim")

    def full(*arguments: Any) -> Any:
        note("array library: fill")
        return type(backend).full(backend, *arguments)

    def referred(event: dispatch.Event) -> None:
        if event.plan.variant == "reference" and not event.op.view:
            note(f"array library: {event.op.name}")

    def launched(kernel: str, *_: Any) -> None:
        note(kernel)

    backend.full = full
    launch.listeners.append(launched)
    try:
        with dispatch.listening(referred):
            yield
    finally:
        launch.listeners.remove(launched)
        del backend.full


def launches(make: Callable[[], tuple[nn.Module, tuple[int, ...]]]) -> Launches:
    """Of the second training step of a model, when the optimizer has its state."""
    found, phase, rng = Launches(), "", np.random.default_rng(0)

    def note(kernel: str) -> None:
        found[phase, kernel] += 1

    with dl.device("sim"):
        model, shape = make()
        optimizer = optim.AdamW(model.parameters())
        x, labels = dl.tensor(rng.normal(size=shape), "float32"), dl.tensor(rng.integers(0, CLASSES, BATCH))
        for _ in range(2):
            found.clear()
            with noting(note):
                phase = "forward"
                y = model(x)
                phase = "loss"
                loss = nn.cross_entropy(y, labels)
                phase = "backward"
                loss.backward()
                phase = "optimizer"
                optimizer.step()
                optimizer.zero_grad()
    return found


def main(argv: list[str]) -> None:
    """Print a table for each model."""
    for name, make in MODELS.items():
        found = launches(make)
        print(f"{name}: {found.total()} launches")
        for (phase, kernel), count in found.items():
            print(f"  {phase:10}{count:4}  {kernel}")
