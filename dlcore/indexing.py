"""NumPy-style indices as a hashable key plus integer arrays, the form in which `getitem` takes them.

Key entries: int, `("slice", start, stop, step)`, None (new axis), "..." and `("array", k)` for the k-th array operand.
A boolean mask becomes the integer arrays of its true positions, which reads the mask on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlcore.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError

Key = tuple[Any, ...]

OUTSIDE = "index {} is out of range for axis {} of size {}"


def encode(index: Any, shape: Sequence[int]) -> tuple[Key, list[Any]]:
    """Split an index of an array of `shape` into key and operands.

    Raises IndexRangeError for an integer out of range (arrays: see `check`), ShapeError for a mask that does not fit,
    DTypeError for an entry that is no index, ArgumentError for a slice of step 0.
    """
    if shape and type(index) in (int, slice):  # one that needs none of the below
        return (_checked(index, shape[0], 0) if type(index) is int else _slice(index), "..."), []
    entries = list(index) if isinstance(index, tuple) else [index]
    if not [e for e in entries if e is Ellipsis]:
        entries.append(Ellipsis)
    key: list[Any] = []
    arrays: list[Any] = []
    axes = _axes(entries, len(shape))
    for entry, axis in zip(entries, axes, strict=True):
        if entry is None or entry is Ellipsis:
            key.append(None if entry is None else "...")
        elif isinstance(entry, slice):
            key.append(_slice(entry))
        elif isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
            key.append(_checked(int(entry), shape[axis], axis))
        else:
            for positions in _positions(entry, shape, axis):
                key.append(("array", len(arrays)))
                arrays.append(positions)
    return tuple(key), arrays


def decode(key: Key, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The index that NumPy-like arrays take."""
    return tuple([_decoded(entry, arrays) for entry in key])


def array_axes(key: Key, rank: int) -> list[int]:
    """The axis of an array of `rank` that each array operand indexes."""
    entries = [Ellipsis if e == "..." else None if e is None else 0 for e in key]
    return [axis for axis, e in zip(_axes(entries, rank), key, strict=True) if is_array(e)]


def is_array(entry: Any) -> bool:
    """Whether an entry of a key stands for an array operand."""
    return isinstance(entry, tuple) and entry[0] == "array"


def check(key: Key, shape: Sequence[int], arrays: Sequence[Any]) -> None:
    """Raise IndexRangeError that names the first position of an array operand outside its axis."""
    if arrays:
        for positions, axis in zip(arrays, array_axes(key, len(shape)), strict=True):
            in_range(positions, shape[axis], axis)


def _decoded(entry: Any, arrays: Sequence[Any]) -> Any:
    if isinstance(entry, tuple):
        return slice(*entry[1:]) if entry[0] == "slice" else arrays[entry[1]]
    return Ellipsis if entry == "..." else entry


def _axes(entries: list[Any], rank: int) -> list[int]:
    """The axis at which each entry starts."""
    widths = [_width(e) for e in entries]
    used = sum(widths)
    if used > rank:
        raise IndexRangeError(f"{used} indices for {rank} dimensions")
    if len([e for e in entries if e is Ellipsis]) > 1:
        raise IndexRangeError("an index holds at most one '...'")
    axes, at = [], 0
    for entry, width in zip(entries, widths, strict=True):
        axes.append(at)
        at += rank - used if entry is Ellipsis else width
    return axes


def _width(entry: Any) -> int:
    if entry is None or entry is Ellipsis:
        return 0
    if type(entry) in (int, slice):
        return 1
    dtype = getattr(entry, "dtype", None)
    return len(entry.shape) if dtype == np.bool_ else 1


def _slice(entry: slice) -> tuple[Any, ...]:
    if entry.step == 0:
        raise ArgumentError("the step of a slice must not be 0")
    return "slice", _bound(entry.start), _bound(entry.stop), _bound(entry.step)


def _bound(value: Any) -> int | None:
    return None if value is None else value.__index__()


def _checked(position: int, size: int, axis: int) -> int:
    if not -size <= position < size:
        raise IndexRangeError(OUTSIDE.format(position, axis, size))
    return position


def _positions(entry: Any, shape: Sequence[int], axis: int) -> list[Any]:
    if isinstance(entry, (list, bool)):
        entry = np.asarray(entry, dtype=np.int64 if isinstance(entry, list) and not entry else None)
    dtype = getattr(entry, "dtype", None)
    if dtype is None or dtype.kind not in "iub":
        raise DTypeError(f"cannot index with {type(entry).__name__ if dtype is None else dtype}")
    if dtype.kind != "b":
        return [entry]
    mask = np.asarray(entry)
    if mask.ndim == 0 or mask.shape != tuple(shape[axis : axis + mask.ndim]):
        raise ShapeError(f"mask of shape {mask.shape} on axes of sizes {tuple(shape[axis : axis + mask.ndim])}")
    return list(np.nonzero(mask))


def in_range(positions: Any, size: int, axis: int) -> Any:
    """`positions` themselves. Raises IndexRangeError that names the first one outside [-size, size)."""
    host = np.asarray(positions)
    if host.size and not (-size <= host.min() and host.max() < size):
        bad = host[(host < -size) | (host >= size)].ravel()[0]
        raise IndexRangeError(OUTSIDE.format(bad, axis, size))
    return positions
