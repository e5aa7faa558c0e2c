"""Builds the emulator and kernel files for it with g++, once each, into the folder `DLCORE_CACHE_DIR/simt`.

`libdlsimt.so` is the runtime, `libcuda_sim.so` the fake driver; each kernel file becomes one `.so` per mode.
A product's name holds a hash of all that goes into it; it appears by a rename, and a process that needs it waits for
the one that builds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from dlcore import settings
from dlcore.errors import BackendError, KernelError

_PACKAGE = Path(__file__).parents[1]
MODES = ("fast", "checked")
STACK_BYTES = 64 * 1024  # csrc/simt/fiber.h; a kernel's own variables may take half of it

COMMON = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math"]
RUNTIME = [*COMMON, "-O2", "-pthread", "-fno-semantic-interposition", "-fno-plt", "-Wl,-Bsymbolic"]
KERNEL = [
    *COMMON,
    "-g1",
    "-DDL_SIM",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
    f"-Werror=frame-larger-than={STACK_BYTES // 2}",
    "-fno-optimize-sibling-calls",  # the address that a barrier returns to is its place
    "-fno-plt",
    "-fno-gnu-unique",  # shared arrays of two images are two
    "-fno-semantic-interposition",
]
MODE = {
    "fast": ["-O2", "-ftree-vectorize"],
    "checked": [  # a call before each access, and accesses as they are written: neither split, merged nor vectorised
        "-O1",
        "-fsanitize=thread",
        "--param=tsan-instrument-func-entry-exit=0",
        "-fsanitize=bounds,shift,signed-integer-overflow,integer-divide-by-zero",
        "-fno-tree-sra",
        "-fno-ipa-sra",
        "-fno-tree-vectorize",
        "-fno-tree-slp-vectorize",
        "-fno-tree-loop-distribute-patterns",
    ],
}


def kernel_sources() -> Path:
    """Folder of the kernel files: `kernels/` of the source tree, or the copy in an installed package."""
    return _first_folder(_PACKAGE.parent / "kernels", _PACKAGE / "kernels")


def runtime_sources() -> Path:
    """Folder of the emulator's C++ sources."""
    return _first_folder(_PACKAGE.parent / "csrc" / "simt", _PACKAGE / "sim" / "csrc")


def driver() -> Path:
    """Path of the fake driver library; the runtime lies beside it. Both are built if need be.

    Raises:
        BackendError: there is no C++ compiler.
        KernelError: the emulator does not compile.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libcuda_sim.so"
    with _missing(library) as scratch:
        if scratch:
            _build_runtime(folder, scratch)
    return library


def kernel(source: Path, mode: str = "fast", defines: Iterable[str] = ()) -> Path:
    """Path of the image of a kernel file, compiled if need be: `cuModuleLoadData` takes the text `SIMT:<path>`.

    Args:
        source: a `.cu` file.
        mode: "fast", or "checked": with a call of the emulator before each access to memory.
        defines: macros, as `NAME=VALUE`.

    Raises:
        BackendError: there is no C++ compiler.
        KernelError: the file does not compile; the message holds the compiler's first error.
    """
    runtime = driver().parent
    flags = [*KERNEL, *MODE[mode], *_native(), *(f"-D{define}" for define in defines)]
    image = runtime / f"{source.stem}-{mode}-{_hash(_inputs(source), flags)}.so"
    with _missing(image) as folder:
        if folder:
            assembly = folder / "kernel.s"
            _compile([*flags, *_includes(source), "-S", "-x", "c++", str(source), "-o", str(assembly)], source.name)
            assembly.write_text(place_shared_arrays(assembly.read_text()))
            product = folder / image.name
            link = ["-shared", str(assembly), "-o", str(product), "-Wl,-rpath,$ORIGIN", "-Wl,-z,now,-z,defs"]
            _compile([*link, f"-L{runtime}", "-l:libdlsimt.so"], source.name)
            product.replace(image)
    return image


# ---- static shared arrays

_COMMON_BLOCK = re.compile(r"^\t\.local\t(_ZZ[\w.$]+)\n\t\.comm\t\1,(\d+),(\d+)\n", re.MULTILINE)
_IN_BSS = re.compile(
    r"^\t\.section\t\.bss\.(_ZZ[\w.$]+),[^\n]*\n(?:\t\.align \d+\n)?((?:\t\.type[^\n]*\n|\t\.size[^\n]*\n)*)\1:\n"
    r"\t\.zero\t(\d+)\n",
    re.MULTILINE,
)
_FUNCTION = re.compile(r"^\t\.type\t([\w.$]+), @function\n", re.MULTILINE)
_MANGLED = re.compile(r"_Z[\w.$]+")
REDZONE = 64  # bytes between two arrays, never touched by a correct kernel


def place_shared_arrays(assembly: str) -> str:
    """The assembly with the static `__shared__` arrays apart from each other, and a table of them for each kernel.

    A kernel's table, `simt_shared_of_<kernel>`, lists address, bytes and symbol of the arrays that the kernel, or a
    function that it calls, refers to; a null address ends it.
    """
    sizes: dict[str, int] = {}

    def place(name: str, size: str) -> str:
        sizes[name] = int(size)
        return (
            f"\t.pushsection .bss\n\t.balign 128\n\t.zero {REDZONE}\n\t.balign 128\n\t.type {name}, @object\n"
            f"\t.size {name}, {size}\n{name}:\n\t.zero {size}\n\t.zero {REDZONE}\n\t.popsection\n"
        )

    assembly = _COMMON_BLOCK.sub(lambda m: place(m[1], m[2]), assembly)
    assembly = _IN_BSS.sub(lambda m: f"\t.section .bss\n{place(m[1], m[3])}", assembly)
    used = _arrays_used(assembly, set(sizes))
    tables = [_table(kernel, {a: sizes[a] for a in used.get(kernel, ())}) for kernel in _tables_wanted(assembly)]
    return assembly + "".join(tables)


def _tables_wanted(assembly: str) -> list[str]:
    return sorted(set(re.findall(r"\bsimt_shared_of_(\w+)", assembly)))


def _arrays_used(assembly: str, arrays: set[str]) -> dict[str, list[str]]:
    """Of each function, the arrays that it or a function it calls refers to."""
    starts = list(_FUNCTION.finditer(assembly))
    ends = [*(m.start() for m in starts[1:]), len(assembly)]
    names = {m[1]: set(_MANGLED.findall(assembly, m.end(), end)) for m, end in zip(starts, ends, strict=True)}
    for part in [n for n in names if n.endswith(".cold")]:  # the rarely executed part of a function
        names[part.removesuffix(".cold")] |= names[part]

    def reachable(function: str) -> set[str]:
        seen, new = {function}, {function}
        while new:
            new = set().union(*(names[f] for f in new)) & names.keys() - seen
            seen |= new
        return seen

    return {f: sorted(arrays & set().union(*(names[g] for g in reachable(f)))) for f in names if not f.startswith("_Z")}


def _table(kernel: str, arrays: dict[str, int]) -> str:
    rows = "".join(
        f'\t.quad {a}, {n}, 1f\n\t.pushsection .rodata\n1:\t.string "{a}"\n\t.popsection\n' for a, n in arrays.items()
    )
    return (
        f'\t.section .data.rel.local,"aw"\n\t.balign 8\n\t.globl simt_shared_of_{kernel}\n'
        f"\t.hidden simt_shared_of_{kernel}\nsimt_shared_of_{kernel}:\n{rows}\t.quad 0, 0, 0\n"
    )


# ---- compiler and cache


@cache
def compiler() -> str:
    """Path of g++, or of `$CXX`. Raises BackendError without one."""
    name = os.environ.get("CXX", "g++").split()[-1]  # "ccache g++": the cache is ours
    path = shutil.which(name)
    if path is None:
        raise BackendError(f"the CUDA emulator needs a C++ compiler: {name} not found (Debian: apt-get install g++)")
    return path


@cache
def _native() -> list[str]:
    """Flags for this machine's instructions, if the compiler knows them: fmaf is slow without FMA.

    Not AVX-512: vectors of 64 bytes make frames of kernels larger than a fiber's stack allows.
    """
    for flags in (["-march=native", "-mno-avx512f"], ["-march=native"]):
        if not subprocess.run([compiler(), *flags, "-E", "-x", "c++", os.devnull], capture_output=True).returncode:
            return flags
    return []


@cache
def _toolchain() -> str:
    """What the compiler and the CPU flags predefine: differs whenever one of them does."""
    command = [compiler(), *_native(), "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _hash(files: Iterable[Path], flags: Iterable[str]) -> str:
    digest = hashlib.sha256(_toolchain().encode())
    for flag in flags:
        digest.update(flag.encode() + b"\0")
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _folder() -> Path:
    files = sorted(runtime_sources().iterdir())
    return Path(settings.get("CACHE_DIR")) / "simt" / _hash([*files, Path(__file__)], RUNTIME)


def _includes(source: Path) -> list[str]:
    return [f"-I{folder}" for folder in (*_header_folders(source), runtime_sources())]


def _header_folders(source: Path) -> list[Path]:
    return [source.parent, source.parent / "include", kernel_sources() / "include"]


_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.MULTILINE)


def _inputs(source: Path) -> list[Path]:
    """The file and the headers that it includes, directly or not (but the runtime's, which name its folder)."""
    found = [source]
    for file in found:  # which grows meanwhile
        paths = [[f / name for f in _header_folders(source)] for name in _INCLUDE.findall(file.read_text())]
        headers = [next((p for p in places if p.is_file()), None) for places in paths]
        found += [h for h in dict.fromkeys(headers) if h and h not in found]
    return found


def _build_runtime(folder: Path, scratch: Path) -> None:
    sources = sorted(runtime_sources().glob("*.cpp"))
    driver = [str(path) for path in sources if path.stem.startswith("driver")]
    own = [str(path) for path in sources if not path.stem.startswith("driver")]
    runtime, fake = scratch / "libdlsimt.so", scratch / "libcuda_sim.so"
    _compile([*RUNTIME, *_native(), "-shared", "-Wl,-soname,libdlsimt.so", *own, "-ldl", "-o", str(runtime)], "simt")
    link = ["-Wl,-rpath,$ORIGIN", f"-L{scratch}", "-l:libdlsimt.so", "-ldl", "-o", str(fake)]
    _compile([*RUNTIME, *_native(), "-shared", *driver, *link], "driver.cpp")
    runtime.replace(folder / runtime.name)
    fake.replace(folder / fake.name)


def _compile(arguments: list[str], what: str) -> None:
    environment = os.environ | {"LC_ALL": "C"}  # messages in English and ASCII
    done = subprocess.run([compiler(), *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise KernelError(f"{what} does not compile for the emulator: {_first_error(done.stderr)}")


def _first_error(output: str) -> str:
    lines = output.strip().splitlines() or ["the compiler said nothing"]
    return next((line for line in lines if "error: " in line or "undefined reference" in line), lines[0])


@contextmanager
def _missing(product: Path) -> Iterator[Path | None]:
    """A temporary folder to build `product` in, or None if it is there; a process that builds it is waited for."""
    if product.exists():
        yield None
        return
    with open(product.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if product.exists():
            yield None
            return
        with tempfile.TemporaryDirectory(prefix=".build-", dir=product.parent) as folder:
            yield Path(folder)


def _first_folder(*folders: Path) -> Path:
    for folder in folders:
        if folder.is_dir():
            return folder
    raise BackendError(f"the CUDA emulator's sources are missing: expected {folders[-1]}")
