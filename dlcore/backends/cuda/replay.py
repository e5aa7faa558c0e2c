"""Captured programs (`dlcore.graph`) on a GPU: each run of launches as one CUDA graph.

A run ends where the host acts: at an optimizer's step, a random key, a reference. It goes launch by launch once, which
loads its kernels; then it is recorded, and from there on one call of the driver repeats it. A graph reads and writes
the same memory each time: operands that were other arrays in the calls before are copied to where it reads, and results
that may outlive the call are copied from where it writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from dlcore.backends.cuda.driver import Driver
from dlcore.backends.cuda.graph import Graph
from dlcore.errors import KernelError
from dlcore.graph import Line, compiled

Array = Any
FEWEST_LAUNCHES = 2  # of a run that is worth a graph
MOST_RECORDINGS = 4  # of a run, as more and more of its operands turn out to move


class Run:
    """Some lines as a function of arrays. fresh: of each result, whether it must be a new array each time."""

    def __init__(
        self, driver: Driver, lines: Sequence[Line], given: Sequence[int], made: Sequence[int], fresh: Sequence[bool]
    ) -> None:
        self.driver, self.fresh = driver, fresh
        self.source, self._lines = compiled(lines, given, made)
        self.graph: Graph | None = None
        self.recordings = -1  # before the kernels are loaded
        self._read: list[Array] = []  # what it ran on last, or what the graph reads
        self._made: tuple[Array, ...] = ()  # what the graph writes
        self._moving: set[int] = set()  # operands that were other arrays in other calls

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """The results of the lines."""
        graph = self._graph_for(arrays)
        if graph is None:
            return self._lines([*arrays])
        for i in self._moving:
            self._read[i][...] = arrays[i]
        graph.replay()
        return tuple(x.copy() if fresh else x for x, fresh in zip(self._made, self.fresh, strict=True))

    def _graph_for(self, arrays: Sequence[Array]) -> Graph | None:
        """The graph, recorded anew where operands moved that had not before; None: to go line by line."""
        if self.recordings < 0:
            self.recordings, self._read = 0, [*arrays]
            return None
        moved = {i for i, x in enumerate(arrays) if i not in self._moving and not self._same(x, self._read[i])}
        if moved or self.graph is None:
            self._moving |= moved
            self.graph = self._record(arrays) if self.recordings < MOST_RECORDINGS else None
        return self.graph

    def _same(self, x: Array, y: Array) -> bool:
        """Whether two arrays are the same elements in memory."""
        address = self.driver.address
        return x is y or (address(x) == address(y) and x.shape == y.shape and x.strides == y.strides)

    def _record(self, arrays: Sequence[Array]) -> Graph | None:
        self.recordings += 1
        try:
            self._read = [self._place(x) if i in self._moving else x for i, x in enumerate(arrays)]
            with self.driver.capture() as graph:
                self._made = self._lines([*self._read])
        except RuntimeError as error:  # of this package, or of CuPy
            self.recordings = MOST_RECORDINGS
            warnings.warn(f"capture: launches go one by one, as they make no CUDA graph: {error}", stacklevel=2)
            return None
        return graph

    def _place(self, x: Array) -> Array:
        """Memory for the values of an operand that moves."""
        if not x.flags.c_contiguous:
            raise KernelError("an operand that is another array in each call is not contiguous")
        return self.driver.empty(x.shape, x.dtype)


def with_graphs(driver: Driver, lines: Sequence[Line], kept: Iterable[int]) -> list[Line]:
    """The lines of a program, with a line for each run of launches."""
    kept = {*kept}
    found: list[Line] = []
    run: list[Line] = []
    for i, line in enumerate(lines):
        inside = any(slot in line.operands for other in run for slot in other.results)
        if line.view and not inside:
            found.append(line)
        elif line.view or _launches(line):
            run.append(line)
        else:
            found += [*_as_graph(driver, run, lines[i:], kept), line]
            run = []
    return found + _as_graph(driver, run, [], kept)


def _launches(line: Line) -> bool:
    """Whether nothing but kernels run, on arrays of the device."""
    return line.variant not in ("", "reference") and any(isinstance(x, int) for x in line.operands)


def _as_graph(driver: Driver, run: Sequence[Line], later: Sequence[Line], kept: set[int]) -> list[Line]:
    """A run as one line, where it is worth that."""
    if sum(not line.view for line in run) < FEWEST_LAUNCHES:
        return list(run)
    own = [slot for line in run for slot in line.results]
    given = [*dict.fromkeys(x for line in run for x in line.operands if isinstance(x, int) and x not in own)]
    read = {slot for line in later for slot in line.operands}
    passing = [line for line in later if line.view or (line.results and not _launches(line))]
    lasting = kept.union(*(line.operands for line in passing))
    made = [slot for slot in own if slot in read or slot in kept]
    call = Run(driver, run, given, made, [slot in lasting for slot in made])
    return [Line(f"graph of {len(run)} lines", call, list(given), made, several=True)]
