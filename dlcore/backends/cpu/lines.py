"""What the passes over captured programs (`fuse*.py`) ask of their lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dlcore.graph import Line


def native(line: Line) -> bool:
    """Whether a kernel of `_C` runs it."""
    return line.variant in ("native", "winograd")


def readers_of(lines: Sequence[Line], kept: Sequence[int]) -> Counter[int]:
    """How often each slot is read; `kept` are read once more."""
    readers = Counter(slot for line in lines for slot in line.operands if isinstance(slot, int))
    readers.update(kept)
    return readers
