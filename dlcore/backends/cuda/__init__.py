"""The `cuda` backend: CuPy arrays and the kernels of `kernels/*.cu`.

`launch.py` is the door to every kernel, `driver.py` what it needs of a machine, `compiler.py` makes binaries,
`device.py` is a real GPU, `ops_*.py` implement the op families. The `sim` backend is all of this but `device.py`.
"""

from __future__ import annotations

from typing import Any

from dlcore.errors import BackendError

OLDEST_CUPY = 14  # the first with NumPy 2's functions and with bfloat16


def load() -> Any:
    """The backend. Raises BackendError saying what is missing."""
    _check_cupy()
    from dlcore.backends.cuda import device

    try:
        return device.load()
    except RuntimeError as error:
        raise BackendError(f"backend cuda: {error}") from None


def _check_cupy() -> None:
    try:
        import cupy
    except ImportError as error:
        if getattr(error, "name", None) == "cupy":
            raise BackendError("backend cuda needs CuPy and an NVIDIA GPU: pip install 'dlcore[cuda]'") from None
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"backend cuda: CuPy is installed but cannot be imported ({reason})") from None
    if int(cupy.__version__.partition(".")[0]) < OLDEST_CUPY:
        raise BackendError(f"backend cuda needs CuPy {OLDEST_CUPY} or newer; this is {cupy.__version__}")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"backend cuda: CuPy is installed but finds no usable GPU ({error})") from None
