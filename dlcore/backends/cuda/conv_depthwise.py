"""Depthwise convolutions on `kernels/conv_depthwise.cu`: tiles of a result, and what the windows of a tile see."""

from __future__ import annotations

import struct
from math import gcd, lcm, prod
from typing import Any, NamedTuple

from dlcore.backends.cuda.conv_geometry import Geometry, Triple, divisor, triple
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.backends.cuda.ops_matmul import WIDE
from dlcore.ops import window
from dlcore.signature import Shape

Array = Any

THREADS, WARPS, ROWS, SQUARE = 256, 8, 8, 3  # kThreads, kWarps, kRows and kSquare of conv_depthwise.cu
WIDEST = 64  # columns of a tile
WANTED, MOST = 16 * 1024, 48 * 1024  # bytes of shared memory: with room for many blocks, and what a block may have
BLOCKS = 4096  # of the gradient of w, about


class Axis(NamedTuple):
    """Tap k of result i sees element `(i * stride + start + k * dilation) / zoom`, where that is whole."""

    size: int
    out: int
    kernel: int
    stride: int
    start: int
    dilation: int
    zoom: int

    @property
    def step(self) -> int:
        """Results from one row of a strip to the next: those whose windows lie whole taps apart."""
        least = lcm(self.dilation, self.zoom)
        return least // gcd(self.stride, least)

    def seen(self, results: int, unit: int) -> tuple[int, int, int]:
        """Of the first tile: its first element, a multiple of `unit`, `start` from there, how many are seen."""
        origin = self.start // self.zoom // unit * unit
        skew = self.start - origin * self.zoom
        last = (results - 1) * self.stride + skew + (self.kernel - 1) * self.dilation
        return origin, skew, -(-(last // self.zoom + 1) // unit) * unit


def _axes(sizes: Shape, out: Shape, kernel: Triple, g: Geometry, back: bool) -> list[Axis]:
    """Of three dimensions; back: of the gradient of x, which sees dy by a filter that is turned round."""
    found = zip(sizes, out, kernel, g.stride, g.padding, g.dilation, strict=True)
    if back:
        return [Axis(n, o, k, 1, p - (k - 1) * d, d, s) for n, o, k, s, p, d in found]
    return [Axis(n, o, k, s, -p, d, 1) for n, o, k, s, p, d in found]


class Tile(NamedTuple):
    """What a block computes: strips of rows side by side in a tile of some slices."""

    columns: int
    strips: int
    slices: int

    def fits(self, axes: list[Axis], itemsize: int, unit: int, limit: int) -> bool:
        """Whether there is a thread for each strip and for each vector of a row, and so many bytes are enough."""
        threads = max(prod(self), self.pitches(axes, itemsize, unit)[0])
        return threads <= THREADS and self.shared(axes, itemsize, unit) <= limit

    def pitches(self, axes: list[Axis], itemsize: int, unit: int) -> tuple[int, int]:
        """Elements of shared memory from a row to the next, from a slice: slices in different banks."""
        rows, pitch = axes[1].seen(ROWS * self.strips, 1)[2], axes[2].seen(self.columns, unit)[2]
        size, wanted = rows * pitch * itemsize, -(-self.columns * itemsize // 16) * 16
        return pitch, (size + (wanted - size) % 128) // itemsize

    def shared(self, axes: list[Axis], itemsize: int, unit: int) -> int:
        """Bytes of shared memory: what the windows see, and a number in f32 or f64 for each tap, slice and warp."""
        sums = max(self.slices, WARPS) * prod(a.kernel for a in axes) * max(itemsize, 4)
        return self.slices * self.pitches(axes, itemsize, unit)[1] * itemsize + sums


def _smaller(tile: Tile, step: int, unit: int) -> Tile:
    """A tile of about half the size; the same where there is none."""
    if tile.slices > 1:
        return tile._replace(slices=-(-tile.slices // 2))
    if tile.strips > step:
        return tile._replace(strips=-(-tile.strips // (2 * step)) * step)
    return tile._replace(columns=max(unit, tile.columns // 2 // unit * unit)) if tile.columns > unit else tile


def _tile(axes: list[Axis], itemsize: int, slices: int, vector: int) -> Tile:
    """The largest tile that leaves room for other blocks; the smallest one where none does."""
    (_, down, along), unit = axes, vector * axes[2].zoom
    across = -(-along.out // WIDEST)
    columns = along.out if across == 1 else -(-along.out // (across * unit)) * unit
    strips = -(-down.out // (ROWS * down.step)) * down.step
    strips = max(down.step, min(strips, THREADS // columns // down.step * down.step))
    tile = Tile(columns, strips, max(1, min(slices, THREADS // (columns * strips))))
    while not tile.fits(axes, itemsize, vector, WANTED):
        smaller = _smaller(tile, down.step, unit)
        if smaller == tile:
            break
        tile = smaller
    return tile


def refuse(kernel: Triple, g: Geometry, itemsize: int) -> str | None:
    """Why these kernels do not take windows of that shape."""
    for back in (False, True):
        axes = _axes((1, 1, 1), (1, 2**20, 2**20), kernel, g, back)
        if not _tile(axes, itemsize, 1, 16 // itemsize).fits(axes, itemsize, 16 // itemsize, MOST):
            return "the windows of a tile do not fit into shared memory"
    return None


class Task(NamedTuple):
    """A launch: shapes, cut into tiles."""

    axes: list[Axis]
    tile: Tile
    slices: int
    channels: int  # of the result
    multiple: int  # planes of the result for a plane of the input
    planes: int  # of the input for a plane of the result
    back: bool
    vector: int  # elements that are copied together

    def tiles(self) -> int:
        """Blocks, or for the gradient of w tiles of a channel."""
        return -(-self.slices // self.tile.slices) * self.down() * self.across()

    def down(self) -> int:
        """Tiles of a slice from top to bottom."""
        return -(-self.axes[1].out // (ROWS * self.tile.strips))

    def across(self) -> int:
        """Tiles of a slice from left to right."""
        return -(-self.axes[2].out // self.tile.columns)

    def shared(self, itemsize: int) -> int:
        """Bytes of shared memory."""
        return self.tile.shared(self.axes, itemsize, self.vector)

    def pack(self, itemsize: int) -> bytes:
        """`Depthwise` of conv_depthwise.cu."""
        depth, down, along = self.axes
        tile, taps, cycle = self.tile, prod(a.kernel for a in self.axes), down.step * down.stride // down.dilation
        pitch, slice_pitch = tile.pitches(self.axes, itemsize, self.vector)
        rows, results = down.seen(ROWS * tile.strips, 1), (ROWS * tile.strips, tile.columns)
        seen = (0, 0, 1), rows, along.seen(tile.columns, self.vector)
        width, square = pitch // self.vector, down.kernel == along.kernel == SQUARE and cycle == 1
        moves = [n * a.stride // a.zoom for n, a in zip(results, self.axes[1:], strict=True)]
        numbers = [*(getattr(a, name) for name in Axis._fields[:6] for a in self.axes), *(s[0] for s in seen)]
        numbers += [*(s[1] for s in seen), down.step, cycle, down.step * down.stride // down.zoom * pitch, pitch]
        numbers += [slice_pitch, *reversed(results), tile.strips, taps, self.planes, self.back]
        numbers += [self.vector > 1, square, self.slices, THREADS // width, *divmod(THREADS // width, rows[2]), *moves]
        sizes = [a.zoom for a in self.axes] + [depth.out, self.channels, self.multiple, taps, down.step]
        sizes += [self.across(), self.down(), tile.columns, tile.slices, width, rows[2]]
        return struct.pack(f"<{len(numbers)}i", *numbers) + struct.pack(
            f"<{3 * len(sizes)}I", *[n for size in sizes for n in divisor(size)]
        )


def _task(x: Array, axes: list[Axis], slices: int, channels: int, multiple: int, planes: int, back: bool) -> Task:
    """Of windows of x."""
    aligned = x.shape[-1] * x.itemsize % 16 == 0 and driver_of(x).address(x) % 16 == 0
    vector = 16 // x.itemsize
    tile = _tile(axes, x.itemsize, slices, vector)
    return Task(axes, tile, slices, channels, multiple, planes, back, vector if aligned else 1)


def _launch(name: str, grid: int, *arguments: Any, like: Array, shared: int = 0) -> None:
    kernel = f"conv_depthwise.conv_depthwise_{name}_{SUFFIXES[like.dtype]}"
    launch(kernel, (grid,), (THREADS,), *arguments, like=like, shared=shared)


def forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`x[N,C,D,H,W] w[O,1,K...] b[O]? -> y[N,O,P...]`."""
    kernel = triple(w.shape[2:], 1)
    out = window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation)
    y, x = empty((x.shape[0], w.shape[0], *out), x.dtype, x), contiguous(x)
    if y.size:
        axes, multiple = _axes(x.shape[2:], out, kernel, g, False), y.shape[1] // x.shape[1]
        task = _task(x, axes, prod(y.shape[:3]), y.shape[1], multiple, 1, False)
        operands = x, contiguous(w), None if b is None else contiguous(b), y, task.pack(x.itemsize)
        _launch("forward", task.tiles(), *operands, like=x, shared=task.shared(x.itemsize))
    return y


def dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for x of spatial sizes `size`."""
    y, dy = empty((dy.shape[0], g.groups, *size), dy.dtype, dy), contiguous(dy)
    if y.size:
        axes = _axes(dy.shape[2:], size, triple(w.shape[2:], 1), g, True)
        task = _task(dy, axes, prod(y.shape[:3]), g.groups, 1, dy.shape[1] // g.groups, True)
        _launch(
            "dx", task.tiles(), dy, contiguous(w), y, task.pack(dy.itemsize), like=dy, shared=task.shared(dy.itemsize)
        )
    return y


def dw(dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for w of spatial sizes `kernel`: sums of chunks of images, then of these."""
    y, x = empty((dy.shape[1], 1, *kernel), x.dtype, x), contiguous(x)
    if y.size:
        axes = _axes(x.shape[2:], dy.shape[2:], kernel, g, False)
        task = _task(x, axes, dy.shape[0] * dy.shape[2], y.shape[0], y.shape[0] // x.shape[1], 1, False)
        chunks = max(1, min(task.tiles(), BLOCKS // y.shape[0]))
        part = empty((chunks, y.size), WIDE[x.dtype], x) if chunks > 1 else None
        operands = contiguous(dy), x, y, part, task.pack(x.itemsize), chunks
        _launch("dw", y.shape[0] * chunks, *operands, like=x, shared=task.shared(x.itemsize))
        if part is not None:
            _launch("sum", -(-y.size // THREADS), part, y, y.size, chunks, like=x)
    return y
