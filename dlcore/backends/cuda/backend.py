"""The backend of the op layer over a `Driver`: the same for a GPU and for the emulator."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np

from dlcore.backends.cuda.driver import Driver
from dlcore.backends.cuda.launch import drivers
from dlcore.backends.numpy import NumpyBackend


class CudaBackend(NumpyBackend):
    """Arrays of a driver, computed by `kernels/*.cu` where there is a kernel, else by references."""

    kernels = "cuda"

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.name = driver.name
        self.driver = driver
        self.array_type, self.xp = driver.array_type, driver.xp
        drivers[driver.array_type] = driver
        load_families()

    def cast(self, array: Any, dtype: Any) -> Any:
        """An array in `dtype`; a Python scalar stays on the host, so that kernels take it by value."""
        if type(array) in (bool, int, float):
            return dtype.type(array)
        return super().cast(array, dtype)

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        """An array on the host. Raises IndexRangeError for an index that a kernel refused."""
        host = self.driver.to_numpy(array)
        self.driver.refusals.check()
        return host

    def synchronize(self) -> None:
        """Wait for the device. Raises KernelError, and IndexRangeError for an index that a kernel refused."""
        self.driver.synchronize()


def load_families() -> None:
    """Import the files beside this one that register implementations."""
    package = importlib.import_module("dlcore.backends.cuda")
    for family in pkgutil.iter_modules(package.__path__):
        if family.name.startswith("ops_"):
            importlib.import_module(f"{package.__name__}.{family.name}")
