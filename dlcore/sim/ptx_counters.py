"""Counts of what a launch did: instructions, floating-point operations, and how well memory accesses coalesce."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dlcore.sim import engine
from dlcore.sim.ptx_syntax import Instruction, Program
from dlcore.sim.ptx_types import Array

SECTOR, BANKS = 32, 32
ONE_FLOP = {"add", "sub", "mul", "div", "min", "max", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"}
FLOAT_SUFFIXES = {"f16", "f16x2", "bf16", "bf16x2", "f32", "f64"}


class Tally(NamedTuple):
    """`requests, lanes, units, ideal` of one execution of a memory instruction."""

    requests: int
    lanes: int
    units: int
    ideal: int


@dataclass
class Access:
    """One memory instruction: `requests` by warps for `lanes` threads, `bytes` each.

    `units` are 32-byte sectors (global) or wavefronts of shared memory, `ideal` what the same bytes need at least.
    """

    operation: str
    bytes: int
    line: int
    source: str = ""
    requests: int = 0
    lanes: int = 0
    units: int = 0
    ideal: int = 0

    @property
    def tally(self) -> Tally:
        """The counts without what they are of."""
        return Tally(self.requests, self.lanes, self.units, self.ideal)

    def add(self, tally: Tally) -> None:
        """Adds the counts of further executions."""
        self.requests += tally.requests
        self.lanes += tally.lanes
        self.units += tally.units
        self.ideal += tally.ideal


def flops(i: Instruction) -> tuple[str, float]:
    """Kind and number of floating-point operations of one thread: fma counts 2, a warp's mma 2 m n k."""
    if i.opcode == "mma":
        m, n, k = (int(x) for x in i.mods[2].replace("n", " ").replace("k", " ")[1:].split())
        return f"mma.{i.mods[-2]}", 2 * m * n * k / 32
    suffix = i.mods[-1] if i.mods else ""
    if suffix not in FLOAT_SUFFIXES:
        return "", 0
    each = 2 if i.opcode in ("fma", "mad") else int(i.opcode in ONE_FLOP)
    return f"{i.opcode}.{suffix}", each * (2 if suffix.endswith("x2") else 1)


def total_flops(program: Program, lanes: list[int]) -> dict[str, int]:
    """By kind, from how many threads executed each instruction."""
    found: Counter[str] = Counter()
    for instruction, count in zip(program.code, lanes, strict=True):
        kind, each = flops(instruction)
        if kind and count and each:
            found[kind] += round(each * count)
    return dict(found)


def first_occurrences(sorted_rows: Array) -> Array:
    """True where a row's sorted non-negative value differs from the one before."""
    new = sorted_rows >= 0
    new[:, 1:] &= sorted_rows[:, 1:] != sorted_rows[:, :-1]
    return new


def sectors(address: Array, active: Array, width: int) -> Tally:
    """Global requests: `address` and `active` are [warps, 32]."""
    rows = np.sort(np.where(active, address, -1), axis=1)
    new = first_occurrences(rows)
    ideal = -(-new.sum(1) * width // SECTOR)
    units = first_occurrences(np.where(rows >= 0, rows // SECTOR, -1))
    return Tally(int(active.any(1).sum()), int(active.sum()), int(units.sum()), int(ideal.sum()))


def wavefronts(address: Array, active: Array, width: int) -> Tally:
    """Shared requests: 8-byte accesses take two halves of a warp, 16-byte ones four quarters, half as many where lanes
    n and n^1 (or n and n^2) read the same; a group takes as many wavefronts as its busiest bank has distinct words.
    """
    count = max(width // 4, 1)
    groups = count
    words = np.where(active[:, :, None], (address // 4)[:, :, None] + np.arange(count), -1)
    paired = same_as_neighbour(address, active, 1) | same_as_neighbour(address, active, 2)
    units = np.where(paired & (groups > 1), busiest_bank(words, max(groups // 2, 1)), busiest_bank(words, groups))
    distinct = first_occurrences(np.sort(words.reshape(len(words), -1), axis=1)).sum(1)
    ideal = np.where(active.any(1), np.maximum(-(-distinct // BANKS), 2 if width == 16 else 1), 0)
    return Tally(int(active.any(1).sum()), int(active.sum()), int(units.sum()), int(np.minimum(ideal, units).sum()))


def same_as_neighbour(address: Array, active: Array, distance: int) -> Array:
    """Warps in which lanes n and n ^ distance, where both are active, have equal addresses."""
    other = np.arange(32) ^ distance
    equal: Array = ~active | ~active[:, other] | (address == address[:, other])
    return np.asarray(equal.all(1))


def busiest_bank(words: Array, groups: int) -> Array:
    """Wavefronts per warp when its lanes go in `groups` turns."""
    rows = np.sort(words.reshape(len(words) * groups, -1), axis=1)
    row, column = np.nonzero(first_occurrences(rows))
    bank = rows[row, column] % BANKS
    counts: Array = np.bincount(row * BANKS + bank, minlength=len(rows) * BANKS).reshape(len(rows), BANKS)
    return np.asarray(counts.max(1).reshape(len(words), groups).sum(1))


def merged(kernel: str, accesses: list[Access]) -> list[engine.Counter]:
    """One row per source line, operation and width (per PTX line, where the source is not known)."""
    rows: dict[tuple[str, str, int], Tally] = {}
    for a in accesses:
        key = a.source or f"PTX line {a.line}", a.operation, a.bytes
        rows[key] = Tally(*(x + y for x, y in zip(rows.get(key, Tally(0, 0, 0, 0)), a.tally, strict=True)))
    return [engine.Counter(kernel, *key, *tally) for key, tally in rows.items()]
