"""The report: all results as JSON, and what a reader wants as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.driver import EMULATED
from benchmarks.gpu.section import SHOWN, Outcome
from benchmarks.gpu.sections import KERNEL, result, tests_file

Report = dict[str, Any]


def write(folder: Path, outcomes: Sequence[Outcome], rehearsal: bool) -> Report:
    """`report.json` and `report.md`, of what is known so far."""
    found = gathered(folder, outcomes, rehearsal)
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "report.md").write_text("\n".join(markdown(found)) + "\n")
    return found


def gathered(folder: Path, outcomes: Sequence[Outcome], rehearsal: bool) -> Report:
    """All results. A section that failed counts as having measured nothing."""

    def of(name: str) -> Any:
        passed = any(outcome.name == name and not outcome.failed for outcome in outcomes)
        path = result(folder, name)
        return json.loads(path.read_text()) if passed and path.is_file() else None

    return {
        "rehearsal": rehearsal,
        "device": of("environment"),
        "sections": [asdict(outcome) for outcome in outcomes],
        "failed tests": failed_tests(tests_file(folder)),
        "kernels": [row for outcome in outcomes if outcome.name.startswith(KERNEL) and (row := of(outcome.name))],
        "modelled": of("modelled") or {},
        "overhead": of("overhead") or {},
    }


def failed_tests(path: Path) -> dict[str, str]:
    """Of each test that failed the first line of the reason."""
    if not path.is_file():
        return {}
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        for fault in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.get('classname')}::{case.get('name')}"
            found[name] = (fault.get("message") or "").partition("\n")[0]
    return found


def markdown(found: Report) -> Iterable[str]:
    """The report for a reader."""
    yield "# The GPU day" + (": a rehearsal" if found["rehearsal"] else "") + _emulated(found)
    yield from _device(found["device"])
    yield from _sections(found["sections"])
    yield from _failures(found)
    yield from _kernels(found)
    yield from _overhead(found)


def _emulated(found: Report) -> str:
    return f" ({EMULATED})" if found["rehearsal"] else ""


def _device(device: Report | None) -> Iterable[str]:
    yield "\n## Device\n"
    if device is None:
        yield "Not known: the section `environment` did not pass."
        return
    rates, peaks = device["rates"], device["TFLOP/s at most"]
    yield (
        f"{device['name']}: compute capability {device['compute capability']}, {rates['multiprocessors']} "
        f"multiprocessors at {1e-9 * rates['clock']:.2f} GHz, {1e-9 * rates['dram']:.0f} GB/s, "
        f"{device['memory in GB']:.0f} GB; driver for CUDA {device['CUDA of the driver']}. By these at most "
        + ", ".join(f"{peak:.3g} TFLOP/s {name}" for name, peak in peaks.items())
        + " (`mma.sync`). Versions and settings: `environment.log`."
    )


def _sections(sections: Iterable[Report]) -> Iterable[str]:
    yield "\n## Sections\n"
    rows = ((s["name"], s["state"], f"{s['seconds']:.0f}", " ".join(s["lines"][-1:])) for s in sections)
    yield from _table("section", ("result", "s", "last line"), rows)


def _failures(found: Report) -> Iterable[str]:
    for s in found["sections"]:
        if s["state"] != "passed":
            yield f"\n### {s['name']}: {s['state']}\n\n```"
            yield from s["lines"]
            yield "```"
    if failed := found["failed tests"]:
        yield f"\n### {len(failed)} failed tests\n"
        yield from _table("test", ("why",), list(failed.items())[: 10 * SHOWN])


def _kernels(found: Report) -> Iterable[str]:
    if not found["kernels"]:
        return
    yield "\n## Kernels\n"
    yield "Error: largest difference from float64 over the largest element. Times: medians (quartiles)."
    yield "Roofline: the least time that the device's rates allow. Modelled: see `docs/kernels.md`.\n"
    ms = f"ms{_emulated(found)}"
    headings = ("error", ms, "GB/s or TFLOP/s", "of roofline", "modelled ms, full size", f"others, {ms}")
    yield from _table("kernel", headings, (_kernel(row, found) for row in found["kernels"]))
    for row in found["kernels"]:
        if row["kernel"] not in row["launched"]:
            yield f"\n`{row['kernel']}` was not launched here, but {', '.join(row['launched'])}."
        for peer in row["peers"]:
            if not peer["time"]:
                yield f"\n`{row['kernel']}` by {peer['name']}: {peer['why']}"
    yield "\n![roofline](roofline.png)"


def _kernel(row: Report, found: Report) -> tuple[str, ...]:
    ms = row["time"]["median"]
    rate = f"{1e-9 * row['flop'] / ms:.3g} T" if row["flop"] else f"{1e-6 * row['bytes'] / ms:.4g} G"
    modelled = found["modelled"].get(row["kernel"])
    return (
        row["kernel"],
        f"{row['error']:.1e}",
        _time(row["time"]),
        "-" if found["rehearsal"] else rate,
        "-" if found["rehearsal"] else f"{row['roofline'] / ms:.0%}",
        "-" if modelled is None else f"{modelled:.4g}",
        ", ".join(f"{peer['name']} {_time(peer['time'])}" for peer in row["peers"] if peer["time"]) or "-",
    )


def _time(time: Report) -> str:
    return f"{time['median']:.4g} ({time['low']:.3g} to {time['high']:.3g})"


def _overhead(found: Report) -> Iterable[str]:
    if found["overhead"]:
        yield f"\n## Overhead\n\nMicroseconds on the host{_emulated(found)}.\n"
        yield from _table("", ("us",), ((name, f"{us:.2f}") for name, us in found["overhead"].items()))


def _table(first: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join((first, *headings)) + " |"
    yield "|" + "---|" * (len(headings) + 1)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
