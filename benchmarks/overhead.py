"""Costs that do not depend on the data: one eager op, one launch of a CUDA kernel, import time, installed size."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dlcore as dl
from benchmarks import harness


def eager(rounds: int = harness.ROUNDS) -> dict[str, float]:
    """Microseconds of ops on four numbers."""
    x, plain = dl.ones(4).detach(requires_grad=True), dl.ones(4)
    functions = {
        "add, no tape": lambda: plain + plain,
        "add, tape": lambda: x + x,
        "multiply by a scalar, tape": lambda: x * 2.0,
        "(x*x+x).sum().backward()": lambda: (x * x + x).sum().backward(),
    }
    found = harness.measure(list(functions.values()), rounds)
    return {name: 1e3 * t.median for name, t in zip(functions, found, strict=True)}


class _DevicePointer:
    __slots__ = ("ptr",)

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class _DeviceArray:
    """What the launcher asks of a CuPy array."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = _DevicePointer(4096)


def launching() -> float:
    """Microseconds of a launch with three arrays and three ints through the C++ launcher, over a driver that does
    nothing."""
    from dlcore import _C

    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "libstub.so")
        source = Path(__file__).with_name("stub_driver.cpp")
        subprocess.run(["c++", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        driver = _C.Driver(str(library))
    launch, x = driver.function(driver.load(b""), "kernel").launch, _DeviceArray()
    (found,) = harness.measure([lambda: launch((1,), (256,), 0, 0, False, None, x, x, x, 1, 2, 3)])
    return 1e3 * found.median


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


def main(argv: list[str]) -> None:
    """Print all four."""
    for name, microseconds in (eager() | {"CUDA launch, stub driver": launching()}).items():
        print(f"{name:34}{microseconds:9.2f} us")
    times = imports()
    for name, milliseconds in times.items():
        print(f"process that imports {name:13}{milliseconds:9.1f} ms")
    own = {name: times[name] - times["nothing"] for name in ("numpy", "dlcore")}
    print(f"import dlcore / import numpy      {own['dlcore'] / own['numpy']:9.2f}")
    print(f"installed size                    {installed_megabytes():9.2f} MB")
