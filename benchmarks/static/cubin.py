"""Kernel files compiled by nvcc, with what ptxas says of each kernel; kept in the folder `DLCORE_CACHE_DIR/static`.

A product's name holds a hash of source, headers, options and compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dlcore import settings
from dlcore.backends.cuda import compiler
from dlcore.backends.cuda.options import OPTIONS
from dlcore.errors import BackendError, KernelError


class Resources(NamedTuple):
    """What a kernel needs: registers of a thread, static shared memory of a block, bytes of spilled registers."""

    registers: int
    shared: int
    spilled: int


class Cubin(NamedTuple):
    """Machine code of a kernel file for one architecture."""

    path: Path
    resources: dict[str, Resources]


def missing() -> str | None:
    """Which tool there is not, or None."""
    try:
        for name in ("nvcc", "ptxas", "nvdisasm"):
            tool(name)
    except BackendError as error:
        return str(error)
    return None


@cache
def tool(name: str) -> str:
    """Path of a program of the CUDA toolkit, on PATH or from PyPI. Raises BackendError when there is none."""
    packages = find_spec("nvidia")
    roots = [Path(p) for p in packages.submodule_search_locations or ()] if packages else []
    places = [shutil.which(name), *(str(p) for root in roots for p in sorted(root.glob(f"*/bin/{name}")))]
    found = next((place for place in places if place), None)
    if found is None:
        raise BackendError(f"{name} not found: install the CUDA toolkit, or pip install nvidia-cuda-{name}")
    return found


def run(*command: str) -> tuple[str, str]:
    """What a command writes to its two outputs. Raises KernelError with its first error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()
        error = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
        raise KernelError(f"{Path(command[0]).name}: {error}")
    return done.stdout, done.stderr


def ptx(module: str, architecture: int) -> Path:
    """PTX of `kernels/<module>.cu` for compute_<architecture>."""
    source = compiler.folder() / f"{module}.cu"
    options = [*OPTIONS, f"-arch=compute_{architecture}", f"-I{compiler.folder() / 'include'}"]

    def make(product: Path) -> None:
        run(tool("nvcc"), "-ptx", *options, str(source), "-o", str(product))

    return kept(f"{module}-{architecture}", ".ptx", [compiler.source(module), *OPTIONS, version()], make)


def cubin(module: str, architecture: int, only: Sequence[str] = ()) -> Cubin:
    """`kernels/<module>.cu` for sm_<architecture>, all its kernels or those named."""
    text = ptx(module, architecture)
    entries = [word for name in only for word in ("--entry", name)]

    def make(product: Path) -> None:
        said = run(tool("ptxas"), "-v", f"-arch=sm_{architecture}", *entries, str(text), "-o", str(product))
        product.with_suffix(".log").write_text("".join(said))
        product.with_suffix(".log").replace(path_of(name, ".log", key))

    name, key = f"{module}-{architecture}", [text.read_text(), version(), *only]
    product = kept(name, ".cubin", key, make)
    return Cubin(product, parse_log(product.with_suffix(".log").read_text()))


_FUNCTION = re.compile(
    r"Function properties for (\w+)\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads\n.*?Used (\d+) registers"
    r"(?:.*?, (\d+) bytes smem)?"
)


def parse_log(text: str) -> dict[str, Resources]:
    """Resources of each kernel from what `ptxas -v` says."""
    return {
        name: Resources(int(registers), int(shared or 0), int(stores) + int(loads))
        for name, stores, loads, registers, shared in _FUNCTION.findall(text)
    }


@cache
def version() -> str:
    """What nvcc calls itself."""
    return run(tool("nvcc"), "--version")[0]


def path_of(name: str, suffix: str, key: Sequence[str]) -> Path:
    """Where a product is kept that is made from the texts in `key`."""
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:20]
    return Path(settings.get("CACHE_DIR")) / "static" / f"{name}-{digest}{suffix}"


def kept(name: str, suffix: str, key: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The product of `make(path)`, which runs if there is none of this key; it appears complete or not at all."""
    path = path_of(name, suffix, key)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            product = Path(scratch, f"product{suffix}")
            make(product)
            os.replace(product, path)
    return path
