"""Captured programs (`dlcore.graph`) on a GPU: each run of launches as one CUDA graph.

A run ends where the host acts: at an optimizer's step, a random key, a reference. It goes launch by launch once, which
loads its kernels; then it is recorded, and from there on one call of the driver repeats it. A graph reads and writes
the same memory each time: operands that were other arrays in the calls before are copied to where it reads, and results
that may outlive the call are copied from where it writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from dlcore.backends.cuda.driver import Driver
from dlcore.backends.cuda.graph import Graph
from dlcore.errors import KernelError
from dlcore.graph import Line, compiled, used

Array = Any
FEWEST_LAUNCHES = 2  # of a run that is worth a graph


class Run:
    """Some lines as a function of arrays. fresh: of each result, whether it must be a new array each time."""

    def __init__(
        self, driver: Driver, lines: Sequence[Line], given: Sequence[int], made: Sequence[int], fresh: Sequence[bool]
    ) -> None:
        self.driver, self.fresh = driver, fresh
        self.source, self._lines = compiled(lines, given, made)
        self.graph: Graph | None = None
        self.recordings = 0
        self._refused = False  # by the driver: there will be no graph
        self._read: list[Array] | None = None  # what it ran on last, or what the graph reads
        self._made: tuple[Array, ...] = ()  # what the graph writes
        self._moving: set[int] = set()  # operands that were other arrays in other calls

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """The results of the lines."""
        graph = self._graph_for(arrays)
        if graph is None or self._read is None:
            return self._lines([*arrays])
        for i in self._moving:
            self._read[i][...] = arrays[i]
        graph.replay()
        return tuple(x.copy() if fresh else x for x, fresh in zip(self._made, self.fresh, strict=True))

    def _graph_for(self, arrays: Sequence[Array]) -> Graph | None:
        """The graph, recorded anew where operands moved that had not before; None: to go line by line."""
        if self._read is None:
            self._read = [*arrays]
            return None
        pairs = enumerate(zip(arrays, self._read, strict=True))
        moved = {i for i, (x, y) in pairs if i not in self._moving and not self._same(x, y)}
        if (moved or self.graph is None) and not self._refused:
            self._moving |= moved
            self.graph = self._record(arrays)
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
            self._refused = True
            warnings.warn(f"capture: launches go one by one, as they make no CUDA graph: {error}", stacklevel=2)
            return None
        return graph

    def _place(self, x: Array) -> Array:
        """Memory for the values of an operand that moves."""
        if not x.flags.c_contiguous:
            raise KernelError("an operand that is another array in each call is not contiguous")
        return self.driver.empty(x.shape, x.dtype)


def with_graphs(driver: Driver, lines: Sequence[Line], kept: Sequence[int]) -> list[Line]:
    """The lines of a program, with a line for each run of launches."""
    end = dict.fromkeys(kept, len(lines))
    read = {x: i for i, line in enumerate(lines) for x in used(line)} | end  # by slot, the last line that does
    passed_on = {x: i for i, line in enumerate(lines) if _passes_on(line) for x in used(line)} | end
    found: list[Line] = []
    run: list[Line] = []
    own: set[int] = set()  # slots that the run makes

    def finish(i: int) -> list[Line]:
        made = [x for x in own if read.get(x, -1) >= i]
        return _as_graph(driver, run, own, made, [passed_on.get(x, -1) >= i for x in made])

    for i, line in enumerate(lines):
        if line.view and own.isdisjoint(used(line)):
            found.append(line)
        elif line.view or _launches(line):
            run.append(line)
            own |= {*line.results}
        else:
            found += [*finish(i), line]
            run, own = [], set()
    return found + finish(len(lines))


def _launches(line: Line) -> bool:
    """Whether nothing but kernels run, on arrays of the device."""
    return line.variant not in ("", "reference") and [*used(line)] != []


def _passes_on(line: Line) -> bool:
    """Whether its results may share the memory of its operands."""
    return line.view or bool(line.results and not _launches(line))


def _as_graph(driver: Driver, run: Sequence[Line], own: set[int], made: list[int], fresh: list[bool]) -> list[Line]:
    """A run as one line, where it is worth that."""
    if sum(not line.view for line in run) < FEWEST_LAUNCHES:
        return list(run)
    given = [*dict.fromkeys(x for line in run for x in used(line) if x not in own)]
    call = Run(driver, run, given, made, fresh)
    return [Line(f"graph of {len(run)} lines", call, list(given), made, several=True)]
