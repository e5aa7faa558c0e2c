"""Values that kernels refused instead of failing (`kernels/include/refuse.cuh`), raised at the next synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore.errors import IndexRangeError

Array = Any
Site = tuple[Any, ...]

NOTHING = 2**64 - 1
SITES = 256
LEAST, MOST = -(2**31), 2**31 - 1  # what a record keeps of a value


class Refusals:
    """The records of a device, one for each op and limit, so that the host can say what a refused value was for."""

    def __init__(self, empty: Callable[..., Array], read: Callable[[Array], Array]) -> None:
        self._empty, self._read = empty, read
        self._records: Array = None
        self._sites: dict[Site, Array] = {}
        self.pending = False  # whether a kernel may have refused something since the last check

    def record(self, *site: Any) -> Array:
        """Where a kernel notes the first value that it refuses.

        site: the op, the message with a place for the value, and the numbers for its other places.
        """
        found = self._sites.get(site)
        if found is None:
            found = self._sites[site] = self._new_record()
        self.pending = True
        return found

    def expect(self) -> None:
        """Kernels that were recorded run again: look at the next check."""
        self.pending = bool(self._sites)

    def _new_record(self) -> Array:
        if self._records is None:
            self._records = self._empty((SITES,), np.dtype(np.int64))
            self._records[...] = -1
        if len(self._sites) == SITES:
            self.check()
            self._sites.clear()
        at = len(self._sites)
        return self._records[at : at + 1]

    def check(self) -> None:
        """Raise IndexRangeError for a value that was refused since the last check; forget all of them."""
        if not self.pending:
            return
        self.pending = False
        found = self._read(self._records).view(np.uint64).tolist()
        for site, key in zip(self._sites, found, strict=False):
            if key != NOTHING:
                self._records[...] = -1
                raise IndexRangeError(_message(site, key))


def _message(site: Site, key: int) -> str:
    op, text, *numbers = site
    value = (key & 0xFFFFFFFF ^ 0x80000000) + LEAST
    shown = f"{value} or {'more' if value > 0 else 'less'}" if value in (LEAST, MOST) else value
    return f"{op}: {text.format(shown, *numbers)} (at position {key >> 32})"
