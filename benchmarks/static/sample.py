"""A call run twice on the `sim` backend: small, in the emulator's checked mode, for its counters; and at full size
with its launches noted and not run, for the grids that a device would get."""

from __future__ import annotations

import contextlib
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import dlcore as dl
from dlcore import dispatch, dtypes
from dlcore.backends.cuda import compiler
from dlcore.sim import build, engine

NARROW = 16  # bytes of the widest access


class Launch(NamedTuple):
    """One launch of a call."""

    module: str
    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int  # dynamic, in bytes

    @property
    def blocks(self) -> int:
        """Of the grid."""
        return int(np.prod(self.grid))

    @property
    def threads(self) -> int:
        """Of a block."""
        return int(np.prod(self.block))


@dataclass
class Counts:
    """What the emulator counted of one kernel, and of all launches of the call together."""

    requests: int = 0  # to global memory
    sectors: int = 0
    sectors_ideal: int = 0
    bytes: int = 0
    wide_bytes: int = 0  # moved 16 at a time
    wavefronts: int = 0
    wavefronts_ideal: int = 0
    dram: int = 0  # bytes
    dram_of_call: int = 0  # of all launches
    compulsory: int = 0  # bytes of operands and results of the call
    worst: dict[str, str] = field(default_factory=dict)  # metric: the source line that spoils it


class Arrays:
    """Makes a call's inputs, and adds up their bytes. Each begins at a multiple of 256 bytes, as on a device."""

    def __init__(self, random: bool) -> None:
        self._rng = np.random.default_rng(0) if random else None
        self.bytes = 0

    def __call__(self, *shape: int, dtype: Any = dtypes.float32, below: int = 0) -> dl.Tensor:
        """A tensor on `sim`: numbers from 0.5 to 1.5, or whole ones below a limit."""
        array = engine.empty(shape, dtype)
        self.bytes += array.nbytes
        if self._rng is not None:
            array[...] = self._rng.integers(below, size=shape) if below else self._rng.uniform(0.5, 1.5, shape)
        elif below:
            array[...] = 0
        return dl.asarray(array, device="sim")


Call = Callable[[Arrays], Any]


def counted(call: Call, kernel: str, multiprocessors: int = 1) -> tuple[Launch, Counts]:
    """Counters of a kernel in a call, which the emulator runs in checked mode on a device of some size."""
    engine.take_counters()
    engine.take_traffic()
    arrays = Arrays(random=True)
    with _driver(multiprocessors, _checked_function) as launches:
        result = call(arrays)
    counts = _summed(kernel, engine.take_counters())
    traffic = engine.take_traffic()
    counts.dram = sum(t.read + t.written for t in traffic if t.kernel == kernel)
    counts.dram_of_call = sum(t.read + t.written for t in traffic)
    counts.compulsory = arrays.bytes + _bytes(result)
    return _of(launches, kernel), counts


def noted(call: Call, kernel: str, multiprocessors: int) -> tuple[Launch, int]:
    """The launch of a kernel by a call on a device, and the bytes of the call's operands and results; nothing runs."""
    arrays = Arrays(random=False)
    with _driver(multiprocessors, lambda module, name: None) as launches:
        result = call(arrays)
    return _of(launches, kernel), arrays.bytes + _bytes(result)


def _of(launches: list[Launch], kernel: str) -> Launch:
    found = [launch for launch in launches if launch.kernel == kernel]
    if not found:
        raise LookupError(f"{kernel} was not launched, but {', '.join(launch.kernel for launch in launches)}")
    return found[0]


def _bytes(result: Any) -> int:
    if isinstance(result, (tuple, list)):
        return sum(map(_bytes, result))
    return int(getattr(result, "_array", result).nbytes)


@contextlib.contextmanager
def _driver(multiprocessors: int, function_of: Callable[[str, str], Any]) -> Iterator[list[Launch]]:
    """The driver of `sim` with another size, aligned arrays, and launches noted."""
    driver = dispatch.get_backend("sim").driver  # type: ignore[attr-defined]
    launches: list[Launch] = []

    class Noting:
        def __init__(self, module: str, kernel: str) -> None:
            self.names, self.function = (module, kernel), function_of(module, kernel)

        def launch(self, grid: Any, block: Any, shared: int, *rest: Any) -> None:
            launches.append(Launch(*self.names, tuple(grid), tuple(block), shared))
            if self.function is not None:
                self.function.launch(grid, block, shared, *rest)

    def function(module: str, kernel: str, shared: int = 0) -> Noting:
        found = Noting(module, kernel)
        if found.function is not None and shared > 48 * 1024:
            found.function.set_attribute(8, shared)
        return found

    replaced = {"multiprocessors": multiprocessors, "function": function, "empty": engine.empty}
    before = {name: vars(driver).get(name) for name in replaced}
    vars(driver).update(replaced)
    backend = dispatch.get_backend("sim")
    plans, backend.plans = backend.plans, {}  # variants are chosen for the device
    engine.library().dlsim_multiprocessors(multiprocessors)
    try:
        yield launches
    finally:
        backend.plans = plans
        for name, value in before.items():
            vars(driver).pop(name) if value is None else setattr(driver, name, value)
        engine.library().dlsim_multiprocessors(driver.multiprocessors)


@cache
def _checked_image(module: str) -> int:
    driver = dispatch.get_backend("sim").driver  # type: ignore[attr-defined]
    path = build.kernel(compiler.folder() / f"{module}.cu", "checked")
    return int(driver.native.load(f"SIMT:{path}".encode()))


@cache
def _checked_function(module: str, kernel: str) -> Any:
    driver = dispatch.get_backend("sim").driver  # type: ignore[attr-defined]
    return driver.native.function(_checked_image(module), kernel)


def _summed(kernel: str, counters: list[engine.Counter]) -> Counts:
    counts, parts = Counts(), Tally[str]()
    excess: dict[str, Tally[str]] = {name: Tally() for name in ("wavefronts", "sectors", "wide")}
    for c in counters:
        if c.kernel != kernel:
            continue
        if c.operation.endswith(".shared"):
            parts[c.operation.removesuffix(".shared")] += c.units
            counts.wavefronts += c.units
            counts.wavefronts_ideal += c.ideal
            excess["wavefronts"][f"{c.where} {c.operation}"] += c.units - c.ideal
        else:
            counts.requests += c.requests
            counts.sectors += c.units
            counts.sectors_ideal += c.ideal
            counts.bytes += c.lanes * c.bytes
            counts.wide_bytes += c.lanes * c.bytes * (c.bytes == NARROW)
            excess["sectors"][f"{c.where} {c.operation}"] += c.units - c.ideal
            excess["wide"][f"{c.where} {c.operation} of {c.bytes} bytes"] += c.lanes * c.bytes * (c.bytes < NARROW)
    counts.worst = {name: tally.most_common(1)[0][0] for name, tally in excess.items() if tally}
    counts.worst["shared"] = ", ".join(f"{name} {n / counts.wavefronts:.0%}" for name, n in parts.most_common() if n)
    return counts
