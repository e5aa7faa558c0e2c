"""The one table of `DLCORE_*` environment variables, read and checked when first needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dlcore.errors import SettingError

BACKENDS = ("auto", "cuda", "cpu", "numpy", "sim")
PREFIX = "DLCORE_"


class Setting(NamedTuple):
    """One variable: its default, how its text is parsed, what it does."""

    default: str
    parse: Callable[[str], Any]
    doc: str


def _choice(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"expected one of {', '.join(values)}{_nearest(text, values)}")
        return text

    return parse


def _nearest(word: str, known: tuple[str, ...]) -> str:
    import difflib

    match = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {match[0]}?" if match else ""


def _flag(text: str) -> bool:
    if text not in ("0", "1", ""):
        raise ValueError("expected 0 or 1")
    return text == "1"


def _threads(text: str) -> int:
    count = int(text) if text.isdigit() else -1
    if not 0 <= count <= 1024:
        raise ValueError("expected a number of threads from 0 (all cores) to 1024")
    return count


def _variants(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in text.split(",") if item]
    if any(not op or not variant for op, _, variant in pairs):
        raise ValueError("expected OP=VARIANT[,OP=VARIANT...]")
    return {op: variant for op, _, variant in pairs}


TABLE: dict[str, Setting] = {
    "BACKEND": Setting("auto", _choice(*BACKENDS), "default device: auto, cuda, cpu, numpy or sim"),
    "STRICT": Setting("0", _flag, "1: an op without a native kernel raises instead of running its reference"),
    "DEBUG": Setting("0", _flag, "1: check every op's output for shape, dtype and NaN"),
    "CACHE_DIR": Setting("", lambda s: Path(s or "~/.cache/dlcore").expanduser(), "compiled kernels and data sets"),
    "DATA": Setting("", lambda s: Path(s).expanduser() if s else None, "folder where data sets are looked for first"),
    "NUM_THREADS": Setting("0", _threads, "threads of the cpu backend; 0: all cores"),
    "KERNELS": Setting("", lambda s: Path(s).expanduser() if s else None, "folder of other CUDA kernels' sources"),
    "LIBCUDA": Setting("libcuda.so.1", str, "the CUDA driver library of the cuda backend"),
    "SIM": Setting("fast", _choice("fast", "checked"), "kernels of the sim backend: fast, or checked at every access"),
    "ISA": Setting("", _choice("", "avx512", "avx2", "baseline"), "instruction set of the cpu backend; empty: best"),
    "VARIANT": Setting("", _variants, "forced kernel variants, OP=VARIANT,..."),
    "AUTOTUNE": Setting("0", _flag, "1: times a few ways to run a matrix product on the GPU and keeps the quickest"),
    "BUILD": Setting("", _choice("", "require", "never"), "at install: whether the C++ extension must be built"),
    "ISAS": Setting("", str, "at install: instruction sets to build, e.g. avx2,baseline; empty: all"),
    "FATBIN": Setting("0", _flag, "at install: 1 compiles the CUDA kernels with nvcc into the wheel"),
    "SANITIZE": Setting("", str, "at install: sanitizers of the C++ extension, e.g. address,undefined"),
}


@cache
def get(name: str) -> Any:
    """Value of `DLCORE_<name>`, parsed. Raises SettingError for a bad value or any unknown `DLCORE_*` name."""
    _reject_unknown_names()
    setting = TABLE[name]
    text = os.environ.get(PREFIX + name, setting.default)
    try:
        return setting.parse(text)
    except ValueError as error:
        raise SettingError(f"{PREFIX}{name}={text}: {error}") from None


def _reject_unknown_names() -> None:
    known = tuple(PREFIX + name for name in TABLE)
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            raise SettingError(f"unknown environment variable {name}{_nearest(name, known)}")
