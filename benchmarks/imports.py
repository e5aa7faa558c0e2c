"""What a user pays before the first op: time of the import, size of the installed package."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dlcore as dl


def _import_seconds(module: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # both sides compiled
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment)
    return time.perf_counter() - start


def imports(rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of a process that imports nothing, NumPy, dlcore; taken in turn."""
    names = {"nothing": "sys", "numpy": "numpy", "dlcore": "dlcore"}
    samples: dict[str, list[float]] = {name: [] for name in names}
    _import_seconds("dlcore")
    for _ in range(rounds):
        for name, module in names.items():
            samples[name].append(1e3 * _import_seconds(module))
    return {name: statistics.median(found) for name, found in samples.items()}


def installed_megabytes() -> float:
    """Size of the installed package, NumPy not counted."""
    root = Path(dl.__file__).parent
    files = [p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return sum(p.stat().st_size for p in files) / 1e6


def main(_: Sequence[str]) -> None:
    """Print both."""
    times = imports()
    for name, milliseconds in times.items():
        print(f"process that imports {name:13}{milliseconds:9.1f} ms")
    own = {name: times[name] - times["nothing"] for name in ("numpy", "dlcore")}
    print(f"import dlcore / import numpy      {own['dlcore'] / own['numpy']:9.2f}")
    print(f"installed size                    {installed_megabytes():9.2f} MB")
