"""The state spaces of PTX memory: every access is checked for alignment and bounds before it touches anything.

Global memory is the arrays that a launch was given, at their true addresses. Shared, local and parameter memory are
pools: one slice per block, per thread, or one for all; a generic address has the pool's window in its upper 16 bits.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dlcore.sim.ptx_types import WINDOW, Array

CELL: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.uint32),
    8: np.dtype(np.uint64),
    16: np.dtype(np.complex128),
}
SPACE_OF_TAG = {0: "global", **{base >> 48: space for space, base in WINDOW.items()}}


class ThreadError(Exception):
    """An access that would fail on a device; `thread` counts the threads of the batch."""

    def __init__(self, what: str, thread: int) -> None:
        super().__init__(what)
        self.thread = thread


class Piece(NamedTuple):
    """Where some of the threads' accesses go: elements `places` of `cells`; `where` selects the threads."""

    cells: Array
    places: Array
    where: slice | Array


class Region:
    """Bytes that start at `address`; `name` is what error messages call them. `owner` keeps the memory alive."""

    def __init__(self, data: Array, address: int, name: str, writable: bool, owner: Array) -> None:
        self.data, self.address, self.name, self.writable = data, address, name, writable
        self.owner = owner
        self._cells: dict[int, tuple[int, Array]] = {}

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.address + len(self.data)

    def cells(self, width: int) -> tuple[int, Array]:
        """Address of the first aligned cell of `width` bytes, and all of them as an array."""
        if width not in self._cells:
            first = -self.address % width
            count = max(len(self.data) - first, 0) // width
            self._cells[width] = self.address + first, self.data[first : first + count * width].view(CELL[width])
        return self._cells[width]


def region(array: Array, name: str) -> Region:
    """The bytes between an array's lowest and highest element as device memory."""
    low, high = np.lib.array_utils.byte_bounds(array)
    data = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    return Region(data, low, name, bool(array.flags.writeable), array)


class Pool:
    """`size` bytes for each of `owners`; thread t uses the slice `owner[t]`. Fresh memory is 0xFF: NaN as a float."""

    def __init__(self, name: str, size: int, owner: Array, data: Array | None = None) -> None:
        self.name, self.size, self.owner = name, size, owner
        self.stride = -(-size // 16) * 16
        count = int(owner.max()) + 1
        self.data = np.full(count * self.stride, 0xFF, np.uint8) if data is None else data

    def pieces(self, address: Array, width: int, threads: Array) -> Iterator[Piece]:
        """Where the accesses of threads go, each in its own slice."""
        bad = (address < 0) | (address + width > self.size)
        if bad.any():
            raise ThreadError(
                f"{int(address[bad][0])} in {self.name} memory of {self.size} bytes", int(threads[bad][0])
            )
        cells = self.data.view(CELL[width])
        yield Piece(cells, (self.owner[threads] * self.stride + address) // width, slice(None))


class Memory:
    """All spaces of one batch of blocks."""

    def __init__(self, regions: list[Region], pools: dict[str, Pool]) -> None:
        self.regions = sorted(regions, key=lambda r: r.address)
        self.starts = [r.address for r in self.regions]
        self.pools = pools

    def load(self, space: str, address: Array, width: int, threads: Array) -> Array:
        """The cells at int64 addresses, one per thread (or one for all, where there is one address)."""
        found = np.empty(len(address), CELL[width])
        for piece in self._checked("read", space, address, width, threads):
            found[piece.where] = piece.cells[piece.places]
        return found

    def store(self, space: str, address: Array, cells: Array, threads: Array) -> None:
        """Where several threads store to one address, the last wins."""
        for piece in self._checked("write", space, address, cells.itemsize, threads):
            piece.cells[piece.places] = cells[piece.where]

    def check(self, what: str, space: str, address: Array, width: int, threads: Array) -> list[Piece]:
        """The pieces of an access (ThreadError if it is out of bounds, misaligned or writes to read-only memory)."""
        return list(self._checked(what, space, address, width, threads))

    def _checked(self, what: str, space: str, address: Array, width: int, threads: Array) -> Iterator[Piece]:
        odd = address % width != 0
        if odd.any():
            raise ThreadError(f"misaligned {what} of {width} bytes at {int(address[odd][0]):#x}", int(threads[odd][0]))
        try:
            yield from self._pieces(space, address, width, threads, what == "write")
        except ThreadError as fault:
            raise ThreadError(f"out-of-bounds {what} of {width} bytes at {fault}", fault.thread) from None

    def _pieces(self, space: str, address: Array, width: int, threads: Array, write: bool) -> Iterator[Piece]:
        if space == "global":
            yield from self._global(address, width, threads, write)
        elif space != "generic":
            yield from self.pools[space].pieces(address, width, threads)
        else:
            tags = address >> 48
            for tag in np.unique(tags):
                where = np.flatnonzero(tags == tag)
                local = address[where] & ((1 << 48) - 1)
                inner = self._pieces(SPACE_OF_TAG.get(int(tag), "global"), local, width, threads[where], write)
                for piece in inner:
                    yield piece._replace(where=where[piece.where])

    def _global(self, address: Array, width: int, threads: Array, write: bool) -> Iterator[Piece]:
        if not len(address):
            return
        only = self._region(int(address.min()))
        if only and int(address.max()) + width <= only.end and (only.writable or not write):
            first, cells = only.cells(width)
            yield Piece(cells, (address - first) // width, slice(None))
            return
        which = np.searchsorted(np.array(self.starts, np.int64), address, "right") - 1
        for k in np.unique(which):
            where = np.flatnonzero(which == k)
            self._refuse(int(k), address[where], width, threads[where], write)
            first, cells = self.regions[k].cells(width)
            yield Piece(cells, (address[where] - first) // width, where)

    def _region(self, address: int) -> Region | None:
        k = bisect_right(self.starts, address) - 1
        return self.regions[k] if k >= 0 else None

    def _refuse(self, k: int, address: Array, width: int, threads: Array, write: bool) -> None:
        """ThreadError for the first address that is not inside region k, or if the region must not be written."""
        near = self.regions[max(k, 0)] if self.regions else None
        bad = np.ones(len(address), bool)
        if near and (near.writable or not write):
            bad = (address < near.address) | (address + width > near.end)
        if not bad.any():
            return
        at, thread = int(address[bad][0]), int(threads[bad][0])
        if near is None:
            raise ThreadError(f"{at:#x}; the kernel was given no memory", thread)
        if near.address <= at and at + width <= near.end:
            raise ThreadError(f"{at:#x}, in {near.name}, which is read-only", thread)
        side = f"{at - near.end} bytes past the end" if at >= near.address else f"{near.address - at} bytes before"
        raise ThreadError(f"{at:#x}; nearest is {near.name} ({len(near.data)} bytes), {side}", thread)
