"""The one door through which every kernel goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dlcore import settings
from dlcore.backends.cuda.driver import Driver
from dlcore.errors import KernelError
from dlcore.signature import Shape

Array = Any
Dims = tuple[int, ...]

drivers: dict[type, Driver] = {}
"""The driver of each array type in use."""

listeners: list[Callable[[str, Dims, Dims, tuple[Any, ...], int], None]] = []
"""Called with (kernel, grid, block, arguments, shared) before every launch."""


def driver_of(array: Array) -> Driver:
    """The driver that an array belongs to."""
    return drivers[type(array)]


def empty(shape: Shape, dtype: Any, like: Array) -> Array:
    """A new array on the device of another, elements not set."""
    return drivers[type(like)].empty(shape, dtype)


def launch(
    kernel: str,
    grid: Dims,
    block: Dims,
    *arguments: Any,
    like: Array,
    shared: int = 0,
    cooperative: bool = False,
    touched: Sequence[Array] | None = None,
) -> None:
    """Run a kernel, given as "module.function", on the device of the array `like`; does nothing for an empty grid.

    arguments: arrays and None (pointers), ints, floats, and bytes (structs by value), as its signature says.
    shared: bytes of dynamic shared memory. cooperative: all blocks are resident, for grid barriers.
    touched: arrays whose addresses (`driver_of(x).address(x)`) stand inside a struct.
    Raises KernelError naming kernel, grid, block, the device and what its kernels are built for.
    """
    if 0 in grid:
        return
    driver = drivers[type(like)]
    module, _, name = kernel.partition(".")
    for listener in listeners:
        listener(kernel, grid, block, arguments, shared)
    function = driver.function(module, name, shared)
    try:
        function.launch(grid, block, shared, driver.stream(), cooperative, touched, *arguments)
        if settings.get("DEBUG"):
            driver.native.synchronize()
    except RuntimeError as error:
        raise KernelError(f"{name}<<<{grid}, {block}, {shared}>>>: {error} {driver.where()}") from None
