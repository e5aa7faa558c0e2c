"""Python's face of the emulator: its controls, and kernel files launched on NumPy arrays without a backend.

Example:
    image = engine.Image(build.kernel(Path("kernels/softmax.cu")))
    image.launch("softmax_forward_f32", 4, 128, x, y, 10)
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dlcore.errors import ArgumentError, KernelError
from dlcore.sim import build

ORDERS = ("forward", "reverse", "random")
_SCALARS: dict[str, Any] = {
    "f": ctypes.c_float,
    "d": ctypes.c_double,
    "i": ctypes.c_int32,
    "l": ctypes.c_int64,
    "h": ctypes.c_int16,
    "b": ctypes.c_int8,
}


@cache
def library() -> ctypes.CDLL:
    """The fake driver: the `cu*` functions of libcuda, and the `dlsim_*` functions that control the emulator."""
    lib = ctypes.CDLL(str(build.driver()))
    lib.dlsim_signature.restype = ctypes.c_char_p
    lib.dlsim_signature.argtypes = [ctypes.c_void_p]
    lib.dlsim_schedule.argtypes = [ctypes.c_int, ctypes.c_uint64]
    lib.dlsim_launches.restype = ctypes.c_uint64
    lib.dlsim_live.restype = ctypes.c_size_t
    return lib


def check(code: int) -> None:
    """Raise KernelError with the driver's text unless `code` is 0; the emulator is usable again afterwards."""
    if code:
        text = ctypes.c_char_p()
        library().cuGetErrorString(code, ctypes.byref(text))
        message = (text.value or b"unknown error").decode()
        library().dlsim_clear_error()
        raise KernelError(message)


@contextmanager
def schedule(order: str, seed: int = 0) -> Iterator[None]:
    """Inside the block, threads and blocks run in this order: "forward", "reverse" or "random" (by `seed`).

    Copies by cp.async land as late as they may in "forward", as early in "reverse", either way in "random".
    """
    if order not in ORDERS:
        raise ArgumentError(f"schedule: expected one of {', '.join(ORDERS)}; got {order!r}")
    library().dlsim_schedule(ORDERS.index(order), seed)
    try:
        yield
    finally:
        library().dlsim_schedule(0, 0)


def launches() -> int:
    """How many launches there were in this process."""
    return int(library().dlsim_launches())


def live() -> int:
    """How many allocations, modules, streams and events of the driver are alive."""
    return int(library().dlsim_live())


class Image:
    """A compiled kernel file, loaded. Freed by `close()`."""

    def __init__(self, path: Path) -> None:
        self._module = ctypes.c_void_p()
        check(library().cuModuleLoadData(ctypes.byref(self._module), b"SIMT:" + str(path).encode()))

    def close(self) -> None:
        """Unload the file."""
        check(library().cuModuleUnload(self._module))

    def names(self) -> list[str]:
        """Names of the kernels in the file."""
        count = ctypes.c_uint()
        check(library().cuModuleGetFunctionCount(ctypes.byref(count), self._module))
        functions = (ctypes.c_void_p * count.value)()
        check(library().cuModuleEnumerateFunctions(functions, count, self._module))
        return sorted(_name(function) for function in functions if function)

    def signature(self, name: str) -> str:
        """One letter per parameter: P pointer, f float, d double, i l h b integers of 4, 8, 2, 1 bytes, s other."""
        return bytes(library().dlsim_signature(self._function(name))).decode()

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *arguments: Any,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run a kernel on NumPy arrays and numbers, to its end.

        Raises:
            ArgumentError: the arguments are not as many as the kernel's parameters, or of another kind.
            KernelError: the launch was refused or failed; the message names kernel, grid, block, thread, source line.
        """
        function, signature = self._function(name), self.signature(name)
        if len(arguments) != len(signature):
            raise ArgumentError(f"{name} takes {len(signature)} arguments ({signature}); got {len(arguments)}")
        values = [_value(name, letter, argument) for letter, argument in zip(signature, arguments, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        if shared > 48 * 1024:
            check(library().cuFuncSetAttribute(function, 8, shared))
        shape = [ctypes.c_uint(n) for n in (*_triple(grid), *_triple(block))]
        if cooperative:
            check(library().cuLaunchCooperativeKernel(function, *shape, shared, None, pointers))
        else:
            check(library().cuLaunchKernel(function, *shape, shared, None, pointers, None))

    def _function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        check(library().cuModuleGetFunction(ctypes.byref(function), self._module, name.encode()))
        return function


def _name(function: int) -> str:
    name = ctypes.c_char_p()
    check(library().cuFuncGetName(ctypes.byref(name), ctypes.c_void_p(function)))
    return (name.value or b"").decode()


def _value(kernel: str, letter: str, argument: Any) -> Any:
    if isinstance(argument, np.ndarray) != (letter == "P") or letter == "s":
        raise ArgumentError(f"{kernel}: expected {'an array' if letter == 'P' else letter}, got {argument!r}")
    return ctypes.c_void_p(argument.ctypes.data) if letter == "P" else _SCALARS[letter](argument)


def _triple(size: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes + (1,) * (3 - len(sizes))
