"""Suites of rows: a choice of cases, run one after the other, with means at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

import dlcore as dl
from benchmarks import functions, harness, history, memory, products, table
from benchmarks.libraries import installed
from benchmarks.row import Case, Peaks, Row, row
from benchmarks.steps import STEPS

Given = argparse.Namespace


def ops(_: Given) -> Iterator[Case]:
    """Beside NumPy, and JAX where it is installed."""
    libraries = tuple(name for name in ("numpy", "jax") if installed(name))
    yield from products.cases(libraries)
    yield from functions.cases(libraries)


def layers(_: Given) -> Iterator[Case]:
    """Beside PyTorch."""
    _use_torch()
    from benchmarks import attention, conv, recurrent

    for family in (conv, recurrent, attention):
        yield from family.cases()


def training(given: Given) -> Iterator[Case]:
    """Beside PyTorch, eager and compiled."""
    _use_torch()
    from benchmarks import training

    yield from training.cases(given.eager, given.compile)


def capture(_: Given) -> Iterator[Case]:
    """Captured beside eager."""
    from benchmarks import captured

    yield from captured.cases()


def peers(given: Given) -> Iterator[Case]:
    """All that PyTorch does as well."""
    _use_torch()
    from benchmarks import tiny

    yield from products.cases(("torch",))
    yield from training(given)
    yield from layers(given)
    yield from functions.cases(("torch",))
    yield from tiny.cases()


SUITES: dict[str, Callable[[Given], Iterator[Case]]] = {
    "ops": ops, "layers": layers, "training": training, "capture": capture, "peers": peers
}  # fmt: skip


def _use_torch() -> None:
    if not installed("torch"):
        sys.exit("this suite compares with PyTorch, which is not installed: pip install torch")
    import torch

    from dlcore import _C

    torch.set_num_threads(_C.num_threads())


def run(cases: Iterator[Case], peaks: Peaks, memory_too: bool) -> tuple[list[Row], list[str]]:
    """Rows, printed as they come, and what is wrong."""
    rows, wrong = [], []
    print(table.HEADER)
    for case in cases:
        try:
            found = row(case, peaks)
        except (harness.WrongResultError, harness.UnsynchronisedError) as error:
            wrong.append(f"{case.name}: {error}")
            continue
        if memory_too and case.name in STEPS:
            memory.add(found)
        print(table.line(found), flush=True)
        rows.append(found)
    return rows, wrong


def main(suite: str, argv: Sequence[str]) -> int:
    """Print the table; 1 if a row is wrong."""
    given = _parser(suite).parse_args(argv)
    dl.set_device("cpu")
    chosen = (case for case in SUITES[suite](given) if given.only in case.name)
    if given.memory and not memory.works():
        print("this system does not count a process's peak memory, so it is left out")
    rows, wrong = run(chosen, Peaks.measured(), given.memory and memory.works())
    print(*table.summary(rows), *(f"WRONG: {text}" for text in wrong), sep="\n")
    table.save(given.json, rows)
    if given.history:
        history.append(given.history, suite, rows)
    return int(bool(wrong))


def _parser(suite: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {suite}", description=SUITES[suite].__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--history", metavar="FILE", help="append the run to FILE, one line of JSON")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains TEXT")
    parser.add_argument("--eager", action="store_true", help="whole models as they are, not captured")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="without peak memory of steps")
    return parser
