"""The `sim` backend: the cuda backend, launches included, over an emulator of the CUDA execution model."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dlcore import settings
from dlcore.errors import BackendError
from dlcore.signature import Shape


def load() -> Any:
    """The backend. Raises BackendError when the extension or a C++ compiler is missing."""
    try:
        from dlcore import _C
    except ImportError:
        raise BackendError("backend sim: the C++ extension is not built; install a C++17 compiler") from None
    from dlcore.backends.cuda import compiler
    from dlcore.backends.cuda.backend import CudaBackend
    from dlcore.backends.cuda.driver import Driver
    from dlcore.backends.cuda.graph import Graph
    from dlcore.backends.cuda.libcuda import Library
    from dlcore.sim import build, engine

    class SimDriver(Driver):
        """NumPy arrays as device memory; kernels compiled by g++ against the emulator."""

        name = "sim"
        array_type = np.ndarray
        xp = np
        native = _C.Driver(str(build.driver()))
        library = Library(str(build.driver()))
        _stream = 0
        _graph: Graph | None = None  # that keeps what is allocated

        def image(self, module: str) -> bytes:
            return f"SIMT:{build.kernel(compiler.path(module), settings.get('SIM'))}".encode()

        def built_for(self) -> str:
            return "for the emulator"

        def empty(self, shape: Shape, dtype: Any) -> Any:
            array = engine.empty(shape, dtype)
            if self._graph is not None:
                self._graph.kept.append(array)
            if settings.get("SIM") == "checked" and array.size:  # NaN: what reads it shows
                array.reshape(-1).view(np.uint8)[...] = 255
            return array

        def to_numpy(self, array: Any) -> Any:
            return array

        def stream(self) -> int:
            return self._stream

        @contextmanager
        def side_stream(self, graph: Graph) -> Iterator[int]:
            stream = ctypes.c_void_p()
            self.library.call("cuStreamCreate", ctypes.byref(stream), 0)
            self._stream, self._graph = int(stream.value or 0), graph
            try:
                yield self._stream
            finally:
                self._stream, self._graph = 0, None
                self.library.call("cuStreamDestroy_v2", stream)

        def address(self, array: Any) -> int:
            return int(array.__array_interface__["data"][0])

    return CudaBackend(SimDriver())
