"""Peak memory of a training step: each library in a process of its own.

What a process holds after its imports does not count, nor do pages of files (the libraries' code, read when first
needed): the rest at its peak is parameters, data, gradients, optimizer state, activations and what allocators keep.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.row import Row

RUNS = 5


def megabytes(library: str, step: str) -> float:
    """By which a process grows that builds a model in `library` and trains it for a few steps."""
    command = [sys.executable, "-m", "benchmarks.memory", library, step]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def works() -> bool:
    """Whether this system counts a process's peak as Linux does."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def add(row: Row) -> None:
    """Fill a step's columns of memory."""
    row.memory_mb, row.peer_memory_mb = megabytes("dlcore", row.name), megabytes("torch", row.name)
    row.memory_ratio = row.memory_mb / row.peer_memory_mb


def growth(f: Callable[[], None]) -> float:
    """MB of anonymous memory that this process needs at its peak during `f`, beyond what it has."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    before = _kilobytes("RssAnon")
    f()
    return (_kilobytes("VmHWM") - _kilobytes("RssFile") - before) * 1024e-6


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _train(library: str, name: str) -> None:
    spec = STEPS[name]
    make, layers = (steps.theirs, torch.nn) if library == "torch" else (steps.ours, nn)
    step = make(spec, models.layers(layers, spec.model))
    for _ in range(RUNS):
        step()


if __name__ == "__main__":
    import dlcore as dl
    from benchmarks import models, steps
    from benchmarks.steps import STEPS
    from dlcore import _C, nn

    dl.set_device("cpu")
    library, name = sys.argv[1:]
    if library == "torch":
        import torch
        import torch._dynamo  # 70 MB of Python, which the first step of an optimizer would import

        torch.set_num_threads(_C.num_threads())
    print(growth(lambda: _train(library, name)))
