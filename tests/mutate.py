"""Do the tests notice a broken kernel? `make mutate` breaks each kernel file in small ways and runs its tests.

python tests/mutate.py [FILE ...] [--list] [--limit N]

A mutant drops a barrier, a wait for asynchronous copies or a guard of bounds, or swaps a pair of indices. It is killed
when a test fails under the checked emulator. One that does not compile, or compiles to the same instructions, counts
for nothing. Exits with 1 when fewer than 95 of 100 are killed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = {
    "elementwise": ["tests/test_cuda_basics.py", "-k", "broadcasts or between"],
    "functions": ["tests/test_cuda_elementwise.py"],
    "whole": ["tests/test_cuda_elementwise.py"],
    "select": ["tests/test_cuda_elementwise.py", "-k", "where or triangles"],
    "targets": ["tests/test_cuda_assign.py", "-k", "one_hot or targets"],
    "multinomial": ["tests/test_cuda_sort.py", "-k", "draws"],
    "gather": [
        "tests/test_cuda_gather.py",
        "tests/test_cuda_assign.py::test_an_index_with_arrays",
        "tests/test_cuda_sort.py::test_the_last_of_repeated_positions_wins",
    ],
    "copy": ["tests/test_cuda_basics.py", "-k", "casts or copies"],
    "reduce": ["tests/test_cuda_basics.py", "-k", "reductions or long or nan"],
    "strided": ["tests/test_cuda_basics.py", "-k", "broadcasts or between or casts or copies"],
    "types": ["tests/test_cuda_basics.py"],
    "warp": ["tests/test_cuda_basics.py", "-k", "reductions or long or nan"],
}
"""What watches a kernel file; others have a test file of their name."""

SURVIVORS = ROOT / "tests" / "mutants_that_survive.txt"


class Mutant(NamedTuple):
    """One change of a kernel file."""

    file: str  # below kernels/
    line: int
    what: str
    text: str  # of the whole file

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a source text."""
    body = source.index("#include")
    for what, pattern, replacement in RULES:
        for match in pattern.finditer(source, body):
            changed = replacement(match)
            if changed != match[0] and not _in_comment(source, match.start()):
                text = source[: match.start()] + changed + source[match.end() :]
                yield Mutant(file, source.count("\n", 0, match.start()) + 1, f"{what} {_short(match[0])}", text)


def _in_comment(source: str, at: int) -> bool:
    return "//" in source[source.rfind("\n", 0, at) + 1 : at]


def _short(text: str) -> str:
    return " ".join(text.rstrip("\\").split())[:70]


RULES = [
    ("drop", re.compile(r"\b__sync(threads|warp)\(\);"), lambda m: ";"),
    ("drop", re.compile(r"\bcp_async_wait(<[^>]*>)?\([^)]*\);"), lambda m: ";"),
    ("always", re.compile(r"\bif \(([^()]|\([^()]*\))* < ([^()]|\([^()]*\))*\)"), lambda m: "if (true)"),
    ("always", re.compile(r"(?<=[=(,] )[\w.]+( [+] \w+)? < [\w.]+ \?"), lambda m: "true ?"),
    ("swap", re.compile(r"\[([^\[\]]+)\]\[([^\[\]]+)\](?! *[;=,] *$)"), lambda m: f"[{m[2]}][{m[1]}]"),
]


def killed(mutant: Mutant) -> bool | None:
    """Whether a test fails with this kernel; None when it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = Path(folder, "kernels")
        shutil.copytree(ROOT / "kernels", kernels)
        (kernels / mutant.file).write_text(mutant.text)
        environment = os.environ | {"DLCORE_KERNELS": str(kernels), "DLCORE_SIM": "checked", "PYTHONPATH": str(ROOT)}
        stem = Path(mutant.file).stem
        tests = TESTS.get(stem, [f"tests/test_cuda_{stem}.py"])
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if "does not compile" in done.stdout:
        return None
    return done.returncode != 0


def every_file() -> list[str]:
    """Kernel files and their headers."""
    paths = [*(ROOT / "kernels").glob("*.cu"), *(ROOT / "kernels" / "include").glob("*.cuh")]
    return sorted(str(path.relative_to(ROOT / "kernels")) for path in paths if path.name != "dl.cuh")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files below kernels/ (default: all but dl.cuh, the emulator's own)")
    parser.add_argument("--list", action="store_true", help="print the mutants only")
    parser.add_argument("--limit", type=int, help="take every so many-th mutant, for about N in all")
    options = parser.parse_args()
    found = [m for file in options.files or every_file() for m in mutants(file, (ROOT / "kernels" / file).read_text())]
    if options.limit:
        found = found[:: max(1, len(found) // options.limit)]
    if options.list:
        print(*found, sep="\n")
        return 0
    excused = SURVIVORS.read_text() if SURVIVORS.exists() else ""
    for file in sorted({m.file for m in found}):
        if killed(Mutant(file, 0, "nothing changed", (ROOT / "kernels" / file).read_text())) is not False:
            raise SystemExit(f"the tests of {file} fail before anything is broken")
    verdicts = {}
    for mutant in found:
        verdicts[mutant] = killed(mutant)
        print({True: "killed  ", False: "SURVIVED", None: "stillborn"}[verdicts[mutant]], mutant, flush=True)
    counted = [m for m, verdict in verdicts.items() if verdict is not None]
    survivors = [m for m in counted if not verdicts[m]]
    unexplained = [m for m in survivors if str(m).split(": ", 1)[1] not in excused]
    share = 1 - len(survivors) / max(1, len(counted))
    print(f"{len(counted)} mutants, {100 * share:.1f} % killed; {len(unexplained)} survivors without a reason")
    return int(share < 0.95 or bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
