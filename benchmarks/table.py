"""Rows as text and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.row import Row

HEADER = (
    f"{'':42}{'dlcore':>9}{'peer':>9}{'ratio':>7}{'error':>9}{'peer':>9}{'rate':>8}{'':8}{'peak':>5}"
    f"{'compile':>9}{'MB':>7}{'peer':>7}{'ratio':>7}  peer, quartiles"
)


def line(r: Row) -> str:
    """A row as text under HEADER; times in ms."""
    return (
        f"{r.name:42}{r.dlcore_ms:9.3f}{r.peer_ms:9.3f}{r.ratio:7.2f}{r.error:9.1e}{r.peer_error:9.1e}"
        f"{r.rate:8.1f} {r.unit:7}{100 * r.peak_fraction:4.0f}%"
        f"{_optional(r.compile_ratio, 9, 2)}{_optional(r.memory_mb, 7, 1)}{_optional(r.peer_memory_mb, 7, 1)}"
        f"{_optional(r.memory_ratio, 7, 2)}  {r.peer}, {_range(r.dlcore_quartiles)} / {_range(r.peer_quartiles)}"
    )


def _optional(value: float | None, width: int, digits: int) -> str:
    return " " * width if value is None else f"{value:{width}.{digits}f}"


def _range(quartiles: tuple[float, float]) -> str:
    return "{:.3g}-{:.3g}".format(*quartiles)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Geometric means and the row furthest behind: of steps, of other rows, against `torch.compile`, of memory."""
    memory = {r.name: r.memory_ratio for r in rows if r.memory_ratio}
    ratios = {
        "steps": {r.name: r.ratio for r in rows if "step" in r.name},
        "other rows": {r.name: r.ratio for r in rows if "step" not in r.name},
        "against torch.compile": {r.name: r.compile_ratio for r in rows if r.compile_ratio},
    }
    for what, found in ratios.items():
        if found:
            yield f"{what}: {_mean(found)}, lowest {_named(found, min)}"
    if memory:
        yield f"peak memory, ours over the peer's: {_mean(memory)}, highest {_named(memory, max)}"


def _mean(found: dict[str, float]) -> str:
    return f"geometric mean {statistics.geometric_mean(found.values()):.2f}"


def _named(found: dict[str, float], extreme: Callable[..., str]) -> str:
    name = extreme(found, key=lambda name: found[name])
    return f"{found[name]:.2f} ({name})"


def save(path: str | None, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list."""
    if path:
        Path(path).write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
