"""Convolutions and their gradients on `kernels/conv*.cu`, in two and three dimensions by the same kernels.

Each is a product of matrices; what is worked out here is how lines and k's of an operand, as numbers of four digits
(image or channel, then three coordinates), translate into places in memory and coordinates. See conv.cuh.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from dlcore import dtypes
from dlcore.backends.cuda import cost
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import CASTS, contiguous, copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, grid_of
from dlcore.backends.cuda.ops_matmul import MAX_ELEMENTS, pack_product
from dlcore.dispatch import Call, implement
from dlcore.ops import window
from dlcore.signature import Shape

Array = Any
Triple = tuple[int, int, int]


class Digits(NamedTuple):
    """A number of four digits: their sizes, what each is worth in elements of memory, the last three in coordinates."""

    sizes: tuple[int, int, int, int]
    worth: tuple[int, int, int, int]
    steps: Triple = (0, 0, 0)

    def pack(self) -> bytes:
        """`Digits` of conv.cuh."""
        divisors = [n for size in self.sizes[1:] for n in divisor(size)]
        return struct.pack("<9I4i3i", *divisors, *self.worth, *self.steps)

    def total(self) -> int:
        """How many numbers there are."""
        return prod(self.sizes)


def divisor(size: int) -> Triple:
    """`Divisor` of conv.cuh: division by multiplication, exact below 2^31 (Granlund and Montgomery 1994)."""
    size = max(size, 1)
    shift = (size - 1).bit_length()
    return size, -(-(1 << (31 + shift)) // size), shift


NOTHING = Digits((1, 1, 1, 1), (0, 0, 0, 0))


class Gather(NamedTuple):
    """An operand whose elements lie in images, zero outside of them."""

    line: Digits
    k: Digits
    origin: int
    start: Triple
    limit: Triple

    def pack(self) -> bytes:
        """`Gather` of conv.cuh."""
        return self.line.pack() + self.k.pack() + struct.pack("<7i", self.origin, *self.start, *self.limit)


class Geometry(NamedTuple):
    """Attributes of a convolution, in three dimensions."""

    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int


def geometry(stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Geometry:
    """Attributes of a lower rank with unit axes in front."""
    return Geometry(_triple(stride, 1), _triple(padding, 0), _triple(dilation, 1), groups)


def _triple(values: Shape, fill: int) -> Triple:
    a, b, c = (fill,) * (3 - len(values)) + tuple(values)
    return a, b, c


def _three_axes(x: Array) -> Array:
    return x.reshape(*x.shape[:2], *(1,) * (5 - x.ndim), *x.shape[2:])


def _strides(x: Array) -> tuple[int, int, Triple]:
    """Strides in elements: image, channel, and the three axes."""
    n, c, *space = (s // x.itemsize for s in x.strides)
    return n, c, (space[0], space[1], space[2])


def _times(a: Triple, b: Triple) -> Triple:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def _dot(a: Triple, b: Triple) -> int:
    return sum(_times(a, b))


def _negative(a: Triple) -> Triple:
    return -a[0], -a[1], -a[2]


def _rows(sizes: Triple) -> Triple:
    """Strides of a contiguous array."""
    return sizes[1] * sizes[2], sizes[2], 1


def _windows(x: Array, channels: int, kernel: Triple, out: Triple, g: Geometry) -> tuple[Digits, Digits, int]:
    """Windows (image, output pixel) and taps (channel of a group, kernel pixel) of x; where the first one begins."""
    n, c, space = _strides(x)
    pixels = Digits((x.shape[0], *out), (n, *_times(g.stride, space)), g.stride)
    taps = Digits((channels, *kernel), (c, *_times(g.dilation, space)), g.dilation)
    return pixels, taps, -_dot(g.padding, space)


class Task(NamedTuple):
    """One launch of `conv_<name>`, all but the operands."""

    name: str
    m: int
    lines: tuple[int, int]  # elements between rows of A, of C
    a: Digits
    a_origin: int
    b: Gather
    c: Digits
    c_origin: int
    groups: tuple[int, int, int]  # elements from one group to the next in A, B, C
    whole: int  # pixels that lie side by side in C


def _run(task: Task, groups: int, a: Array, b: Array, bias: Array | None, c: Array) -> None:
    """One launch, and another to add up splits."""
    m, n, k = task.m, task.b.line.total(), task.b.k.total()
    if m * n * groups == 0:
        return
    work = cost.Work(m, n, k, groups, c.itemsize)
    tiles = cost.F64 if c.dtype == dtypes.float64 else cost.F32
    choice = cost.choose(work, tiles, driver_of(c).multiprocessors)
    vectors = task.whole % (16 // c.itemsize) == 0 and driver_of(c).address(c) % 16 == 0
    batches = [(0, step) for step in task.groups]
    layout = pack_product(work, choice, (task.lines[0], 0, task.lines[1]), groups, "none", vectors, batches)
    layout += task.a.pack() + struct.pack("<i", task.a_origin) + task.b.pack() + task.c.pack()
    layout += struct.pack("<i4x", task.c_origin)
    partial = empty((groups, choice.splits, m, n), c.dtype, c) if choice.splits > 1 else None
    suffix, tile = SUFFIXES[c.dtype], choice.tile
    kernel = f"conv.conv_{task.name}_{suffix}_{tile.name.removesuffix('_any')}"
    launch(kernel, (choice.blocks(work),), (tile.threads,), a, b, bias, c, partial, layout, like=c)
    if partial is not None:
        grid = grid_of(groups * m * n, c)
        if task.c is NOTHING:
            size = struct.calcsize("<12i6qd")
            launch(f"gemm.gemm_reduce_{suffix}", grid, (256,), partial, bias, c, layout[:size], like=c)
        else:
            launch(f"conv.conv_reduce_{suffix}", grid, (256,), partial, bias, c, layout, like=c)


def forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`x[N,C,S...] w[O,C/groups,K...] b[O]? -> y[N,O,P...]`, all with three spatial axes."""
    (o, channels), kernel = w.shape[:2], w.shape[2:]
    out = window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation)
    y = empty((x.shape[0], o, *out), x.dtype, x)
    pixels, taps, origin = _windows(x, channels, kernel, _triple(out, 1), g)
    rows, area, inner = o // g.groups, prod(out), taps.total()
    gather = Gather(pixels, taps, origin, _negative(g.padding), x.shape[2:])
    image = Digits((x.shape[0], 1, 1, area), (o * area, 0, 0, 1))
    steps = (rows * inner, channels * _strides(x)[1], rows * area)
    task = Task("forward", rows, (inner, area), NOTHING, 0, gather, image, 0, steps, area)
    _run(task, g.groups, contiguous(w), x, None if b is None else contiguous(b), y)
    return y


class Residue(NamedTuple):
    """Along one axis: the inputs `first + stride * i`, and the taps `tap + step * j` that reach them from outputs."""

    first: int
    inputs: int
    tap: int
    step: int
    taps: int
    output: int  # the one that tap 0 of these reaches input 0 from
    back: int  # outputs from a tap to the next

    @staticmethod
    def along(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Iterator[Residue]:
        """Every input of an axis, once."""
        common = gcd(stride, dilation)
        step = stride // common
        for first in range(min(stride, size)):
            inputs = -(-(size - first) // stride)
            fitting = (t for t in range(min(step, kernel)) if (first + padding - t * dilation) % stride == 0)
            tap = next(fitting, kernel)
            output = (first + padding - tap * dilation) // stride
            taps = max(0, -(-(kernel - tap) // step))
            yield Residue(first, inputs, tap, step, taps, output, dilation // common)


def dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for x: one launch for each residue of the pixels modulo the stride."""
    channels, kernel = w.shape[1], _triple(w.shape[2:], 1)
    y = empty((dy.shape[0], channels * g.groups, *size), dy.dtype, dy)
    axes = [list(Residue.along(*a)) for a in zip(size, kernel, g.stride, g.padding, g.dilation, strict=True)]
    w = contiguous(w)
    for residues in product(*axes):
        _run(_dx_task(dy, channels, kernel, size, g, residues), g.groups, w, dy, None, y)
    return y


def _dx_task(
    dy: Array, channels: int, kernel: Triple, size: Triple, g: Geometry, residues: tuple[Residue, ...]
) -> Task:
    def each(name: str) -> Triple:
        a, b, c = (int(getattr(r, name)) for r in residues)
        return a, b, c

    n, c, space = _strides(dy)
    rows, area, weights = dy.shape[1] // g.groups, prod(size), prod(kernel)
    back = _negative(each("back"))
    pixels = Digits((dy.shape[0], *each("inputs")), (n, *space), (1, 1, 1))
    taps = Digits((rows, *each("taps")), (c, *_times(back, space)), back)
    gather = Gather(pixels, taps, _dot(each("output"), space), each("output"), dy.shape[2:])
    of_w = Digits(taps.sizes, (channels * weights, *_times(each("step"), _rows(kernel))))
    plain = g.stride == (1, 1, 1)
    image = Digits(pixels.sizes, (channels * g.groups * area, *_times(g.stride, _rows(size))))
    steps = (rows * channels * weights, rows * c, channels * area)
    return Task(
        "dx", channels, (weights, area), of_w, _dot(each("tap"), _rows(kernel)), gather, image,
        _dot(each("first"), _rows(size)), steps, area if plain else 1,
    )  # fmt: skip


def dw(dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for w."""
    rows, channels = dy.shape[1] // g.groups, x.shape[1] // g.groups
    y = empty((dy.shape[1], channels, *kernel), x.dtype, x)
    pixels, taps, origin = _windows(x, channels, kernel, dy.shape[2:], g)
    gather = Gather(taps, pixels, origin, _negative(g.padding), x.shape[2:])
    n, c, space = _strides(dy)
    columns = taps.total()
    steps = (rows * c, channels * _strides(x)[1], rows * columns)
    of_dy = Digits(pixels.sizes, (n, *space))
    _run(Task("dw", rows, (c, columns), of_dy, 0, gather, NOTHING, 0, steps, columns), g.groups, dy, x, None, y)
    return y


# ---- ops


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    _, outputs = call.op.resolve(list(call.shapes), call.attrs)
    large = any(prod(s) >= MAX_ELEMENTS for s in (*call.shapes, *outputs) if s is not None)
    return "too many elements" if large else None


def _wide(x: Array | None) -> Array | None:
    """16-bit floats in float32."""
    if x is None or not dtypes.is_half(x.dtype):
        return x
    return copy(f"copy_cast_{CASTS[x.dtype]}_f32", x, dtypes.float32)


def _narrow(x: Array, dtype: Any) -> Array:
    return x if x.dtype == dtype else copy(f"copy_cast_f32_{CASTS[dtype]}", x, dtype)


def _register(rank: int) -> None:
    def finish(y: Array, dtype: Any) -> Array:
        return _narrow(y, dtype).reshape(*y.shape[:2], *y.shape[5 - rank :])

    @implement(f"conv{rank}d", "cuda", refuse=_refuse)
    def conv(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Array:
        """Cross-correlation, bias added before the tile is stored."""
        return finish(forward(_three_axes(_wide(x)), _three_axes(_wide(w)), _wide(b), geometry(**attrs)), x.dtype)

    @implement(f"conv{rank}d_dx", "cuda", refuse=_refuse)
    def conv_dx(dy: Array, w: Array, *, size: Shape, **attrs: Any) -> Array:
        """Gradient for x of spatial sizes `size`."""
        y = dx(_three_axes(_wide(dy)), _three_axes(_wide(w)), _triple(size, 1), geometry(**attrs))
        return finish(y, dy.dtype)

    @implement(f"conv{rank}d_dw", "cuda", refuse=_refuse)
    def conv_dw(dy: Array, x: Array, *, kernel: Shape, **attrs: Any) -> Array:
        """Gradient for w of spatial sizes `kernel`."""
        y = dw(_three_axes(_wide(dy)), _three_axes(_wide(x)), _triple(kernel, 1), geometry(**attrs))
        return finish(y, dy.dtype)


for _rank in (2, 3):
    _register(_rank)
