"""Runs the sections in turn. The report is written again after each, so that an interrupted run leaves one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.gpu import plot, report
from benchmarks.gpu.section import Outcome, execute
from benchmarks.gpu.sections import ROOT, broken, sections, tests_file

DEFAULT_FOLDER = Path("build", "gpu")
PATIENCE = 3.0  # seconds for sections that go wrong on purpose


def main(argv: list[str]) -> None:
    """Run and report; exit with 1 when a section failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument(
        "--rehearse", action="store_true", help="in the emulator, at small sizes; its times mean nothing"
    )
    parser.add_argument("--faults", action="store_true", help="add sections that go wrong on purpose")
    parser.add_argument("--only", default="", metavar="A,B", help="sections whose name contains one of these texts")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help=f"default: {DEFAULT_FOLDER}")
    given = parser.parse_args(argv)
    folder = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    chosen = [s for s in sections(folder, given.rehearse) if any(text in s.name for text in given.only.split(","))]
    tests_file(folder).unlink(missing_ok=True)  # of an earlier run
    outcomes: list[Outcome] = []
    found = report.write(folder, outcomes, given.rehearse)
    for section in chosen + (broken(PATIENCE) if given.faults else []):
        outcomes.append(execute(section, folder))
        print(f"{section.name:36}{outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", flush=True)
        found = report.write(folder, outcomes, given.rehearse)
    plot.draw(found, folder / "roofline.png")
    print(f"the report: {folder / 'report.md'}")
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit(1)
