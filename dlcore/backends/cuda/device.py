"""A real GPU: CuPy's arrays, memory pool and streams. The only file that calls CuPy (and `__init__.py`, to find it)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

from dlcore import settings
from dlcore.backends.cuda import compiler, libcuda
from dlcore.backends.cuda.backend import CudaBackend
from dlcore.backends.cuda.driver import Driver
from dlcore.backends.cuda.graph import Graph
from dlcore.signature import Shape


def launcher() -> Any:
    """The class that launches: of the C++ extension, or, where that is not built, slower in Python."""
    try:
        from dlcore import _C
    except ImportError:
        return libcuda.Driver
    return _C.Driver


class CupyDriver(Driver):
    """The current CUDA device."""

    name = "cuda"
    array_type = cupy.ndarray
    xp = cupy

    def __init__(self) -> None:
        cupy.zeros(1)  # makes CuPy's context, the primary one, which the launcher shares
        path = settings.get("LIBCUDA")
        self.library = libcuda.Library(path)
        self.ordinal = int(cupy.cuda.runtime.getDevice())
        self.native = launcher()(path, self.ordinal)
        super().__init__()

    def image(self, module: str) -> bytes:
        """Fat binary or cubin."""
        return compiler.image(module, self.architecture)

    def built_for(self) -> str:
        """Architectures of the fat binaries, or NVRTC's."""
        return compiler.built_for(self.architecture)

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

    @contextmanager
    def side_stream(self, graph: Graph) -> Iterator[int]:
        """A stream of its own, and a memory pool that the graph keeps."""
        pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.get_current_stream().synchronize()  # what the launches will read is there
        graph.kept += [pool, stream]
        with cupy.cuda.using_allocator(pool.malloc), stream:
            yield stream.ptr

    def address(self, array: Any) -> int:
        """Device pointer."""
        return int(array.data.ptr)


class CupyBackend(CudaBackend):
    """`CudaBackend` with its arrays on the GPU."""

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        """Copy host data to the device, through CuPy's page-locked buffers, without waiting for it."""
        if isinstance(data, cupy.ndarray):
            return data.astype(dtype or data.dtype, copy=bool(copy))
        return cupy.asarray(super().asarray(data, dtype))

    def full(self, shape: Shape, value: Any, dtype: Any) -> Any:
        """New filled array."""
        return cupy.full(shape, value, dtype)

    def cast(self, array: Any, dtype: Any) -> Any:
        """Array in `dtype`; a Python scalar as a number of it."""
        if isinstance(array, cupy.ndarray):
            return array.astype(dtype, copy=False)
        return super().cast(array, dtype) if type(array) in (bool, int, float) else cupy.asarray(array, dtype)

    def fuse(self, lines: list[Any], values: list[Any], kept: list[int]) -> list[Any]:
        """Runs of launches as CUDA graphs."""
        from dlcore.backends.cuda.replay import with_graphs

        return with_graphs(self.driver, lines, kept)

    def operand(self, array: Any) -> Any:
        """CuPy's functions take no NumPy scalars in an array's place."""
        return super().operand(cupy.asarray(array) if isinstance(array, np.generic) else array)


def load() -> CupyBackend:
    """The backend of the current device."""
    return CupyBackend(CupyDriver())
