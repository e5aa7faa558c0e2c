"""Compiled kernels: the fat binaries of the wheel, else NVRTC with a cache on disk. One place, one set of options."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import re
import tempfile
from functools import cache
from pathlib import Path

from dlcore import settings
from dlcore.backends.cuda.options import ARCHITECTURES, OPTIONS
from dlcore.errors import KernelError

FATBINS = Path(__file__).resolve().parents[2] / "fatbin"
"""Fat binaries of the wheel, if it was built with nvcc."""

_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"\s*$', re.MULTILINE)


def folder() -> Path:
    """Where the kernels' sources are: `DLCORE_KERNELS`, else `dlcore/kernels` of a wheel or `kernels` of a checkout."""
    if settings.get("KERNELS"):
        return Path(settings.get("KERNELS"))
    package = Path(__file__).resolve().parents[2]
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


_added: dict[str, Path] = {}


def add(module: str, text: str) -> None:
    """Make CUDA C source a module of that name, as if it were a file of `folder()`."""
    file: Path = settings.get("CACHE_DIR") / "generated" / f"{module}.cu"
    write_whole(file, text.encode())
    _added[module] = file


def path(module: str) -> Path:
    """The file of a module."""
    return _added.get(module) or folder() / f"{module}.cu"


def modules() -> list[str]:
    """Names of the kernel files."""
    return sorted(path.stem for path in folder().glob("*.cu"))


def source(module: str) -> str:
    """`kernels/<module>.cu` with its headers put in place, each once. Raises KernelError when there is no such file."""
    file = path(module)
    if not file.is_file():
        raise KernelError(f"there is no kernels/{module}.cu")
    return _with_headers(file.read_text(), set())


def _with_headers(text: str, seen: set[str]) -> str:
    def header(match: re.Match[str]) -> str:
        file = folder() / "include" / match[1]
        if match[1] in seen or not file.is_file():
            return "" if match[1] in seen else match[0]
        seen.add(match[1])
        return f'#line 1 "{match[1]}"\n' + _with_headers(file.read_text(), seen)

    return _INCLUDE.sub(header, text)


def covers(architecture: int) -> bool:
    """Whether the fat binaries hold code that runs on a device of that compute capability."""
    return any(a // 10 == architecture // 10 and a <= architecture for a in ARCHITECTURES)


def _uses_fatbins(architecture: int) -> bool:
    return FATBINS.is_dir() and covers(architecture) and not settings.get("KERNELS")


def built_for(architecture: int) -> str:
    """What `image` gives to a device, for messages."""
    if _uses_fatbins(architecture):
        return f"built for {', '.join(f'sm_{a}' for a in ARCHITECTURES)}"
    return f"compiled by NVRTC for sm_{architecture}"


def image(module: str, architecture: int) -> bytes:
    """What the driver loads for a device of compute capability `architecture` (80 for 8.0).

    Raises KernelError when it has to be compiled and there is no NVRTC, or the file does not compile.
    """
    if _uses_fatbins(architecture) and (fatbin := FATBINS / f"{module}.fatbin").is_file():
        return fatbin.read_bytes()
    text = source(module)
    key = hashlib.sha256("\0".join([text, *OPTIONS, str(architecture), str(_nvrtc_version())]).encode()).hexdigest()
    cached: Path = settings.get("CACHE_DIR") / "cubin" / f"{module}-{architecture}-{key[:24]}.cubin"
    if not cached.is_file():
        write_whole(cached, compile_with_nvrtc(text, module, architecture))
    return cached.read_bytes()


def write_whole(path: Path, data: bytes) -> None:
    """Write at once or not at all: another process may want the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(name, path)


@cache
def _nvrtc() -> ctypes.CDLL:
    for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", *_nvrtc_of_packages()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise KernelError("no compiled kernels in this install and no NVRTC to compile them: pip install nvidia-cuda-nvrtc")


def _nvrtc_of_packages() -> list[str]:
    import importlib.util

    found = importlib.util.find_spec("nvidia")
    roots = found.submodule_search_locations if found and found.submodule_search_locations else []
    return [str(path) for root in roots for path in sorted(Path(root).rglob("libnvrtc.so.*"))]


@cache
def _nvrtc_version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


def _check(code: int, what: str) -> None:
    if code:
        _nvrtc().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise KernelError(f"{what}: {_nvrtc().nvrtcGetErrorString(code).decode()}")


def compile_with_nvrtc(text: str, module: str, architecture: int) -> bytes:
    """A cubin of CUDA C source for sm_<architecture>. Raises KernelError with the compiler's first error."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    options = [*OPTIONS, f"--gpu-architecture=sm_{architecture}"]
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{module}.cu".encode(), 0, None, None),
        "nvrtcCreateProgram",
    )
    try:
        encoded = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        if nvrtc.nvrtcCompileProgram(program, len(options), encoded):
            raise KernelError(f"{module}.cu does not compile for sm_{architecture}: {_first_error(program)}")
        return _fetched(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _fetched(program: ctypes.c_void_p, size_of: ctypes._NamedFuncPointer, get: ctypes._NamedFuncPointer) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "nvrtc")
    buffer = ctypes.create_string_buffer(size.value)
    _check(get(program, buffer), "nvrtc")
    return buffer.raw


def _first_error(program: ctypes.c_void_p) -> str:
    log = _fetched(program, _nvrtc().nvrtcGetProgramLogSize, _nvrtc().nvrtcGetProgramLog).decode(errors="replace")
    return next((line for line in log.splitlines() if "error" in line), log[:200])
