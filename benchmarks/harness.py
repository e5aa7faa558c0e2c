"""How times are taken and what a row says.

Both sides of a comparison run in one process and in turn, with a pause before each sample, so that worker threads of
one library that still spin do not take a core from the other. A sample repeats its function until it lasts long enough
to be read; the median over rounds is reported with quartiles. A row whose result is wrong is not printed: it raises.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAUSE = 0.025  # seconds; OpenMP workers spin for some milliseconds after their last region
SAMPLE = 0.02  # least seconds of one sample
ROUNDS = 15


class WrongResultError(Exception):
    """The function under test does not compute what it should."""


@dataclass
class Timing:
    """Milliseconds of one call over the rounds."""

    median: float
    low: float
    high: float


@dataclass
class Row:
    """One line of a table. Times in ms; ratio is peer time over ours, so above 1 means dlcore is faster."""

    name: str
    dlcore_ms: float
    torch_ms: float
    ratio: float
    spread: str
    error: float  # largest difference from float64, relative to the largest element
    torch_error: float
    gflops: float
    peak_fraction: float


def wall_clock(f: Callable[[], Any], count: int) -> float:
    """Seconds of one of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        f()
    return (time.perf_counter() - start) / count


def measure(
    sides: Sequence[Callable[[], Any]],
    rounds: int = ROUNDS,
    sample: Callable[[Callable[[], Any], int], float] = wall_clock,
) -> list[Timing]:
    """Time functions in turn; returns one Timing for each. sample(f, count): seconds of one of `count` calls."""
    counts = [_calibrate(f, sample) for f in sides]
    samples: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for f, count, found in zip(sides, counts, samples, strict=True):
            time.sleep(PAUSE)
            f()
            found.append(sample(f, count) * 1e3)
    return [_timing(found) for found in samples]


def _timing(found: list[float]) -> Timing:
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Timing(median, low, high)


def _calibrate(f: Callable[[], Any], sample: Callable[[Callable[[], Any], int], float]) -> int:
    f()
    count = 1
    while (seconds := sample(f, count) * count) < SAMPLE:
        count = max(count + 1, int(1.2 * count * SAMPLE / max(seconds, 1e-7)))
    return count


def relative_error(got: Iterable[Any], exact: Iterable[Any]) -> float:
    """Largest difference of arrays relative to the largest exact element of each; the worst array counts."""
    worst = 0.0
    for a, b in zip(got, exact, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape or not np.isfinite(a).all():
            raise WrongResultError(f"shape {a.shape} against {b.shape}, finite: {bool(np.isfinite(a).all())}")
        if b.size:
            worst = max(worst, float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30)))
    return worst


def compare(
    name: str, ours: Callable[[], Any], peer: Callable[[], Any], errors: tuple[float, float], flops: float, peak: float
) -> Row:
    """A row for two functions that do the same work. errors: ours and the peer's against float64. peak: in GFLOP/s."""
    error, peer_error = errors
    if error > 4 * peer_error + 1e-6:
        raise WrongResultError(f"{name}: error {error:.2g} against float64, the peer's is {peer_error:.2g}")
    a, b = measure([ours, peer])
    gflops = flops / a.median * 1e-6
    spread = f"{a.low:.3g}-{a.high:.3g} / {b.low:.3g}-{b.high:.3g}"
    return Row(name, a.median, b.median, b.median / a.median, spread, error, peer_error, gflops, gflops / peak)


HEADER = f"{'':40}{'dlcore':>9}{'torch':>9}{'ratio':>7}{'error':>10}{'torch':>10}{'GFLOP/s':>9}{'peak':>6}  quartiles"


def line(r: Row) -> str:
    """A row as text under HEADER; times in ms."""
    return (
        f"{r.name:40}{r.dlcore_ms:9.3f}{r.torch_ms:9.3f}{r.ratio:7.2f}{r.error:10.1e}{r.torch_error:10.1e}"
        f"{r.gflops:9.1f}{100 * r.peak_fraction:5.0f}%  {r.spread}"
    )


def save(path: str | None, rows: Sequence[Any]) -> None:
    """Write rows as a JSON list."""
    if path:
        Path(path).write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
