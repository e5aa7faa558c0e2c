"""libcuda by ctypes: what is called too rarely for C++, and a launcher for installs without the C++ extension.

`Driver` and `Function` have the methods of `_C.Driver` and `_C.Function`, and take longer for a launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from dlcore.errors import KernelError

Dims = tuple[int, ...]


class Library:
    """A CUDA driver library, or one that stands in for it. Raises KernelError when it cannot be loaded."""

    def __init__(self, path: str) -> None:
        try:
            self._functions = ctypes.CDLL(path)
        except OSError as error:
            raise KernelError(str(error)) from None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function by its true name. Raises KernelError with the driver's own words."""
        code = self.code(name, *arguments)
        if code:
            text = ctypes.c_char_p()
            self._functions.cuGetErrorString(code, ctypes.byref(text))
            raise KernelError(f"{name}: {(text.value or b'unknown error').decode()} (CUDA error {code})")

    def code(self, name: str, *arguments: Any) -> int:
        """What a function returns: 0 for success."""
        return int(getattr(self._functions, name)(*arguments))


class Driver:
    """The primary context of one device."""

    def __init__(self, path: str, device: int = 0) -> None:
        self.library = Library(path)
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self.library.call("cuInit", 0)
        self.library.call("cuDeviceGet", ctypes.byref(self._device), device)
        self.library.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self.library.call("cuCtxSetCurrent", context)

    def attribute(self, which: int) -> int:
        """A CU_DEVICE_ATTRIBUTE."""
        value = ctypes.c_int()
        self.library.call("cuDeviceGetAttribute", ctypes.byref(value), which, self._device)
        return value.value

    def load(self, image: bytes) -> int:
        """A module of a fatbin, cubin or PTX image."""
        module = ctypes.c_void_p()
        self.library.call("cuModuleLoadData", ctypes.byref(module), image)
        return int(module.value or 0)

    def function(self, module: int, name: str) -> Function:
        """A kernel of a module."""
        return Function(self.library, module, name)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.library.call("cuCtxSynchronize")


class Function:
    """One kernel of a module. `sizes` are the bytes of its parameters."""

    def __init__(self, library: Library, module: int, name: str) -> None:
        self.name, self._library, self._handle = name, library, ctypes.c_void_p()
        library.call("cuModuleGetFunction", ctypes.byref(self._handle), ctypes.c_void_p(module), name.encode())
        self.sizes = self._parameter_sizes()

    def _parameter_sizes(self) -> list[int]:
        sizes: list[int] = []
        offset, size = ctypes.c_size_t(), ctypes.c_size_t()
        while not self._library.code(
            "cuFuncGetParamInfo", self._handle, ctypes.c_size_t(len(sizes)), ctypes.byref(offset), ctypes.byref(size)
        ):
            sizes.append(size.value)
        return sizes

    def attribute(self, which: int) -> int:
        """A CU_FUNC_ATTRIBUTE."""
        value = ctypes.c_int()
        self._library.call("cuFuncGetAttribute", ctypes.byref(value), which, self._handle)
        return value.value

    def set_attribute(self, which: int, value: int) -> None:
        """Set a CU_FUNC_ATTRIBUTE."""
        self._library.call("cuFuncSetAttribute", self._handle, which, value)

    def blocks_per_multiprocessor(self, threads: int, shared: int) -> int:
        """How many blocks of so many threads and bytes of dynamic shared memory a multiprocessor holds."""
        blocks = ctypes.c_int()
        call = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
        self._library.call(call, ctypes.byref(blocks), self._handle, threads, ctypes.c_size_t(shared))
        return blocks.value

    def launch(
        self, grid: Dims, block: Dims, shared: int, stream: int, cooperative: bool, touched: Sequence[Any] | None,
        *arguments: Any,
    ) -> None:  # fmt: skip
        """Run the kernel. arguments: arrays with `data.ptr`, None, ints, floats, and bytes (structs by value)."""
        if len(arguments) != len(self.sizes):
            raise TypeError(f"{self.name}: takes {len(self.sizes)} arguments; got {len(arguments)}")
        values = [self._value(i, *pair) for i, pair in enumerate(zip(arguments, self.sizes, strict=True))]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        shape = [ctypes.c_uint(n) for n in (*_triple(grid), *_triple(block), shared)]
        name, extra = ("cuLaunchCooperativeKernel", ()) if cooperative else ("cuLaunchKernel", (None,))
        self._library.call(name, self._handle, *shape, ctypes.c_void_p(stream), pointers, *extra)

    def _value(self, i: int, argument: Any, size: int) -> Any:
        value = _as_c(argument, size)
        if ctypes.sizeof(value) != size:
            raise TypeError(f"{self.name}: argument {i} has {ctypes.sizeof(value)} bytes but the kernel takes {size}")
        return value


def _as_c(argument: Any, size: int) -> Any:
    if argument is None or hasattr(argument, "data"):
        return ctypes.c_void_p(None if argument is None else argument.data.ptr)
    if isinstance(argument, bytes):
        return ctypes.create_string_buffer(argument, len(argument))
    if isinstance(argument, float):
        return (ctypes.c_double if size == 8 else ctypes.c_float)(argument)
    return (ctypes.c_int64 if size == 8 else ctypes.c_uint32)(argument)


def _triple(dims: Dims) -> Dims:
    return dims + (1,) * (3 - len(dims))
