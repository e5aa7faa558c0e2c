"""What a launch and an eager op cost the host, and how long a launch takes until its result is there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlcore as dl
from benchmarks import harness, overhead
from benchmarks.gpu.driver import EMULATED, Driver
from dlcore.backends.cuda.launch import launch
from dlcore.dispatch import default_backend


def launches(rounds: int) -> dict[str, float]:
    """Microseconds of one launch on four numbers: handed over, and waited for; and of CuPy's own addition."""
    backend: Any = default_backend()
    x, y = dl.ones(4)._array, dl.ones(4)._array

    def hand_over() -> None:
        launch("copy.copy_transpose_b4", (1, 1, 1), (128,), x, y, 2, 2, 0, 0, like=x)

    def wait_for() -> None:
        hand_over()
        backend.synchronize()

    def burst(f: Callable[[], Any], count: int) -> float:  # no more than the device's queue takes
        backend.synchronize()
        return harness.wall_clock(f, min(count, 200))

    functions: dict[str, Callable[[], Any]] = {"launch": hand_over, "launch, waited for": wait_for}
    functions["addition by CuPy" if backend.name == "cuda" else "addition by NumPy"] = lambda: x + y
    found = harness.measure(list(functions.values()), rounds, burst)
    return {name: 1e3 * t.median for name, t in zip(functions, found, strict=True)}


def main() -> None:
    """Print microseconds and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    given = parser.parse_args()
    rounds = Driver(default_backend()).rounds
    found = launches(rounds) | overhead.eager(rounds)
    note = f" ({EMULATED})" if default_backend().name == "sim" else ""
    for name, microseconds in found.items():
        print(f"{name:34}{microseconds:9.2f} us{note}")
    given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
