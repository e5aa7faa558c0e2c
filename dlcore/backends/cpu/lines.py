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


def without_unread(lines: Sequence[Line], kept: Sequence[int], *names: str) -> list[Line]:
    """The lines without views, and lines of these names, that nothing reads."""
    readers = readers_of(lines, kept)
    found: list[Line] = []
    for line in reversed(lines):
        if (line.view or line.name in names) and not any(readers[x] for x in line.results):
            readers.subtract(x for x in line.operands if isinstance(x, int))
        else:
            found.append(line)
    return found[::-1]
