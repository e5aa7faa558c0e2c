"""What is installed, which backend is used, and which path each op takes on it."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import platform
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import dlcore  # noqa: F401  (fills the op table)
from dlcore import dtypes, settings, testing
from dlcore.backends.cuda import libcuda
from dlcore.dispatch import Backend, Call, get_backend, promotion, variants
from dlcore.errors import BackendError
from dlcore.op import OPS, Op

PACKAGES = (
    "dlcore",
    "numpy",
    "ml_dtypes",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "numba",
    "safetensors",
    "tqdm",
    "tensorboardX",
    "matplotlib",
    "torch",
)


def environment() -> Iterator[str]:
    """Versions and settings, one per line."""
    yield f"python {platform.python_version()} on {platform.platform()} ({platform.machine()})"
    for name in PACKAGES:
        yield f"{name} {_version(name)}"
    for name, setting in settings.TABLE.items():
        given = os.environ.get(settings.PREFIX + name)
        shown = f"default {setting.default or '(empty)'}" if given is None else f"set to {given!r}"
        yield f"{settings.PREFIX}{name}: {shown}; {setting.doc}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def report(device: str | None = None, every_op: bool = False) -> Iterator[str]:
    """Backends with what they lack, then the path of each op on `device`. Raises BackendError for one not usable."""
    chosen = get_backend(device or settings.get("BACKEND"))
    for name in settings.BACKENDS[1:]:
        yield f"{'*' if name == chosen.name else ' '} {name:6} {_state(name)}"
    if chosen.name == "cpu":
        yield f"  {_cpu()}"
    if chosen.kernels == "cuda":
        yield f"  {_gpu(chosen)}"
    yield ""
    yield from _per_op(chosen) if every_op else _by_path(chosen)


def _state(name: str) -> str:
    try:
        get_backend(name)
    except BackendError as error:
        return str(error).removeprefix(f"backend {name}: ")
    return "ready"


def _cpu() -> str:
    from dlcore import _C

    return f"instruction set {_C.isa()} of {', '.join(_C.available_isas())}; {_C.num_threads()} threads"


def _gpu(backend: Any) -> str:
    driver = backend.driver
    launcher = "Python (the C++ extension is not built)" if isinstance(driver.native, libcuda.Driver) else "C++"
    return f"{driver.multiprocessors} multiprocessors {driver.where()}; launches through {launcher}"


def path(op: Op, backend: Backend) -> tuple[str, list[str]]:
    """Variant that takes the op's first float32 sample on a backend, and why faster ones refused it.

    "view" where there is nothing to run.
    """
    refused: list[str] = []
    for variant in variants(op.name, backend.kernels):
        reason = variant.refuse(_example(op, backend)) if variant.refuse else None
        if reason is None:
            return variant.name, refused
        refused.append(f"{variant.name}: {reason}")
    return "view" if op.only_views(op.arity) else "reference", refused


def _example(op: Op, backend: Backend) -> Call:
    s = testing.samples(op)[0]
    arrays = testing.arrays(op, s, dtypes.float32)
    shapes = [None if x is None else getattr(x, "shape", ()) for x in arrays]
    attrs = {**op.attrs, **s.attrs}
    dims, _ = op.resolve(shapes, attrs)
    promoted, _ = promotion(op, [*arrays, *(None,) * (op.arity - len(arrays))])
    return Call(op, tuple(shapes), promoted, dims, attrs, backend)


def op_table() -> Iterator[str]:
    """Every op as a Markdown table: signature with attributes, whether it has a gradient, what it computes."""
    yield "# Ops"
    yield ""
    yield "Made by `python -m dlcore ops > docs/ops.md`; `docs/design.md` says how to read a signature."
    yield ""
    yield "| op | signature | attributes | gradient | |"
    yield "|---|---|---|---|---|"
    for op in OPS.values():
        attrs = ", ".join(
            name if value is inspect.Parameter.empty else f"{name}={value!r}" for name, value in op.attrs.items()
        )
        first = op.doc.partition("\n")[0].replace("|", "\\|")
        yield f"| {op.name} | `{op.signature}` | {attrs} | {'yes' if op.vjp else ''} | {first} |"


def _per_op(backend: Backend) -> Iterator[str]:
    for op in OPS.values():
        variant, refused = path(op, backend)
        why = f"   (refused: {'; '.join(refused)})" if refused else ""
        yield f"{op.name:24} {variant}{why}"


def _by_path(backend: Backend) -> Iterator[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for op in OPS.values():
        groups[path(op, backend)[0]].append(op.name)
    for variant, names in groups.items():
        yield f"{variant} ({len(names)} ops)"
        yield textwrap.fill(" ".join(names), 110, initial_indent="    ", subsequent_indent="    ")
