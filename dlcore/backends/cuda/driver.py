"""What the cuda backend asks of a machine: arrays, compiled kernels, streams. `CupyDriver` and `SimDriver` give it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from dlcore.backends.cuda.graph import Graph
from dlcore.backends.cuda.libcuda import Library
from dlcore.backends.cuda.refusals import Refusals
from dlcore.errors import KernelError
from dlcore.signature import Shape

Array = Any
MAX_SHARED_BY_DEFAULT = 48 * 1024  # bytes; more must be asked for, kernel by kernel
DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
MAX_SHARED = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN


class Driver:
    """A device with its arrays.

    native: the `_C.Driver`, or `libcuda.Driver`, that launches. library: its driver library, for the rest.
    """

    name: str
    array_type: Any
    xp: Any  # its array library, for references
    native: Any
    library: Library
    ordinal = 0  # of the device, as the driver library counts them

    def __init__(self) -> None:
        self._modules: dict[str, int] = {}
        self._functions: dict[tuple[str, str], Any] = {}
        self._shared: dict[tuple[str, str], int] = {}
        self.refusals = Refusals(self.empty, self.to_numpy)
        attribute = self.native.attribute
        self.multiprocessors = attribute(MULTIPROCESSORS)
        self.architecture = 10 * attribute(CAPABILITY_MAJOR) + attribute(CAPABILITY_MINOR)
        self.max_shared = attribute(MAX_SHARED)

    def image(self, module: str) -> bytes:
        """The compiled `kernels/<module>.cu` as the driver library takes it."""
        raise NotImplementedError

    def built_for(self) -> str:
        """What `image` is compiled for, for messages."""
        raise NotImplementedError

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """A new array whose elements are not set."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """An array's elements in host memory, once all work before has ended."""
        raise NotImplementedError

    def stream(self) -> int:
        """Handle of the stream that launches go to."""
        raise NotImplementedError

    def side_stream(self, graph: Graph) -> AbstractContextManager[int]:
        """Inside the block launches go to a stream that can be captured, and allocations are kept by `graph`."""
        raise NotImplementedError

    def address(self, array: Array) -> int:
        """Where an array begins in the memory of the device."""
        raise NotImplementedError

    def function(self, module: str, kernel: str, shared: int = 0) -> Any:
        """A kernel ready to launch with that much dynamic shared memory. Raises KernelError when there is none."""
        key = (module, kernel)
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = self._find(module, kernel)
        if shared > self._shared.get(key, MAX_SHARED_BY_DEFAULT):
            found.set_attribute(DYNAMIC_SHARED, shared)
            self._shared[key] = shared
        return found

    def _find(self, module: str, kernel: str) -> Any:
        try:
            if module not in self._modules:
                self._modules[module] = self.native.load(self.image(module))
            return self.native.function(self._modules[module], kernel)
        except RuntimeError as error:
            raise KernelError(f"kernel {kernel} of {module}.cu cannot be loaded: {error} {self.where()}") from None

    def where(self) -> str:
        """The device and what kernels are built for, for messages."""
        return f"[device sm_{self.architecture}, kernels {self.built_for()}]"

    def synchronize(self) -> None:
        """Wait for the device. Raises KernelError, and IndexRangeError for an index that a kernel refused."""
        try:
            self.native.synchronize()
        except RuntimeError as error:
            raise KernelError(f"{error} {self.where()}; DLCORE_DEBUG=1 names the kernel") from None
        self.refusals.check()

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Inside the block kernels are recorded, not run, to be repeated by `replay()` on the graph that it gives.

        They read and write the same arrays each time, and arrays made inside the block belong to the graph. Nothing
        inside may wait for the device, so kernels must have been loaded before.

        Raises KernelError with the driver's own words.
        """
        graph = Graph(self)
        with self.side_stream(graph) as stream, graph.recording(stream):
            yield graph
