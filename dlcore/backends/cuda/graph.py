"""CUDA graphs: launches recorded once and repeated by one call, at a fraction of their cost on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dlcore.errors import KernelError

if TYPE_CHECKING:
    from dlcore.backends.cuda.driver import Driver

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: the memory pool may grow meanwhile


class Graph:
    """What `Driver.capture` recorded. `kept` lives as long: the memory that the launches use."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._executable = driver, ctypes.c_void_p()
        self.kept: list[Any] = []

    def replay(self) -> None:
        """Run the launches again, in their order, on the current stream.

        Raises KernelError when nothing was recorded, or with the driver's own words.
        """
        if not self._executable:
            raise KernelError("this graph recorded nothing: the block of capture() has not ended, or it failed")
        self._driver.refusals.expect()
        self._driver.library.call("cuGraphLaunch", self._executable, ctypes.c_void_p(self._driver.stream()))

    def __del__(self) -> None:
        if self._executable:
            self._driver.library.call("cuGraphExecDestroy", self._executable)

    @contextmanager
    def recording(self, stream: int) -> Iterator[None]:
        """Record what goes to a stream inside the block."""
        handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
        call = self._driver.library.call
        call("cuStreamBeginCapture_v2", handle, RELAXED)
        try:
            yield
        except BaseException:
            self._driver.library.code("cuStreamEndCapture", handle, ctypes.byref(graph))
            self._driver.library.code("cuGraphDestroy", graph)
            raise
        call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            call("cuGraphDestroy", graph)
