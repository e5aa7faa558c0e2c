"""One kernel family: its result against float64, then its time, beside other libraries and the device's roofline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.gpu.driver import EMULATED, Driver
from benchmarks.gpu.operands import Operands, exact, on_host
from benchmarks.gpu.peers import Run, on_host_of_peer, peers
from benchmarks.static import devices
from benchmarks.static.families import Family, families
from dlcore.backends.cuda.launch import listeners
from dlcore.dispatch import default_backend
from dlcore.testing import TOLERANCE


class Check(NamedTuple):
    """Results in float64, the device's error against them (relative to the largest element), what is allowed."""

    exact: list[np.ndarray[Any, Any]]
    error: float
    allowed: float
    bytes: int  # of operands and results on the device


@dataclass
class Peer:
    """Another library's time, or why there is none."""

    name: str
    error: float | None = None
    time: harness.Timing | None = None
    why: str = ""


@dataclass
class Row:
    """A family's numbers. Times in ms."""

    kernel: str
    size: int
    launched: list[str]  # kernels of the call
    error: float
    allowed: float
    time: harness.Timing
    flop: float
    bytes: int
    roofline: float
    peers: list[Peer]


def check(family: Family, new: Operands, size: int) -> Check:
    """Run a family and compare. Raises WrongResultError."""
    results = on_host(new.run(family.call, size), new.device)
    wide = exact(family, new, size)
    error, allowed = harness.relative_error(results, wide), tolerance(family, new, size, results[0])
    if error > allowed:
        raise harness.WrongResultError(f"{family.kernel}: error {error:.3g} against float64; {allowed:.3g} is allowed")
    moved = sum(x._array.nbytes for x in new.tensors) + sum(x.nbytes for x in results)
    return Check(wide, error, allowed, moved)


def tolerance(family: Family, new: Operands, size: int, result: np.ndarray[Any, Any]) -> float:
    """That of the op tests for the result's dtype, or four standard errors of a sum's roundings, one for each term.

    Whole numbers are exact.
    """
    if result.dtype.kind in "bi":
        return 0.0
    work = family.fma(size) if family.fma else sum(x.size for x in new.tensors)
    rounding = 2.0**-53 if result.dtype == np.float64 else 2.0**-24
    name = "float16" if "tf32" in family.kernel else result.dtype.name
    return max(TOLERANCE[name], 4 * sqrt(work / result.size) * rounding)


def measured(family: Family, size: int) -> Row:
    """A family on the default backend. Raises WrongResultError, before anything is timed, when its result is wrong."""
    backend = default_backend()
    driver, new = Driver(backend), Operands(backend.name)
    with _launches() as launched:
        checked = check(family, new, size)
    own, others = _timed(lambda: new.run(family.call, size), peers(family, new), checked, driver)
    fma = family.fma(size) if family.fma else 0.0
    device = devices.of_driver(driver.attribute)
    least = devices.roofline(device, devices.rate(device.architecture, *family.math), fma, checked.bytes)
    accuracy, work = (checked.error, checked.allowed), (2 * fma, checked.bytes)
    return Row(family.kernel, size, list(launched), *accuracy, own, *work, 1e3 * least, others)


def _timed(
    run: Callable[[], Any], others: Mapping[str, Callable[[], Run]], checked: Check, driver: Driver
) -> tuple[harness.Timing, list[Peer]]:
    """Our time and the peers', taken in turn."""
    found = [ready(name, prepare, checked) for name, prepare in others.items()]
    own, *times = harness.measure([run, *(f for _, f in found if f)], driver.rounds, driver.seconds)
    for peer, time in zip([peer for peer, f in found if f], times, strict=True):
        peer.time = time
    return own, [peer for peer, _ in found]


@contextmanager
def _launches() -> Iterator[dict[str, None]]:
    """Names of the kernels launched inside the block, each once."""
    names: dict[str, None] = {}

    def note(kernel: str, *_: Any) -> None:
        names[kernel.partition(".")[2]] = None

    listeners.append(note)
    try:
        yield names
    finally:
        listeners.remove(note)


def ready(name: str, prepare: Callable[[], Run], ours: Check) -> tuple[Peer, Run | None]:
    """A peer and what to time, if it computes the right thing; whatever goes wrong in it is told, and no failure."""
    try:
        run = prepare()
        pairs = [(on_host_of_peer(x), wide) for x, wide in zip(run(), ours.exact, strict=False) if x is not None]
        error = harness.relative_error(*zip(*pairs, strict=True))
    except Exception as problem:
        return Peer(name, why=f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"), None
    if error > 4 * ours.allowed:
        return Peer(name, error, why=f"error {error:.2g} against float64"), None
    return Peer(name, error), run


def line(row: Row, emulated: bool) -> str:
    """A row as text."""
    note = f" ({EMULATED})" if emulated else f", {row.roofline / row.time.median:.0%} of the roofline"
    others = [f"{p.name} {p.time.median:.4g} ms" if p.time else f"{p.name}: {p.why}" for p in row.peers]
    return "; ".join([f"{row.kernel}: error {row.error:.1e}, {row.time.median:.4g} ms{note}", *others])


def main() -> None:
    """Measure a family, print it and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel")
    parser.add_argument("json", type=Path)
    given = parser.parse_args()
    family = next(f for f in families() if f.kernel == given.kernel)
    emulated = default_backend().name == "sim"
    row = measured(family, family.small if emulated else family.full)
    print(line(row, emulated))
    given.json.write_text(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
