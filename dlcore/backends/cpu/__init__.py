"""The `cpu` backend: NumPy arrays and the native kernels of `dlcore._C`; one file per kernel family."""

from __future__ import annotations

from dlcore.backends.numpy import NumpyBackend
from dlcore.errors import BackendError

try:
    from dlcore import _C  # type: ignore[attr-defined]
except ImportError:
    _C = None


class CpuBackend(NumpyBackend):
    """Arrays in host memory, computed by the C++ extension where it has a kernel."""

    name = "cpu"
    kernels = "cpu"


def load() -> CpuBackend:
    """The backend. Raises BackendError when the extension was not built."""
    if _C is None:
        raise BackendError(
            "backend cpu: the C++ extension is not built; install a C++17 compiler and run "
            "pip install --force-reinstall dlcore, or use DLCORE_BACKEND=numpy"
        )
    return CpuBackend()
