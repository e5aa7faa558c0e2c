"""A real GPU: CuPy's arrays, memory pool and streams. The only file that calls CuPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from dlcore import _C, settings
from dlcore.backends.cuda import compiler
from dlcore.backends.cuda.backend import CudaBackend
from dlcore.backends.cuda.driver import Driver
from dlcore.op import Op
from dlcore.signature import Shape

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class CupyDriver(Driver):
    """The current CUDA device."""

    name = "cuda"
    array_type = cupy.ndarray
    xp = cupy

    def __init__(self) -> None:
        cupy.zeros(1)  # makes CuPy's context, the primary one, which the launcher shares
        self.native = _C.Driver(settings.get("LIBCUDA"), cupy.cuda.runtime.getDevice())
        attribute = self.native.attribute
        self.architecture = 10 * attribute(CAPABILITY_MAJOR) + attribute(CAPABILITY_MINOR)
        super().__init__()

    def image(self, module: str) -> bytes:
        """Fat binary or cubin."""
        return compiler.image(module, self.architecture)

    def empty(self, shape: Shape, dtype: Any) -> Any:
        """From CuPy's pool."""
        return cupy.empty(shape, dtype)

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        """A copy in host memory."""
        host: np.ndarray[Any, Any] = cupy.asnumpy(array)
        return host

    def stream(self) -> int:
        """CuPy's current stream."""
        return int(cupy.cuda.get_current_stream().ptr)

    def address(self, array: Any) -> int:
        """Device pointer."""
        return int(array.data.ptr)


class CupyBackend(CudaBackend):
    """`CudaBackend` with its arrays on the GPU."""

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        """Copy host data to the device."""
        if isinstance(data, cupy.ndarray):
            return cupy.array(data, dtype=dtype or data.dtype, copy=bool(copy))
        return cupy.asarray(super().asarray(data, dtype))

    def full(self, shape: Shape, value: Any, dtype: Any) -> Any:
        """New filled array."""
        return cupy.full(shape, value, dtype)

    def cast(self, array: Any, dtype: Any) -> Any:
        """Array in `dtype`; a Python scalar as a number of it."""
        if isinstance(array, cupy.ndarray):
            return array.astype(dtype, copy=False)
        return super().cast(array, dtype) if type(array) in (bool, int, float) else cupy.asarray(array, dtype)

    def reference(self, op: Op) -> Callable[..., Any]:
        """The reference over CuPy."""
        run = op.reference
        return lambda *arrays, **attrs: run(cupy, *arrays, **attrs)


def load() -> CupyBackend:
    """The backend of the current device."""
    return CupyBackend(CupyDriver())
