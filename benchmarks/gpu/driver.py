"""What dlcore itself does not ask of the CUDA driver library: name, versions, the time between two events.

The emulator's library has the same functions, so none of this is new to a rehearsal.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from benchmarks import harness
from dlcore.dispatch import Backend

EMULATED = "emulated, not a GPU time"
REHEARSED_ROUNDS = 2


class Driver:
    """The library that a backend ("cuda" or "sim") launches through, and its device."""

    def __init__(self, backend: Backend) -> None:
        self._driver: Any = backend.driver  # type: ignore[attr-defined]
        self._call = self._driver.library.call
        self._start, self._stop = self._event(), self._event()
        self.rounds = REHEARSED_ROUNDS if backend.name == "sim" else harness.ROUNDS  # how often a time is taken

    def attribute(self, number: int) -> int:
        """CU_DEVICE_ATTRIBUTE_... of the device."""
        return int(self._driver.native.attribute(number))

    @property
    def name(self) -> str:
        """What the device is called."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), 0)
        return text.value.decode()

    @property
    def version(self) -> str:
        """The newest CUDA that the driver knows."""
        found = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(found))
        return f"{found.value // 1000}.{found.value % 1000 // 10}"

    @property
    def memory(self) -> int:
        """Bytes of the device."""
        found = ctypes.c_size_t()
        self._call("cuDeviceTotalMem_v2", ctypes.byref(found), 0)
        return found.value

    def seconds(self, f: Callable[[], Any], count: int) -> float:
        """Of one of `count` calls, between two events on the backend's stream."""
        stream = ctypes.c_void_p(self._driver.stream())
        self._call("cuEventRecord", self._start, stream)
        for _ in range(count):
            f()
        self._call("cuEventRecord", self._stop, stream)
        self._call("cuEventSynchronize", self._stop)
        found = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(found), self._start, self._stop)
        return 1e-3 * found.value / count

    def _event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        return event
