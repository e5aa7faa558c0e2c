"""Runs kept over time: one line of JSON each, and a picture of them."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.row import Row

LIBRARIES = ("dlcore", "numpy", "torch", "jax")


def append(file: str, suite: str, rows: Sequence[Row]) -> None:
    """Add a line: when, where, with which versions, and the rows."""
    entry: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": suite,
        "machine": _machine(),
    }
    entry |= {"versions": _versions(), "rows": [asdict(r) for r in rows]}
    with Path(file).open("a") as stream:
        stream.write(json.dumps(entry) + "\n")


def _machine() -> dict[str, str | int]:
    from dlcore import _C

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return {"processor": names[0] if names else platform.processor(), "isa": _C.isa(), "threads": _C.num_threads()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ratios(file: str) -> dict[str, list[tuple[str, float]]]:
    """Of each row: dates and ratios, oldest first."""
    found = defaultdict(list)
    for text in Path(file).read_text().splitlines():
        entry = json.loads(text)
        for r in entry["rows"]:
            found[r["name"]].append((entry["date"], r["ratio"]))
    return dict(found)


def draw(file: str, picture: str) -> None:
    """A line per row: its ratio over runs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("the picture needs matplotlib: pip install 'dlcore[plot]'") from None
    found = ratios(file)
    figure: Any = Figure(figsize=(12, 2 + 0.25 * len(found)), layout="constrained")
    axes = figure.subplots()
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(1, color="black", linestyle="--")
    axes.set(ylabel="peer's time / dlcore's", yscale="log")
    axes.tick_params(axis="x", rotation=30)
    figure.legend(loc="outside right", fontsize=7)
    figure.savefig(picture, dpi=120)


def main(argv: Sequence[str]) -> None:
    """Draw a history."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plot", description=draw.__doc__)
    parser.add_argument("history", metavar="FILE", help="what --history wrote")
    parser.add_argument("--out", default="history.png", metavar="PICTURE")
    given = parser.parse_args(argv)
    draw(given.history, given.out)
