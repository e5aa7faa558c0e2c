"""How times are taken and results are compared.

Both sides of a comparison run in one process and in turn, with a pause before each sample, so that worker threads of
one library that still spin do not take a core from the other. A sample repeats its function until it lasts long enough
to be read; the median over rounds is reported with quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PAUSE = 0.025  # seconds; OpenMP workers spin for some milliseconds after their last region
SAMPLE = 0.02  # least seconds of one sample
ROUNDS = 15
READING = 5e-5  # seconds that reading finished results may take


class WrongResultError(Exception):
    """The function under test does not compute what it should."""


class UnsynchronisedError(Exception):
    """A call returned before its result was there, so its time says nothing."""


@dataclass
class Timing:
    """Milliseconds of one call over the rounds."""

    median: float
    low: float
    high: float


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


def check_synchronised(f: Callable[[], Any]) -> None:
    """Raise if the results of `f` are not there when it returns, so that reading them takes time."""
    if min(reading - call / 20 for call, reading in (_call_and_reading(f) for _ in range(5))) > READING:
        raise UnsynchronisedError("a call returns before its results are there")


def _call_and_reading(f: Callable[[], Any]) -> tuple[float, float]:
    start = time.perf_counter()
    results = f()
    returned = time.perf_counter()
    for a in results or ():
        np.asarray(a)
    return returned - start, time.perf_counter() - returned
