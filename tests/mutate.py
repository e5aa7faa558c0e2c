"""Do the tests notice a broken kernel? `make mutate` breaks each kernel file in small ways and runs its tests.

python tests/mutate.py [FILE ...] [--list]

A mutant drops a barrier or a wait for asynchronous copies, takes a guard of bounds as passed, or swaps a pair of
indices. It is killed when a test fails, or does not end, under the checked emulator. One that compiles to the same
instructions counts for nothing. Exits with 1 when fewer than 95 of 100 are killed, or a survivor has no reason in
`tests/mutants_that_survive.txt`.

All mutants of a file are compiled together, each behind a switch: `a < b` becomes `(broken(7) || (a < b))`. The test
process is told which switch is on. Verdicts are kept in the folder `DLCORE_CACHE_DIR/mutants` until a kernel or a test
that they depend on changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from dlcore import settings
from dlcore.sim import build

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels"
SURVIVORS = ROOT / "tests" / "mutants_that_survive.txt"
SECONDS = 60  # and ten times what the tests take; a mutant that takes longer is killed

ATTENTION, CONV, GEMM, NORM, RECURRENT, SOFTMAX = (
    f"tests/test_cuda_{name}.py" for name in ("attention", "conv", "gemm", "norm", "recurrent", "softmax")
)
ASSIGN, BASICS, ELEMENTWISE, GATHER, HOST, SORT = (
    f"tests/test_cuda_{name}.py" for name in ("assign", "basics", "elementwise", "gather", "host", "sort")
)
TESTS = {
    "activation": [GEMM, "-k", "epilogues"],
    "attention_grad": [ATTENTION],
    "attention_grad_kv": [ATTENTION],
    "attention_tensor": [ATTENTION],
    "batch_norm": [NORM, "-k", "channel or nan or mean"],
    "bitonic": [SORT, "-k", "rows or first"],
    "conv": [CONV, "-k", "(geometries or tiles or strided) and not bfloat16"],
    "conv_mma": [CONV, "-k", "(geometries or tiles or strided) and float16"],
    "conv_patch": [CONV, "-k", "patches or tf32 or infinity"],
    "conv_patch_dw": [CONV, "-k", "patches or infinity"],
    "conv_tensor": [CONV, "-k", "(geometries or tiles or strided) and float16"],
    "conv_depthwise": [CONV, "-k", "depthwise or spoil or another"],
    "conv_direct": [CONV, "-k", "im2col or few"],
    "conv_simt": [CONV, "-k", "(geometries or tiles or strided) and not float16 and not bfloat16"],
    "copy": [BASICS, "-k", "copies or casts"],
    "cross_entropy": [SOFTMAX, HOST, "-k", "cross or positions or labels or range"],
    "divisor": ["tests/test_cuda_pool.py"],
    "elementwise": [BASICS, ELEMENTWISE, "-k", "broadcasts or between or where or quotients or bounds"],
    "exponentials": [SOFTMAX],
    "functions": [ELEMENTWISE, "-k", "quotients or predicates or corners"],
    "gather": [GATHER, HOST, SORT, ASSIGN, "-k", "(gather or range or refused or repeated or index) and not launch"],
    "gemm_ladder": [GEMM, "-k", "ladder"],
    "gemm_mma": [GEMM, "-k", "(edges or whole or splits or tf32) and not float32 and not float64"],
    "gemm_simt": [GEMM, "-k", "(edges or whole or splits) and float32"],
    "gemm_skinny": [GEMM, "-k", "few and not float16"],
    "gemm_skinny_tensor": [GEMM, "-k", "few and float16"],
    "gemm_tensor": [GEMM, "-k", "(edges or whole or splits or tf32) and not float32 and not float64"],
    "gru": [RECURRENT, "-k", "gru"],
    "lstm": [RECURRENT, "-k", "lstm"],
    "moments": [NORM],
    "multinomial": [SORT, "-k", "draws"],
    "philox": ["tests/test_cuda_random.py"],
    "recurrent": [RECURRENT, "-k", "rnn or gru"],
    "reduce": [BASICS, "tests/test_cuda_reduce_whole.py", "-k", "reductions or long or nan or each_kind"],
    "refuse": [HOST, "-k", "(range or first_position or refused) and not launch"],
    "rnn": [RECURRENT, "-k", "rnn"],
    "row": [SOFTMAX, NORM],
    "scan": ["tests/test_cuda_scan.py", SORT, "-k", "cuda_scan or recurrences or running"],
    "select": [ELEMENTWISE, "-k", "where or triangles"],
    "sort": [SORT, "-k", "rows or first or values or places or permutations"],
    "strided": [BASICS, "-k", "broadcasts or between or copies"],
    "targets": [ASSIGN, "-k", "one_hot or targets"],
    "types": [BASICS],
    "whole": [ELEMENTWISE, "-k", "whole or bools or bits"],
    "warp": [BASICS, "-k", "reductions or long or nan"],
}
"""What watches a kernel file; others have a test file of their name."""


# ---- what is broken


class Mutant(NamedTuple):
    """One change of a kernel file: of what stands from `start` to `end`."""

    file: str  # below kernels/
    line: int
    what: str
    start: int
    end: int
    broken: str  # what stands there instead
    switched: str  # what does either, by `SWITCH`

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"

    @property
    def number(self) -> int:
        """That its switch listens to."""
        return zlib.crc32(f"{self.file} {self.start} {self.what}".encode())


SWITCH = "dl_broken(@)"
PARENTHESES = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
ATOM = rf"[-!~*&]?(?:[\w.]|::|->|(?<=\w)<[\w:, ]*>|\[[^\[\]]*\]|{PARENTHESES})+"
OPERAND = rf"{ATOM}(?: [-+*/%] {ATOM})*"
COMPARISON = re.compile(rf"(?<![\w.]){OPERAND} (<|>|<=|>=) {OPERAND}")
CONSTANT = re.compile(r"(?:\b(?:[A-Z][A-Z0-9_]*|\d+|sizeof|int|Tile|Of|k[A-Z]\w*)\b|\(\w+\)|[-+*/%<>?:() ])+")
NUMBERS = re.compile(r"\bR\(|INFINITY|0\.0f|wide<T>\(")  # their comparison guards no memory
CHOSEN = re.compile(rf"if constexpr {PARENTHESES}")
ELSEWHERE = re.compile(r"//|^ *#|^ *X\(|static_assert|constexpr|template")  # before what no thread executes
LEAVES = re.compile(r"\bif \(.*\) (return|continue|break)\b")


def mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of a source text, in its order."""
    body = source.index("#include")
    found = [m for rule in (synchronisation, guards, index_pairs) for m in rule(source, body)]
    return [
        Mutant(file, source.count("\n", 0, start) + 1, f"{what} {_short(source[start:end])}", start, end, *texts)
        for what, start, end, *texts in sorted(found, key=lambda m: m[1])
        if not ELSEWHERE.search(CHOSEN.sub("", source[source.rfind("\n", 0, start) + 1 : start]))
    ]


Found = Iterator[tuple[str, int, int, str, str]]


def synchronisation(source: str, body: int) -> Found:
    """Barriers and waits for copies, which are dropped."""
    for m in re.finditer(r"(__sync(threads|warp)|(dl::)?(cp_async_wait<[^>]*>|grid_sync))\([^;]*\);", source):
        if m.start() > body:
            yield "drop", *m.span(), ";", f"{{ if (!{SWITCH}) {m[0]} }}"


def guards(source: str, body: int) -> Found:
    """Comparisons of whole numbers that decide whether to go on; the condition of a loop is none."""
    for m in COMPARISON.finditer(source, body):
        operands = [m[0][: m.start(1) - m.start() - 1], m[0][m.end(1) - m.start() + 1 :]]
        loop = source[: m.start()].endswith(("; ", "while (")) and source[m.end()] in ";)"
        if loop or NUMBERS.search(m[0]) or all(CONSTANT.fullmatch(x) for x in operands):
            continue
        if LEAVES.search(_line(source, m.start())):
            yield "never", *m.span(), "false", f"(!{SWITCH} && ({m[0]}))"
        else:
            yield "always", *m.span(), "true", f"({SWITCH} || ({m[0]}))"


def index_pairs(source: str, body: int) -> Found:
    """`[a][b]`, but extents of an array."""
    for m in re.finditer(r"(?=(\[([^\[\]]+)\]\[([^\[\]]+)\]))", source):
        if m.start() > body and m[2] != m[3] and not (CONSTANT.fullmatch(m[2]) and CONSTANT.fullmatch(m[3])):
            both = f"[{SWITCH} ? ({m[3]}) : ({m[2]})][{SWITCH} ? ({m[2]}) : ({m[3]})]"
            yield "swap", m.start(), m.end(1), f"[{m[3]}][{m[2]}]", both


def _line(source: str, at: int) -> str:
    return source[source.rfind("\n", 0, at) + 1 : source.find("\n", at)]


def _short(text: str) -> str:
    return " ".join(text.split())[:70]


# ---- files with switches


SWITCHES = """#pragma once
#include <stdlib.h>
static unsigned dl_chosen;
__attribute__((constructor, no_sanitize("thread"))) static void dl_choose() {
  const char* number = getenv("BROKEN");
  dl_chosen = number ? strtoul(number, nullptr, 10) : 0;
}
__attribute__((always_inline)) static inline bool dl_broken(unsigned switch_number) {
  unsigned chosen;
  asm("movl %1, %0" : "=r"(chosen) : "m"(dl_chosen));  // a read that the checks do not see
  return chosen == switch_number;
}
"""


def layers(found: list[Mutant]) -> list[list[Mutant]]:
    """A file's mutants in groups that do not overlap: `[a][b][c]` has two pairs."""
    made: list[list[Mutant]] = []
    for mutant in found:
        layer = next((layer for layer in made if layer[-1].end <= mutant.start), None)
        if layer is None:
            made.append(layer := [])
        layer.append(mutant)
    return made


def replaced(source: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """The text with parts of it changed, on the lines on which they stood."""
    for start, end, text in sorted(changes, reverse=True):
        source = source[:start] + text + "\\\n" * source.count("\n", start, end) + source[end:]
    return source


def write_switches(folder: Path, number: int) -> None:
    """The kernels with the mutants of one layer of every file."""
    shutil.copytree(KERNELS, folder)
    (folder / "include" / "switches.cuh").write_text(SWITCHES)
    for file in every_file():
        source = (KERNELS / file).read_text()
        for layer in layers(mutants(file, source))[number : number + 1]:
            text = replaced(source, [(m.start, m.end, m.switched.replace("@", f"{m.number}u")) for m in layer])
            (folder / file).write_text(text.replace("#include", '#include "switches.cuh"\n#include', 1))


# ---- verdicts


def watching(file: str) -> list[str]:
    """The arguments for pytest: the tests that watch a kernel file."""
    return TESTS.get(Path(file).stem, [f"tests/test_cuda_{Path(file).stem}.py"])


class Tests:
    """What watches a kernel file, run in a process of its own for each mutant."""

    def __init__(self, file: str, kernels: Path) -> None:
        self.arguments, self.kernels, self.output = watching(file), kernels, kernels / "output.txt"
        self.cache = kernels / "tests" / file  # where pytest keeps what failed last
        self.limit: float | None = None  # in seconds

    def fail(self, mutant: Mutant | None) -> bool:
        """Whether they fail, or take too long."""
        child = multiprocessing.get_context("fork").Process(target=self._run, args=(mutant.number if mutant else 0,))
        child.start()
        child.join(self.limit)
        if child.is_alive():
            child.kill()
            child.join()
        if child.exitcode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and child.exitcode >= 0:
            raise SystemExit(self.output.read_text())
        return child.exitcode != pytest.ExitCode.OK

    def _run(self, number: int) -> None:
        os.environ |= {"DLCORE_KERNELS": str(self.kernels), "DLCORE_SIM": "checked", "BROKEN": str(number)}
        with open(self.output, "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        options = ["-q", "-x", "--tb=line", "--failed-first", "-p", "no:xdist", "-o", f"cache_dir={self.cache}"]
        os._exit(pytest.main([*options, *self.arguments]))

    def check_unbroken(self) -> None:
        """They must pass, and may take ten times as long with a mutant."""
        self.fail(None)  # compiles
        start = time.monotonic()
        if self.fail(None):
            raise SystemExit(f"{self.arguments} fail before anything is broken:\n{self.output.read_text()}")
        self.limit = SECONDS + 10 * (time.monotonic() - start)


@cache
def including(file: str) -> list[Path]:
    """The kernel files that a header goes into; of a kernel file, itself."""
    inputs = {path: build._inputs(path) for path in sorted(KERNELS.glob("*.cu"))}
    return [path for path, files in inputs.items() if KERNELS / file in files]


def same_code(mutant: Mutant) -> bool:
    """Whether a mutant compiles to the instructions of the original."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "kernels")
        shutil.copytree(KERNELS, copy)
        source = (KERNELS / mutant.file).read_text()
        (copy / mutant.file).write_text(replaced(source, [(mutant.start, mutant.end, mutant.broken)]))
        return all(assembly(copy / path.name) == assembly(path) for path in including(mutant.file))


@cache
def assembly(path: Path) -> str:
    """What g++ makes of a kernel file."""
    flags = [f for f in build.KERNEL if f != "-g1"]
    includes = [f"-I{path.parent / 'include'}", f"-I{build.runtime_sources()}"]
    command = [build.compiler(), *flags, "-O2", *includes, "-S", "-x", "c++", str(path), "-o", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def key(mutant: Mutant) -> str:
    """Of all that a verdict depends on, but the launch code."""
    files = {f for path in including(mutant.file) for f in build._inputs(path)}
    files |= {ROOT / argument for argument in watching(mutant.file) if argument.endswith(".py")}
    parts = [mutant.file, str(mutant.number), *watching(mutant.file), *(f.read_text() for f in sorted(files))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


class Verdicts:
    """What was found out, in a file for each kernel file."""

    def __init__(self, file: str) -> None:
        self.path = Path(settings.get("CACHE_DIR")) / "mutants" / f"{Path(file).name}.json"
        self.known: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def keep(self, mutant: Mutant, verdict: str) -> str:
        """Write it down."""
        self.known[key(mutant)] = verdict
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known, indent=0))
        return verdict


def judged(file: str, scratch: Path) -> Iterator[tuple[Mutant, str]]:
    """Each mutant of a file with "killed", "SURVIVED" or "equal": its code is the original's."""
    verdicts = Verdicts(file)
    for number, layer in enumerate(layers(mutants(file, (KERNELS / file).read_text()))):
        known = {m: verdicts.known[key(m)] for m in layer if key(m) in verdicts.known}
        yield from known.items()
        if missing := [m for m in layer if m not in known]:
            kernels = scratch / f"layer{number}"
            if not kernels.exists():
                write_switches(kernels, number)
            tests = Tests(file, kernels)
            tests.check_unbroken()
            for mutant in missing:
                found_out = "killed" if tests.fail(mutant) else "equal" if same_code(mutant) else "SURVIVED"
                yield mutant, verdicts.keep(mutant, found_out)


def every_file() -> list[str]:
    """Kernel files and their headers, but for the emulator's own."""
    paths = [*KERNELS.glob("*.cu"), *(KERNELS / "include").glob("*.cuh")]
    return sorted(str(path.relative_to(KERNELS)) for path in paths if path.name != "dl.cuh")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files below kernels/ (default: all but dl.cuh)")
    parser.add_argument("--list", action="store_true", help="print the mutants only")
    options = parser.parse_args()
    files = options.files or every_file()
    if options.list:
        print(*(m for file in files for m in mutants(file, (KERNELS / file).read_text())), sep="\n")
        return 0
    counted, survivors = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            verdicts = []
            for mutant, verdict in judged(file, Path(scratch)):
                print(f"{verdict:8}", mutant, flush=True)
                verdicts.append(verdict)
                survivors += [mutant] if verdict == "SURVIVED" else []
            of_all = len(verdicts) - verdicts.count("equal")
            print(f"{file}: {verdicts.count('killed')} of {of_all} killed", flush=True)
            counted += of_all
    excused = SURVIVORS.read_text() if SURVIVORS.exists() else ""
    unexplained = [m for m in survivors if f"{m.file}: {m.what}" not in excused]
    share = 1 - len(survivors) / max(1, counted)
    print(f"{counted} mutants, {100 * share:.1f} % killed; {len(unexplained)} survivors without a reason")
    return int(share < 0.95 or bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
