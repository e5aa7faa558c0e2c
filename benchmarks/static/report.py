"""The table: every kernel file for every architecture, then the ten metrics of each family."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.static import cubin, metrics
from benchmarks.static.families import Family, families
from benchmarks.static.metrics import Metric
from dlcore.backends.cuda import compiler
from dlcore.backends.cuda.options import ARCHITECTURES
from dlcore.errors import KernelError

BUDGETS = Path(__file__).with_name("budgets.json")
Row = dict[str, Metric]

MISSES = "What misses its limit, by how much and why:"
BEGIN, END = "<!-- written by `--docs` from here -->\n", "<!-- to here -->\n"

ANCHORS = """\
On the same scale, main loops by others:
  f32    cuBLAS 128x128x8, sm_90: 254 registers, FFMA 87.4 %, FFMA/stalls 86.4 %, 21.3 FFMA per LDS.128; 256x128: 88.7 %
         CUTLASS SIMT 128x128: FFMA 81.4 %; textbook: 32x32 tiles 37.2 %, naive 21.9 %
  f16    cuBLAS 128x128x32: 141 instructions per 64 HMMA (45 %); CUTLASS bf16: 140 to 162
         CUTLASS convolution: 196 per 64 HMMA (33 %), gradient of w 338 (19 %)
"""

COLUMNS = {  # heading: metric, format
    "regs": ("registers", "{:.0f}"),
    "spill": ("spills", "{:.0f}"),
    "math": ("math share", "{:.1%}"),
    "/stall": ("math / stalls", "{:.1%}"),
    ":load": ("math : shared loads", "{:.1f}"),
    "shared": ("shared / math cycles", "{:.2f}"),
    "wavef": ("wavefronts / ideal", "{:.3f}"),
    "sector": ("sectors / ideal", "{:.3f}"),
    "16 B": ("16 bytes at a time", "{:.0%}"),
    "DRAM": ("DRAM / compulsory", "{:.2f}"),
    "warps": ("residency", "{:.0f}"),
    "A100": ("modelled / roofline, A100", "{:.2f}"),
    "H100": ("modelled / roofline, H100", "{:.2f}"),
    "4090": ("modelled / roofline, RTX 4090", "{:.2f}"),
}


def cells(row: Row) -> list[str]:
    """A row's numbers under COLUMNS; a star marks what misses its limit."""
    found = []
    for name, form in COLUMNS.values():
        metric = row.get(name)
        found.append("-" if metric is None else form.format(metric.value) + "*" * (not metric.held))
    return found


def budgets() -> dict[str, dict[str, dict[str, Any]]]:
    """Of each kernel the metrics that miss their limits: the number that they may reach all the same, and why."""
    loaded: dict[str, dict[str, dict[str, Any]]] = json.loads(BUDGETS.read_text())
    return loaded


def over_budget(kernel: str, row: Row) -> list[str]:
    """What is worse than its limit, or than the number in budgets.json."""
    allowed = budgets().get(kernel, {})
    found = []
    for name, metric in row.items():
        limit = allowed.get(name, {}).get("limit", metric.limit)
        if not Metric(metric.value, limit, metric.at_least).held:
            found.append(f"{kernel}: {name} {metric.value:.3f}, budget {limit:g} ({metric.why})")
    return found


def accept(rows: dict[str, Row]) -> None:
    """Make what misses now the budget, 2 % wider; reasons that stand in the file stay."""
    kept = budgets()
    for kernel, row in rows.items():
        missed = {name: m for name, m in row.items() if not m.held}
        old = kept.pop(kernel, {})
        found = {
            name: {
                "limit": float(f"{m.value * (0.98 if m.at_least else 1.02):.4g}"),
                "why": old.get(name, {}).get("why", m.why),
            }
            for name, m in missed.items()
        }
        kept |= {kernel: found} if found else {}
    BUDGETS.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def misses(kernel: str, row: Row) -> list[str]:
    """Of each metric that misses its limit: its column, by how much, and the reason that budgets.json gives."""
    reasons, found = budgets().get(kernel, {}), []
    for heading, (name, form) in COLUMNS.items():
        metric = row.get(name)
        if metric is not None and not metric.held:
            why = reasons.get(name, {}).get("why") or metric.why
            found.append(f"{heading} {form.format(metric.value)}, limit {form.format(metric.limit)}: {why}")
    return found


def whole_files(modules: Sequence[str], architectures: Sequence[int], jobs: int) -> dict[str, dict[str, Any]]:
    """Of every kernel file and architecture: how many kernels, most registers, who spills or has local arrays."""
    pairs = [(m, a) for m in modules for a in architectures]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda pair: cubin.cubin(*pair), pairs))
    found: dict[str, dict[str, Any]] = {}
    for module, arch in pairs:
        code = metrics.module_code(module, arch)
        found[f"{module} sm_{arch}"] = {
            "kernels": len(code),
            "registers": max(r.registers for r, _ in code.values()),
            "spilled": {k: r.spilled for k, (r, _) in code.items() if r.spilled},
            "local in loops": {k: kernel.local for k, (_, kernel) in code.items() if kernel.local},
        }
    return found


def print_files(files: dict[str, dict[str, Any]]) -> None:
    """Metric 1 of every kernel."""
    print(f"{'':24}{'kernels':>8}{'registers':>11}{'spill':>7}{'local memory in loops':>24}")
    for name, f in files.items():
        print(f"{name:24}{f['kernels']:8}{f['registers']:11}{len(f['spilled']):7}{len(f['local in loops']):24}")
    for what in ("spilled", "local in loops"):
        for name, f in files.items():
            if f[what]:
                print(f"{what}, {name}: {listed(f[what])}")


def listed(kernels: dict[str, int], most: int = 6) -> str:
    """The first few names with their numbers."""
    names = [f"{name} {n}" for name, n in kernels.items()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def print_rows(rows: dict[str, Row]) -> None:
    """The ten metrics, and below them what misses."""
    width = max(map(len, rows)) + 2
    print("\n" + " " * width + "".join(f"{heading:>8}" for heading in COLUMNS))
    for kernel, row in rows.items():
        print(kernel.ljust(width) + "".join(f"{cell:>8}" for cell in cells(row)))
    print("\nTimes are modelled, none is measured. A star: misses its limit.\n" + ANCHORS)
    for kernel, row in rows.items():
        for text in misses(kernel, row):
            print(f"{kernel}: {text}")


def markdown(rows: dict[str, Row], before: str = "") -> str:
    """The table for the documentation, and what misses in it; families that are not among the rows as in `before`."""
    table, reasons = (
        {line.split()[1].rstrip(":"): line for line in before.splitlines() if line.startswith(sign)}
        for sign in ("| ", "- ")
    )
    for kernel, row in rows.items():
        table[kernel] = f"| {kernel} | " + " | ".join(cells(row)) + " |"
        reasons[kernel] = f"- {kernel}: " + "; ".join(misses(kernel, row))
    order = [family.kernel for family in families()]
    missed = [kernel for kernel in order if kernel in reasons and "*" in table[kernel]]
    lines = ["| kernel | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 1)]
    lines += [table[kernel] for kernel in order if kernel in table]
    return "\n".join([*lines, "", MISSES, "", *(reasons[kernel] for kernel in missed)]) + "\n"


def update(path: Path, rows: dict[str, Row]) -> None:
    """Put rows into the table of a document, which lies between two marks."""
    head, begin, text = path.read_text().partition(BEGIN)
    before, end, tail = text.partition(END)
    path.write_text(head + begin + markdown(rows, before) + end + tail)


def all_rows(chosen: list[Family], architectures: Sequence[int], filtered: bool) -> tuple[dict[str, Row], list[str]]:
    """The row of each family, and of those that have none the reason."""
    rows, without = {}, []
    for family in chosen:
        try:
            rows[family.kernel] = metrics.row(family, architectures, filtered)
        except (KernelError, LookupError) as error:
            without.append(f"{family.kernel}: {error}")
    return rows, without


def main(argv: list[str]) -> None:
    """Print the table; exit with 1 when something is over budget."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks static", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="families whose kernel's name contains TEXT")
    parser.add_argument("--arch", default=",".join(map(str, ARCHITECTURES)), help="architectures, e.g. 80,90")
    parser.add_argument("--jobs", type=int, default=2, help="how many compilers run at once")
    parser.add_argument("--json", metavar="FILE", help="write everything")
    parser.add_argument("--accept", action="store_true", help="make what misses now the budget")
    parser.add_argument("--markdown", metavar="FILE", help="write the table of families and what misses in it")
    parser.add_argument("--docs", metavar="FILE", help="put the rows into the table of a document")
    given = parser.parse_args(argv)
    if reason := cubin.missing():
        raise SystemExit(reason)
    architectures = [int(a) for a in given.arch.split(",")]
    chosen: list[Family] = [f for f in families() if given.only in f.kernel]
    files = {} if given.only else whole_files(compiler.modules(), architectures, given.jobs)
    if files:
        print_files(files)
    rows, without = all_rows(chosen, architectures, filtered=bool(given.only))
    print_rows(rows)
    if given.accept:
        accept(rows)
    if given.json:
        table = {
            kernel: {name: asdict(m) | {"held": m.held} for name, m in row.items()} for kernel, row in rows.items()
        }
        Path(given.json).write_text(json.dumps({"files": files, "families": table}, indent=1) + "\n")
    if given.markdown:
        Path(given.markdown).write_text(markdown(rows))
    if given.docs:
        update(Path(given.docs), rows)
    if over := [*without, *(text for kernel, row in rows.items() for text in over_budget(kernel, row))]:
        raise SystemExit("over budget:\n  " + "\n  ".join(over))
