"""A row of a table: the same work by dlcore and by peers, in turn, against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dlcore as dl
from benchmarks import harness
from dlcore.profile import profile

Run = Callable[[], Any]
"""What is timed; it returns arrays, or None."""
SAME = 0.05  # largest error of peers; deep gradients in float32 come to 0.01
COMPILED = "torch.compile"  # in columns of its own, never the peer of `ratio`


@dataclass
class Work:
    """Functions that do the same, with their errors against float64. flops or nbytes: of one call."""

    ours: Run
    peers: dict[str, Run]
    error: float
    peer_errors: dict[str, float]
    flops: float = 0
    nbytes: float = 0


@dataclass(frozen=True)
class Case:
    """A row to be made."""

    name: str
    work: Callable[[], Work]


@dataclass
class Row:
    """Times in ms; ratio is the fastest peer's time over ours, so above 1 means dlcore is faster."""

    name: str
    dlcore_ms: float
    dlcore_quartiles: tuple[float, float]
    peer: str
    peer_ms: float
    peer_quartiles: tuple[float, float]
    ratio: float
    error: float  # largest difference from float64, relative to the largest element
    peer_error: float
    rate: float
    unit: str
    peak_fraction: float
    compile_ms: float | None = None
    compile_ratio: float | None = None
    memory_mb: float | None = None
    peer_memory_mb: float | None = None
    memory_ratio: float | None = None  # ours over the peer's: below 1 means that dlcore needs less


@dataclass(frozen=True)
class Peaks:
    """What this machine reaches, measured in the same run: GFLOP/s, GB/s."""

    flops: float
    bandwidth: float

    @classmethod
    def measured(cls) -> Peaks:
        """The machine at its quietest: fused multiply-adds in registers, and a copy of 4 million numbers."""
        from dlcore import _C

        x = dl.ones(4 * 2**20)
        copy = min(harness.wall_clock(lambda: -x, 10) for _ in range(10))
        return cls(max(_C.fma_peak(0.1) for _ in range(10)), 2e-9 * x.nbytes / copy)


def compared(ours: Run, peers: dict[str, Run], exact: Iterable[Any], nbytes: float = 0) -> Work:
    """Work whose functions return arrays that should be `exact`; what dlcore's ops count is its FLOP."""
    exact = list(exact)
    with profile() as p:
        error = harness.relative_error(ours(), exact)
    errors = {name: harness.relative_error(run(), exact) for name, run in peers.items()}
    return Work(ours, peers, error, errors, p.flops, nbytes)


def row(case: Case, peaks: Peaks) -> Row:
    """Check and time it."""
    work = case.work()
    check(work)
    sides = {"dlcore": work.ours, **work.peers}
    for run in sides.values():
        harness.check_synchronised(run)
    return _row(case.name, work, dict(zip(sides, harness.measure(list(sides.values())), strict=True)), peaks)


def _row(name: str, work: Work, times: dict[str, harness.Timing], peaks: Peaks) -> Row:
    ours, compiled = times.pop("dlcore"), times.pop(COMPILED, None)
    peer = min(times, key=lambda name: times[name].median)
    best = times[peer]
    rate, unit, peak = _rate(work, ours, peaks)
    return Row(
        name=name,
        dlcore_ms=ours.median,
        dlcore_quartiles=(ours.low, ours.high),
        peer=peer,
        peer_ms=best.median,
        peer_quartiles=(best.low, best.high),
        ratio=best.median / ours.median,
        error=work.error,
        peer_error=work.peer_errors[peer],
        rate=rate,
        unit=unit,
        peak_fraction=rate / peak,
        compile_ms=compiled.median if compiled else None,
        compile_ratio=compiled.median / ours.median if compiled else None,
    )


def check(work: Work) -> None:
    """Raise if dlcore's error is more than four times the peers', or a peer's is too large for the same work."""
    for peer, error in work.peer_errors.items():
        if not error <= SAME:
            raise harness.WrongResultError(f"{peer} computes something else: error {error:.2g} against float64")
    allowed = 4 * max(work.peer_errors.values()) + 1e-6
    if not work.error <= allowed:
        raise harness.WrongResultError(f"error {work.error:.2g} against float64; {allowed:.2g} is allowed")


def _rate(work: Work, time: harness.Timing, peaks: Peaks) -> tuple[float, str, float]:
    if work.nbytes:
        return 1e-6 * work.nbytes / time.median, "GB/s", peaks.bandwidth
    return 1e-6 * work.flops / time.median, "GFLOP/s", peaks.flops
