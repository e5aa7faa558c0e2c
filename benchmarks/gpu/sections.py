"""What a run consists of: its sections in order, for a GPU and for the rehearsal."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.gpu.section import Section, file_name
from benchmarks.static import cubin
from benchmarks.static.families import families

ROOT = Path(__file__).parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
GPU, EMULATOR = {"DLCORE_BACKEND": "cuda"}, {"DLCORE_BACKEND": "sim"}
CHECKED = EMULATOR | {"DLCORE_SIM": "checked"}
KERNEL = "kernel "  # how the names of sections begin that measure a family


def sections(folder: Path, rehearsal: bool) -> list[Section]:
    """All of them. What needs a tool that is not there is left out, with the reason."""
    environment = EMULATOR if rehearsal else GPU
    return [
        _module("environment", folder, 300, environment),
        Section("compile", _python("benchmarks.gpu.compile", *(["softmax"] if rehearsal else [])), 3600, environment),
        _tests(folder, rehearsal),
        *([_checked()] if rehearsal else map(_sanitizer, TOOLS)),
        *(_module(KERNEL + f.kernel, folder, 600, environment, "kernel", f.kernel) for f in families()),
        _module("overhead", folder, 300, environment),
        _demo(folder, rehearsal),
        _modelled(folder, rehearsal),
    ]


def broken(limit: float) -> list[Section]:
    """Sections that go wrong on purpose."""
    return [Section(way, _python("benchmarks.gpu.faults", way), limit) for way in ("fail", "crash", "hang")]


def result(folder: Path, name: str) -> Path:
    """The JSON file that a section writes."""
    return folder / f"{file_name(name)}.json"


def tests_file(folder: Path) -> Path:
    """The XML file that pytest writes."""
    return folder / "tests.xml"


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _module(
    name: str, folder: Path, limit: float, environment: dict[str, str], module: str = "", *arguments: str
) -> Section:
    command = _python(f"benchmarks.gpu.{module or name}", *arguments, str(result(folder, name)))
    return Section(name, command, limit, environment)


def _tests(folder: Path, rehearsal: bool) -> Section:
    """The op tests and the kernels' own. In a rehearsal a few of them."""
    chosen = ("tests/test_cuda_scan.py", "-k", "cumsum and float32 and 127") if rehearsal else ("tests", "-k", "cuda")
    options = (
        "-vv",
        "--tb=short",
        "-m",
        "not nvcc and not torch",
        "--max-worker-restart=1000",
        f"--junitxml={tests_file(folder)}",
    )
    workers = ("--numprocesses", "1" if rehearsal else "4")
    command = _python("pytest", "-p", "benchmarks.gpu.isolate", *options, *workers, *chosen)
    return Section("tests", command, 7200, EMULATOR if rehearsal else GPU)


def _sanitizer(tool: str) -> Section:
    """Every family under a tool of compute-sanitizer; API errors are the callers' own business, and they do ask."""
    options = ("--tool", tool, "--report-api-errors", "no", "--print-limit", "20", "--error-exitcode", "9")
    command = ("compute-sanitizer", *options, *_python("benchmarks.gpu.small"))
    missing = "" if shutil.which("compute-sanitizer") else "compute-sanitizer is not installed (CUDA toolkit)"
    return Section(tool, command, 3600, GPU, missing)


def _checked() -> Section:
    """The emulator's checked mode stands for compute-sanitizer."""
    return Section("memcheck", _python("benchmarks.gpu.small", "softmax_warp"), 600, CHECKED)


def _modelled(folder: Path, rehearsal: bool) -> Section:
    only = ("--only", "softmax_warp") if rehearsal else ()
    section = _module("modelled", folder, 3600, EMULATOR if rehearsal else GPU, "modelled", *only)
    return section._replace(left_out=cubin.missing() or "")


def _demo(folder: Path, rehearsal: bool) -> Section:
    short = ("--steps", "2", "--batch-size", "4") if rehearsal else ("--epochs", "2")
    command = (sys.executable, str(ROOT / "examples" / "fashion_mnist.py"), "--out", str(folder / "demo"), *short)
    return Section("demo", command, 1800, EMULATOR if rehearsal else GPU)
