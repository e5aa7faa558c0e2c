"""Python's face of the emulator: its controls, and kernel files launched on NumPy arrays without a backend.

Example:
    image = engine.Image(build.kernel(Path("kernels/softmax.cu")))
    image.launch("softmax_forward_f32", 4, 128, x, y, 10)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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
    context = ctypes.c_void_p()
    lib.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    lib.cuCtxSetCurrent(context)
    lib.dlsim_signature.restype = ctypes.c_char_p
    lib.dlsim_signature.argtypes = [ctypes.c_void_p]
    lib.dlsim_schedule.argtypes = [ctypes.c_int, ctypes.c_uint64]
    lib.dlsim_launches.restype = ctypes.c_uint64
    lib.dlsim_live.restype = ctypes.c_size_t
    lib.dlsim_register.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_uint]
    lib.dlsim_unregister.argtypes = [ctypes.c_void_p]
    for records in (lib.dlsim_issues, lib.dlsim_take_counters, lib.dlsim_take_traffic):
        records.restype = ctypes.c_char_p
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


DEFAULT_TIME_LIMIT = 300


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Inside the block, a launch that takes more processor time ends with a KernelError (otherwise 300 seconds)."""
    library().dlsim_time_limit(seconds)
    try:
        yield
    finally:
        library().dlsim_time_limit(DEFAULT_TIME_LIMIT)


SCHEDULES = (("forward", 0), ("reverse", 0), ("random", 1), ("random", 2))


def same_bits(run: Callable[[], Sequence[np.ndarray[Any, Any]]]) -> Sequence[np.ndarray[Any, Any]]:
    """What `run` returns, if it is the same in every order of threads and blocks.

    Raises:
        KernelError: the bits differ: there is a race, or a sum whose order depends on the schedule.
    """
    results = []
    for order, seed in SCHEDULES:
        with schedule(order, seed):
            results.append([np.array(array) for array in run()])
    for (order, seed), result in zip(SCHEDULES[1:], results[1:], strict=True):
        for i, (first, other) in enumerate(zip(results[0], result, strict=True)):
            if first.tobytes() != other.tobytes():
                raise KernelError(
                    f"result {i} depends on the schedule: it differs between forward and {order} ({seed})"
                )
    return results[0]


def launches() -> int:
    """How many launches there were in this process."""
    return int(library().dlsim_launches())


def live() -> int:
    """How many allocations, modules, streams and events of the driver are alive."""
    return int(library().dlsim_live())


class Issue(NamedTuple):
    """Something that a kernel did wrong, first at source line `where`, as often as `times`."""

    kind: str
    kernel: str
    where: str
    block: str
    thread: str
    times: int
    text: str


class Counter(NamedTuple):
    """Accesses of one source line in checked mode: `requests` of warps for `lanes` threads, `bytes` each.

    `units` are 32-byte sectors (global memory) or wavefronts (shared), `ideal` what the same bytes need at least.
    """

    kernel: str
    where: str
    operation: str
    bytes: int
    requests: int
    lanes: int
    units: int
    ideal: int


class Traffic(NamedTuple):
    """Bytes that a kernel's launches have to read from and write to DRAM at least: each sector once a launch."""

    kernel: str
    launches: int
    read: int
    written: int


def issues() -> list[Issue]:
    """What went wrong in the last launch."""
    return [Issue(r[0], r[1], r[2], r[3], r[4], int(r[5]), r[6]) for r in _records(library().dlsim_issues())]


def take_counters() -> list[Counter]:
    """Counters of all launches of checked kernels since the last call, by kernel, source line, operation and width."""
    return [Counter(r[0], r[1], r[2], *map(int, r[3:])) for r in _records(library().dlsim_take_counters())]


def take_traffic() -> list[Traffic]:
    """Compulsory DRAM traffic of all launches of checked kernels since the last call."""
    return [Traffic(r[0], *map(int, r[1:])) for r in _records(library().dlsim_take_traffic())]


def _records(text: bytes) -> list[list[str]]:
    return [line.split("\t") for line in text.decode().splitlines()]


def empty(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """A NumPy array that begins at a multiple of 256 bytes, as what cuMemAlloc gives: sectors count as on a device."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    memory = np.empty(count * dtype.itemsize + 256, np.uint8)
    start = -memory.ctypes.data % 256
    array: np.ndarray[Any, Any] = memory[start : start + count * dtype.itemsize].view(dtype).reshape(shape)
    return array


@contextmanager
def registered(arrays: Mapping[str, np.ndarray[Any, Any]], unwritten: Collection[str] = ()) -> Iterator[None]:
    """Inside the block, checked kernels may touch these arrays; those in `unwritten` hold nothing yet.

    Arrays that are not writeable may only be read.
    """
    for name, array in arrays.items():
        flags = (name not in unwritten) | (not array.flags.writeable) << 1
        library().dlsim_register(array.ctypes.data, array.nbytes, name.encode(), flags)
    try:
        yield
    finally:
        for array in arrays.values():
            library().dlsim_unregister(array.ctypes.data)


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
        unwritten: Collection[int] = (),
    ) -> None:
        """Run a kernel on NumPy arrays and numbers, to its end. The arrays are called arg0, arg1, ... in messages.

        Args:
            name: of the kernel.
            grid: blocks along x, y, z.
            block: threads along x, y, z.
            arguments: contiguous arrays and numbers.
            shared: bytes of dynamic shared memory.
            cooperative: all blocks run together and may meet in grid_sync.
            unwritten: numbers of the arguments that hold nothing yet; a checked kernel must write before it reads.

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
        arrays = {f"arg{i}": argument for i, argument in enumerate(arguments) if isinstance(argument, np.ndarray)}
        with registered(arrays, [f"arg{i}" for i in unwritten]):
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
