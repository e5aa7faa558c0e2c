"""Which kernel works on rows: what the row kernels of softmax, cross-entropy and norms share (see `row.cuh`)."""

from __future__ import annotations

from math import prod
from typing import Any

from dlcore.backends.cuda.launch import driver_of, launch
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.dispatch import Call

Array = Any

BLOCK, WARP = 256, 32  # kBlock, kWarp
INDEX_LIMIT = 2**31  # kernels count elements in 32 bits


def refuse(call: Call) -> str | None:
    """Why row kernels do not take a call."""
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    large = any(shape is not None and prod(shape) >= INDEX_LIMIT for shape in call.shapes)
    return "more than 2**31 elements" if large else None


def lanes_of(n: int, itemsize: int) -> tuple[str, int]:
    """How a row of n elements is shared: "warp" or "block" hold it in registers, "long" reads it twice."""
    held = 64 // max(itemsize, 4)  # kTiles vectors of a lane
    if n <= held * WARP:
        return "warp", WARP
    return ("block" if n <= held * BLOCK else "long"), BLOCK


SINGLES, LOOSE, ALIGNED = range(3)  # Vectors of row.cuh


def vectors(n: int, *arrays: Array | None) -> int:
    """Whether rows of n elements are whole vectors of 16 bytes in all arrays, and begin at multiples of that."""
    found = [x for x in arrays if x is not None]
    if any(n * x.itemsize % 16 for x in found):
        return SINGLES
    return LOOSE if any(driver_of(x).address(x) % 16 for x in found) else ALIGNED


def aligned(n: int, *arrays: Array | None) -> bool:
    """Whether rows of n elements can be moved in vectors."""
    return vectors(n, *arrays) == ALIGNED


def launch_rows(kernel: str, rows: int, lanes: int, *arguments: Any, like: Array) -> None:
    """Launch with a warp or a block for each row, or as many as keep the device busy: they stride on."""
    grid = min(-(-rows * lanes // BLOCK), 16 * driver_of(like).multiprocessors)
    launch(f"{kernel}_{SUFFIXES[like.dtype]}", (grid,), (BLOCK,), *arguments, like=like)


def launch_threads(kernel: str, threads: int, *arguments: Any, like: Array) -> None:
    """Launch with a thread for each of so many items."""
    launch(f"{kernel}_{SUFFIXES[like.dtype]}", (-(-threads // BLOCK),), (BLOCK,), *arguments, like=like)
