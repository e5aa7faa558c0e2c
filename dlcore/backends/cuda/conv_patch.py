"""Convolutions whose blocks bring each pixel to shared memory once for all taps: `kernels/conv_patch.cu`.

What is worked out here is the box of output pixels that a block computes: its windows see a patch of the image, of
which two have to fit shared memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

from dlcore.backends.cuda import cost
from dlcore.backends.cuda.conv_geometry import Array, Triple, Windows, divisor, spans, steps_of, triple
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, grid_of
from dlcore.backends.cuda.ops_matmul import WIDE, pack_product

SHARED = 99 * 1024  # bytes that a block may have on every device of compute capability 8.0 and more
RESERVED = 1024  # bytes of every block that the device keeps for itself
SECTOR = 16  # elements that are read at once
GROUP = 16  # channels of x whose taps follow each other in the columns of dw
STEP = 32  # pixels of a box that are added up at once
MOST_PIXELS = 128  # of such a box
COPIED = (8, 2)  # pixels of dy that there are kernels to copy at once


class Box(NamedTuple):
    """The output pixels of a block: so many images, and pixels along each axis."""

    images: int
    size: Triple

    def columns(self) -> int:
        """How many pixels."""
        return self.images * prod(self.size)

    def along(self, out: Triple) -> Triple:
        """How many boxes lie along the axes."""
        d, h, w = (ceil(n / size) for n, size in zip(out, self.size, strict=True))
        return d, h, w


class Cut(NamedTuple):
    """Output pixels to be cut into boxes, and how they map to those of the image."""

    images: int
    out: Triple
    stride: Triple
    span: Triple  # pixels from a window's first to its last
    taps: int
    copied: int = 0  # gradient of w: how many pixels of dy are copied together; 0: no gradient

    def patch(self, box: Box) -> Triple:
        """Pixels of the image along each axis that a box sees."""
        d, h, w = ((n - 1) * by + max(of, 1) for n, by, of in zip(box.size, self.stride, self.span, strict=True))
        return d, h, w

    def rounds(self, box: Box) -> int:
        """How many times a warp brings 32 pixels of the patch."""
        return ceil(box.images * prod(self.patch(box)) / 32)

    def steps(self, box: Box) -> int:
        """Slabs that are multiplied for one patch: taps, or a box's pixels."""
        return ceil(box.columns() / STEP) if self.copied else self.taps

    def number(self, box: Box) -> int:
        """How many boxes there are in all."""
        return ceil(self.images / box.images) * prod(box.along(self.out))

    def shared(self, tile: cost.Tile, box: Box) -> int:
        """Bytes of shared memory of a block: stages, two patches, and what is looked up."""
        patch, steps = 32 * self.rounds(box), self.steps(box)
        tables = 8 * patch + 16 * STEP * steps + 16 if self.copied else 4 * patch + 4 * steps
        return 3 * 64 * tile.m + 2 * 64 * patch + tables

    def together(self, tile: cost.Tile, box: Box) -> int:
        """Blocks that the shared memory of every multiprocessor has room for."""
        return (SHARED + RESERVED) // (self.shared(tile, box) + RESERVED)

    def read(self, box: Box) -> int:
        """Elements of a channel that a patch takes from the L2 cache: rows begin and end within sectors."""
        *rows, row = self.patch(box)
        return box.images * prod(rows) * (row + SECTOR)

    def across(self, box: Box) -> float:
        """The same of a slab's channels, for each of its k's."""
        return self.read(box) / max(self.steps(box), 1)

    def effort(self, tile: cost.Tile, box: Box) -> float:
        """What boxes cost, in elements of a channel that they read from the L2 cache: of A, and sectors of the patch.

        More where a multiprocessor has room for one such block, and where rows are no whole vectors.
        """
        read = tile.m * self.steps(box) + self.read(box)
        alone = 1.5 if self.together(tile, box) == 1 else 1.0
        return self.number(box) * read * alone * (1.1 if box.size[2] % 8 else 1.0)

    def boxes(self, columns: int) -> Iterator[Box]:
        """Boxes of at most so many pixels. Those of a gradient have whole groups of pixels, and are of whole images."""
        step = max(self.copied, 1)
        for w in range(step, min(columns, self.out[2]) + 1, step):
            for h in range(1, min(columns // w, self.out[1]) + 1):
                for d in range(1, min(columns // (w * h), self.out[0]) + 1):
                    most = min(columns // (w * h * d), self.images) if (d, h, w) == self.out else 1
                    yield Box(next(n for n in range(most, 0, -1) if not self.copied or self.images % n == 0), (d, h, w))


def cut_of(images: int, out: Triple, kernel: Triple, stride: Triple, dilation: Triple, copied: int = 0) -> Cut:
    """Of windows in so many images; where there are none, as if there were one."""
    some = triple(tuple(max(n, 1) for n in out), 1)
    return Cut(max(images, 1), some, stride, triple(spans(kernel, dilation), 1), prod(kernel), copied)


def _cut(windows: Windows) -> Cut:
    return cut_of(windows.images.shape[1], windows.out, windows.kernel, windows.stride, windows.dilation)


@lru_cache(maxsize=4096)
def box_of(tile: cost.Tile, cut: Cut) -> Box | None:
    """The box that a tile's blocks compute, or add up one after another; None where no patch fits shared memory."""
    columns = MOST_PIXELS if cut.copied else tile.n
    fitting = [b for b in cut.boxes(columns) if cut.shared(tile, b) <= SHARED]
    return min(fitting, key=lambda b: cut.effort(tile, b), default=None)


@lru_cache(maxsize=4096)
def fitting(tiles: tuple[cost.Tile, ...], cut: Cut) -> dict[cost.Tile, Box]:
    """Tiles with the shared memory that their boxes need, and as many blocks as this leaves room for."""
    if cut.copied:  # columns are of two groups of channels at most; pairs of pixels are copied for large tiles only
        least = min(t.n for t in tiles if cut.copied == COPIED[0] or t.n == MOST_PIXELS)
        tiles = tuple(t for t in tiles if least <= t.n <= GROUP * cut.taps)
    return {
        t._replace(shared=cut.shared(t, b), resident=min(t.resident, cut.together(t, b)), across=cut.across(b)): b
        for t in tiles
        if (b := box_of(t, cut))
    }


def wasted(tile: cost.Tile, box: Box, cut: Cut) -> float:
    """The share of a tile's multiply-adds that are for no pixel."""
    each = STEP * cut.steps(box) if cut.copied else tile.n
    return 1 - cut.images * prod(cut.out) / (cut.number(box) * each)


def run(
    suffix: str, tiles: tuple[cost.Tile, ...], rows: Array, windows: Windows, bias: Array | None, y: Array,
    places: tuple[int, int, int, int, int],
) -> None:  # fmt: skip
    """Filters `rows[G,O,taps*C]`, channels last, at all windows.

    places: elements of y from an image to the next and along the axes, and where the first pixel lies.
    """
    images, (groups, m, line) = windows.images, rows.shape
    if m * windows.pixels() * groups == 0:
        return
    boxes = fitting(tiles, cut := _cut(windows))
    slab = tiles[0].slab
    work = cost.Work(m, windows.pixels(), cut.taps * ceil(images.shape[2] / slab) * slab, groups, y.itemsize)
    choice = cost.choose(work, tuple(boxes), driver_of(y).multiprocessors)
    tile, box = choice.tile, boxes[choice.tile]
    work = work._replace(n=cut.number(box) * tile.n)
    area, vector = prod(y.shape[2:]), 16 // y.itemsize
    steps = (*places[:3], places[4], area, windows.out[2], box.size[2], driver_of(y).address(y) // y.itemsize)
    vectors = places[3] == 1 and all(step % vector == 0 for step in steps)
    batches = [(0, m * line), (0, steps_of(images)[0]), (0, m * area)]
    layout = pack_product(work, choice, (line, 0, area), groups, "none", vectors, batches)
    layout += _pack(windows, cut, tile, box, places)
    names = f"forward_{suffix}_{tile.name}", f"reduce_{SUFFIXES[y.dtype]}"
    _launch("conv_patch", names, work, choice, (rows, images, bias, y), layout)


def run_dw(suffix: str, tiles: tuple[cost.Tile, ...], dy: Array, windows: Windows, dw: Array) -> None:
    """`dw[G,O,C,K...]`, the sum over windows of images `dy[G,N,O,S...]`."""
    images, (groups, m, channels) = windows.images, dw.shape[:3]
    if dw.size == 0:
        return
    if _copied(dy) == 0 or min(dy.strides) < 0:
        dy = contiguous(dy)
    boxes = fitting(tiles, cut := _cut(windows)._replace(copied=_copied(dy)))
    columns = ceil(channels / GROUP) * GROUP * cut.taps
    work = cost.Work(m, columns, windows.pixels(), groups, dw.itemsize)
    choice = cost.choose(work, tuple(boxes), driver_of(dw).multiprocessors)
    tile, box = choice.tile, boxes[choice.tile]
    work = work._replace(k=cut.number(box) * cut.steps(box) * STEP)
    splits, each = cost.split(work.k, STEP, choice.splits)
    choice = choice._replace(splits=splits, slice=each)
    group, image, line, space = steps_of(dy)
    row = channels * cut.taps
    batches = [(0, group), (0, steps_of(images)[0]), (0, m * row)]
    layout = pack_product(work, choice, (line, 0, row), groups, "none", False, batches)
    layout += _pack(windows, cut, tile, box, (image, *space, 0))
    layout += struct.pack("<6Ii4x", *divisor(cut.images // box.images), *divisor(cut.taps), cut.steps(box))
    names = f"{suffix}_{tile.name}_{cut.copied}", f"reduce_{SUFFIXES[dw.dtype]}"
    _launch("conv_patch_dw", names, work, choice, (dy, images, None, dw), layout)


def _copied(dy: Array) -> int:
    """How many pixels of dy a kernel may copy at once: they lie side by side where all rows begin and end."""
    group, image, line, space = steps_of(dy)
    steps = (group, image, line, *space[:2], dy.shape[-1], driver_of(dy).address(dy) // dy.itemsize)
    fitting = (n for n in COPIED if space[2] == 1 and all(step % n == 0 for step in steps))
    return next(fitting, 0)


def _launch(
    module: str, names: tuple[str, str], work: cost.Work, choice: cost.Choice,
    operands: tuple[Array, Array, Array | None, Array], layout: bytes,
) -> None:  # fmt: skip
    """One launch, and another to add up splits. operands: of the product, bias, and the result."""
    _, _, bias, c = operands
    partial, tile = None, choice.tile
    if choice.splits > 1:
        partial = empty((work.batches, choice.splits, work.m, work.n), WIDE[c.dtype], c)
    grid = (choice.blocks(work),)
    launch(
        f"{module}.{module}_{names[0]}", grid, (tile.threads,), *operands, partial, layout, like=c, shared=tile.shared
    )
    if partial is not None:
        grid = grid_of(-(-work.batches * work.m * work.n // (16 // c.itemsize)), c)
        launch(f"{module}.{module}_{names[1]}", grid, (256,), partial, bias, c, layout, like=c)


def _pack(windows: Windows, cut: Cut, tile: cost.Tile, box: Box, places: tuple[int, int, int, int, int]) -> bytes:
    """`Patches` of conv_patch.cuh behind the product. places: of what lies in images too, result or dy."""
    images = windows.images
    axes = (box.along(cut.out), box.size, cut.patch(box), windows.kernel)
    _, image, channel, space = steps_of(images)
    rounds = cut.rounds(box)
    return struct.pack(
        "<36I33i4x", *(n for axis in axes for size in axis for n in divisor(size)),
        box.images, cut.images, tile.n, box.columns(), rounds, ceil(rounds / max(cut.steps(box), 1)), cut.taps,
        images.shape[2], *windows.stride, *windows.dilation, *windows.start, *images.shape[3:], image, *space,
        channel * images.itemsize, *cut.out, *places,
    )  # fmt: skip
