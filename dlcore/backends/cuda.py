"""The `cuda` backend: CuPy arrays and the kernels of `kernels/*.cu`."""

from __future__ import annotations

from typing import NoReturn

from dlcore.errors import BackendError


def load() -> NoReturn:
    """Raises BackendError saying what is missing."""
    try:
        import cupy
    except ImportError:
        raise BackendError("backend cuda needs CuPy and an NVIDIA GPU: pip install 'dlcore[cuda]'") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"backend cuda: CuPy is installed but finds no usable GPU ({error})") from None
    raise BackendError(f"backend cuda: {count} GPU found, but this version of dlcore ships no CUDA kernels yet")
