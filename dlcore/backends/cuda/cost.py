"""Which tile a product is cut into, and into how many splits of k: what a small model of a GPU finds quickest.

The model counts cycles of the busiest multiprocessor: the larger of the time for its multiply-adds and for the bytes
that pass the L2 cache and DRAM, plus a latency for each wave of blocks and for adding up splits.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from dlcore import dtypes

# per multiprocessor and cycle, of the size that A100, H100 and RTX 4090 have
L2_BYTES = 22.0  # by data sheets and microbenchmarks 47, 23 and 16
DRAM_BYTES = 9.0
BUSY_WARPS = 8  # what it takes to keep a multiprocessor busy
WAVE_CYCLES = 2500.0  # until the first slab has come from DRAM and the last row has been stored
REDUCE_CYCLES = 6000.0  # one more launch
MAX_SPLITS = 32
MIN_SLABS = 8  # of one split


class Tile(NamedTuple):
    """The part of C that a block computes."""

    name: str  # in names of kernels
    m: int
    n: int
    slab: int  # k's that pass through shared memory at once
    threads: int
    resident: int  # blocks that a multiprocessor holds
    rate: float  # multiply-adds per multiprocessor and cycle
    shared: int = 0  # bytes of dynamic shared memory
    across: float = 0.0  # where B comes through registers, so that it takes warps: the lines of it for each k


def _any(tiles: tuple[Tile, ...], rate: float) -> tuple[Tile, ...]:
    """The same tiles by kernels that take every alignment, at a part of the speed."""
    return tuple(t._replace(name=f"{t.name}_any", rate=t.rate * rate) for t in tiles)


F32 = (Tile("128", 128, 128, 8, 128, 2, 116.0), Tile("64", 64, 64, 8, 64, 6, 104.0))
F32_ANY = _any(F32, 0.97)
F64 = _any((Tile("64", 64, 64, 8, 64, 4, 32.0),), 1.0)
HALF = (
    Tile("128", 128, 128, 32, 128, 2, 800.0, 49152),
    Tile("256", 128, 256, 32, 256, 1, 800.0, 73728),
    Tile("64", 64, 64, 32, 128, 4, 560.0, 24576),
)
HALF_ANY = _any(HALF[2:], 0.2)
ANY = {**dict(zip(F32, F32_ANY, strict=True)), **dict.fromkeys(HALF, HALF_ANY[0])}
TF32 = tuple(t._replace(slab=16, rate=400.0) for t in HALF[:2])


class Work(NamedTuple):
    """One product, or `batches` of them."""

    m: int
    n: int
    k: int
    batches: int
    itemsize: int


class Choice(NamedTuple):
    """How to run a product."""

    tile: Tile
    splits: int
    slice: int  # k's of a split

    def blocks(self, work: Work) -> int:
        """Blocks of the launch."""
        return ceil(work.m / self.tile.m) * ceil(work.n / self.tile.n) * self.splits * work.batches


def at_any_alignment(choice: Choice) -> Choice:
    """The same splits, so the same sums, by a kernel that takes operands wherever they begin."""
    return choice._replace(tile=ANY[choice.tile])


UNSPLIT = Choice(F32[1], 1, 0)
"""For kernels that do not look at slices."""


def is_skinny(m: int, n: int, k: int, dtype: Any) -> bool:
    """Whether a product has so few rows or columns that reading the other operand is all that takes time.

    Long sums for few lines are better split.
    """
    return min(m, n) <= 16 and dtype != dtypes.float64 and (max(m, n) >= 256 or k <= 4096)


def _busy(tile: Tile, blocks: float) -> float:
    """How far the warps of so many blocks keep a multiprocessor busy: 1 at most."""
    return min(1.0, min(blocks, tile.resident) * tile.threads / 32 / BUSY_WARPS)


def cycles(work: Work, choice: Choice, multiprocessors: int) -> float:
    """Modelled time of a product, in cycles."""
    tile, blocks = choice.tile, choice.blocks(work)
    per_sm = ceil(blocks / multiprocessors)
    math = per_sm * tile.m * tile.n * choice.slice / (tile.rate * _busy(tile, per_sm))
    l2 = blocks * choice.slice * (tile.m + (tile.across or tile.n)) * work.itemsize / (multiprocessors * L2_BYTES)
    if tile.across:
        l2 /= _busy(tile, blocks / multiprocessors)
    size = work.batches * work.m * work.n
    moved = work.batches * (work.m + work.n) * work.k * work.itemsize + size * work.itemsize
    dram = moved / (multiprocessors * DRAM_BYTES)
    main = max(math, l2, dram) + ceil(per_sm / tile.resident) * WAVE_CYCLES
    if choice.splits == 1:
        return main
    return main + REDUCE_CYCLES + 2 * size * choice.splits * max(4, work.itemsize) / (multiprocessors * DRAM_BYTES)


def split(k: int, slab: int, splits: int) -> tuple[int, int]:
    """At most `splits` slices of whole slabs that cover k: how many, and their length."""
    slabs = max(1, ceil(k / slab))
    each = ceil(slabs / splits)
    return ceil(slabs / each), each * slab


def candidates(work: Work, tiles: tuple[Tile, ...], multiprocessors: int) -> list[Choice]:
    """Every tile, unsplit and with as many splits as the device holds at once."""
    found = []
    for tile in tiles:
        room = multiprocessors * tile.resident // Choice(tile, 1, work.k).blocks(work)
        most = max(1, min(MAX_SPLITS, room, ceil(work.k / tile.slab) // MIN_SLABS))
        found += [Choice(tile, *split(work.k, tile.slab, s)) for s in range(1, most + 1)]
    return list(dict.fromkeys(found))


def ranked(work: Work, tiles: tuple[Tile, ...], multiprocessors: int) -> list[Choice]:
    """The candidates, of least modelled time first."""
    return sorted(candidates(work, tiles, multiprocessors), key=lambda choice: cycles(work, choice, multiprocessors))


@lru_cache(maxsize=4096)
def choose(work: Work, tiles: tuple[Tile, ...], multiprocessors: int) -> Choice:
    """The candidate of least modelled time."""
    return ranked(work, tiles, multiprocessors)[0]
