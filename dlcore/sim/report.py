"""A profile of an op's kernels without a GPU: what their memory accesses cost, by source line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from dlcore.errors import ArgumentError, BackendError
from dlcore.sim import engine
from dlcore.sim.engine import Counter, Traffic

HEADINGS = ("where", "access", "bytes", "requests", "lanes", "per request", "ideal", "")
ROW = "  {:<24}{:<18}{:>6}{:>10}{:>8}{:>13}{:>8}{}"


def table(counters: Iterable[Counter], traffic: Iterable[Traffic]) -> list[str]:
    """Lines of text: one block per kernel, one row per source line, kind and width of access.

    "per request" is sectors (global memory) or wavefronts (shared) per warp request, "ideal" how many are needed at
    least; rows that take more are marked.
    """
    totals = {t.kernel: t for t in traffic}
    lines: list[str] = []
    for kernel, rows in groupby(sorted(counters), key=lambda c: c.kernel):
        lines += kernel_block(totals[kernel], list(rows))
    return lines


def kernel_block(total: Traffic, rows: Sequence[Counter]) -> list[str]:
    """The lines of one kernel."""
    read, written = (sum(c.units * 32 for c in rows if c.operation in kinds) for kinds in (READS, WRITES))
    return [
        f"{total.kernel}: {total.launches} launch{'es' if total.launches > 1 else ''}; "
        f"L2 {kilobytes(read)} read, {kilobytes(written)} written; "
        f"DRAM at least {kilobytes(total.read)} read, {kilobytes(total.written)} written",
        ROW.format(*HEADINGS).rstrip(),
        *(row(c) for c in rows),
    ]


READS = ("ld.global", "cp.async.global", "atom.global")
WRITES = ("st.global", "atom.global")


def row(c: Counter) -> str:
    """One source line's accesses."""
    per, ideal, lanes = c.units / c.requests, c.ideal / c.requests, c.lanes / c.requests
    mark = f"  <- {c.units / c.ideal:.2f} x" if c.units > c.ideal else ""
    return ROW.format(c.where, c.operation, c.bytes, c.requests, f"{lanes:.1f}", f"{per:.2f}", f"{ideal:.2f}", mark)


def kilobytes(count: int) -> str:
    """Bytes in units of 1000."""
    return f"{count / 1000:.1f} kB"


def of_op(
    name: str, shapes: Sequence[tuple[int, ...]], dtype: str, attrs: Mapping[str, Any], backward: bool
) -> list[str]:
    """The table of the kernels that an op launches on arrays of these shapes; needs DLCORE_SIM=checked.

    Raises:
        ArgumentError: there is no such op.
        BackendError: the op launched no kernel.
        KernelError: a kernel did something wrong.
    """
    import dlcore as dl
    from dlcore import dtypes

    function = getattr(dl, name, None) or getattr(dl.nn, name, None)
    if not callable(function):
        raise ArgumentError(f"no op {name!r}; `python -m dlcore ops` lists them")
    with dl.device("sim"):
        operands = [dl.asarray(_random(shape, dtypes.dtype(dtype))) for shape in shapes]
        for operand in operands:
            operand.requires_grad = backward
        engine.take_counters(), engine.take_traffic()
        result = function(*operands, **attrs)
        if backward:
            result.sum().backward()
    lines = table(engine.take_counters(), engine.take_traffic())
    if not lines:
        raise BackendError(f"{name} launched no kernel on {', '.join(map(str, shapes))} of {dtype}")
    return lines


def _random(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Normal numbers at an address like a device's, so that sectors count as there."""
    array = engine.empty(shape, dtype)
    array[...] = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return array
