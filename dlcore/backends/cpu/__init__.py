"""The `cpu` backend: NumPy arrays and the native kernels of `dlcore._C`; one file per kernel family."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np

from dlcore import settings
from dlcore.backends.numpy import Array, NumpyBackend
from dlcore.errors import BackendError, KernelError
from dlcore.signature import Shape


class CpuBackend(NumpyBackend):
    """Arrays in host memory, computed by the C++ extension where it has a kernel."""

    name = "cpu"
    kernels = "cpu"

    def __init__(self) -> None:
        super().__init__()
        from dlcore import _C
        from dlcore.backends.cpu.cast import cast

        self._empty, self._cast = _C.empty, cast

    def full(self, shape: Shape, value: Any, dtype: Any) -> Array:
        """New filled array, of memory that freed ones leave."""
        out: Array = self._empty(shape, dtype)
        out.fill(value)
        return out

    def cast(self, array: Any, dtype: Any) -> Array:
        """Array or Python scalar in `dtype`; what is too large for a 16-bit float becomes infinite."""
        if type(array) is not np.ndarray:
            return super().cast(array, dtype)
        out: Array = self._cast(array, dtype)
        return out

    def fuse(self, lines: list[Any], values: list[Any], kept: list[int]) -> list[Any]:
        """Runs of element-wise lines as one each."""
        from dlcore.backends.cpu import fuse

        return fuse.fuse(lines, values, kept)


def load() -> CpuBackend:
    """The backend. Raises BackendError when the extension was not built, KernelError when it is an older one."""
    try:
        from dlcore import _C
    except ImportError:
        raise BackendError(
            "backend cpu: the C++ extension is not built; install a C++17 compiler and run "
            "pip install --force-reinstall dlcore, or use DLCORE_BACKEND=numpy"
        ) from None
    if settings.get("ISA"):
        _C.set_isa(settings.get("ISA"))
    if settings.get("NUM_THREADS"):
        _C.set_num_threads(settings.get("NUM_THREADS"))
    try:
        for family in pkgutil.iter_modules(__path__):
            importlib.import_module(f"{__name__}.{family.name}")
    except AttributeError as error:
        raise KernelError(f"backend cpu: the C++ extension is an older build, make it anew ({error})") from None
    return CpuBackend()
