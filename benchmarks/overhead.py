"""Costs that do not depend on the data: one eager op, one launch of a CUDA kernel."""

from __future__ import annotations

import subprocess
import tempfile
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


def main(argv: list[str]) -> None:
    """Print both."""
    for name, microseconds in (eager() | {"CUDA launch, stub driver": launching()}).items():
        print(f"{name:34}{microseconds:9.2f} us")
