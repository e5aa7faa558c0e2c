"""The `cuda` backend: CuPy arrays and the kernels of `kernels/*.cu`.

`launch.py` is the door to every kernel, `driver.py` what it needs of a machine, `compiler.py` makes binaries,
`device.py` is a real GPU, `ops_*.py` implement the op families. The `sim` backend is all of this but `device.py`.
"""

from __future__ import annotations

from typing import Any

from dlcore.errors import BackendError


def load() -> Any:
    """The backend. Raises BackendError saying what is missing."""
    try:
        import cupy
    except ImportError:
        raise BackendError("backend cuda needs CuPy and an NVIDIA GPU: pip install 'dlcore[cuda]'") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"backend cuda: CuPy is installed but finds no usable GPU ({error})") from None
    try:
        from dlcore.backends.cuda import device
    except ImportError as error:
        raise BackendError(f"backend cuda needs the C++ extension for its launcher ({error})") from None
    return device.load()
