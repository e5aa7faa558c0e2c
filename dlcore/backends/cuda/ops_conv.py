"""Convolutions and their gradients on `kernels/conv*.cu`, in two and three dimensions by the same kernels.

Each is a product of matrices; what is worked out here is how lines and k's of an operand, as numbers of four digits
(image or channel, then three coordinates), translate into places in memory and coordinates. See conv.cuh.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from dlcore import dtypes, settings
from dlcore.backends.cuda import cost
from dlcore.backends.cuda import ops_matmul as matrices
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import CASTS, contiguous, copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, grid_of, run
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


# ---- as many groups as channels: one thread a result


def _planes(x: Shape, y: Shape, kernel: Triple, g: Geometry, channels: int, count: int) -> bytes:
    """`Planes` of conv_direct.cu, of the shapes of x and y; channels of the result, and how many results there are."""
    axes = [n for size in (*kernel, *g.stride, *x[2:], *y[2:], channels) for n in divisor(size)]
    sizes = (*x[2:], *y[2:], *kernel, *g.stride, *g.padding, *g.dilation)
    return struct.pack("<18i39IiI", *sizes, *axes, y[1] // max(x[1], 1), count)


def _direct(kernel: str, grid: tuple[int, ...], *arguments: Any, like: Array) -> None:
    launch(f"conv_direct.conv_{kernel}_{SUFFIXES[like.dtype]}", grid, (256,), *arguments, like=like)


def depthwise_forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`forward` with one input channel a group."""
    kernel = _triple(w.shape[2:], 1)
    out = window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation)
    y = empty((x.shape[0], w.shape[0], *out), x.dtype, x)
    planes = _planes(x.shape, y.shape, kernel, g, y.shape[1], y.size)
    bias = None if b is None else contiguous(b)
    if y.size:
        _direct("depthwise_forward", grid_of(y.size, x), contiguous(x), contiguous(w), bias, y, planes, like=x)
    return y


def depthwise_dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """`dx` with one input channel a group."""
    y = empty((dy.shape[0], g.groups, *size), dy.dtype, dy)
    planes = _planes(y.shape, dy.shape, _triple(w.shape[2:], 1), g, g.groups, y.size)
    if y.size:
        _direct("depthwise_dx", grid_of(y.size, dy), contiguous(dy), contiguous(w), y, planes, like=dy)
    return y


def depthwise_dw(dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """`dw` with one input channel a group."""
    y = empty((dy.shape[1], 1, *kernel), x.dtype, x)
    planes = _planes(x.shape, dy.shape, kernel, g, dy.shape[1], dy.shape[0] * prod(dy.shape[2:]))
    if y.size:
        _direct("depthwise_dw", (y.size,), contiguous(dy), contiguous(x), y, planes, like=x)
    return y


# ---- the textbook's way: patches as columns of a matrix


def im2col(x: Array, kernel: Triple, out: Triple, g: Geometry) -> Array:
    """Columns `[N, groups, C/groups * taps, pixels]` of `x[N,C,S...]`."""
    channels, count = x.shape[1] // g.groups, x.shape[1] * prod(kernel)
    columns = empty((x.shape[0], g.groups, channels * prod(kernel), prod(out)), x.dtype, x)
    pixels, taps, origin = _windows(x, x.shape[1], kernel, out, g)
    gather = Gather(pixels, taps, origin, _negative(g.padding), x.shape[2:]).pack()
    if columns.size:
        launch(f"conv_direct.conv_im2col_b{x.itemsize}", grid_of(columns.size, x), (256,),
               x, columns, gather, count, prod(out), columns.size, like=x)  # fmt: skip
    return columns


def _grouped(w: Array, groups: int) -> Array:
    """`w[O,C/groups,K...]` as `[groups, O/groups, C/groups * taps]`."""
    return contiguous(w).reshape(groups, w.shape[0] // max(groups, 1), prod(w.shape[1:]))


def im2col_forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`forward` by a matrix of patches."""
    kernel = _triple(w.shape[2:], 1)
    out = _triple(window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation), 1)
    y = matrices.product(_grouped(w, g.groups), im2col(x, kernel, out, g)).reshape(x.shape[0], w.shape[0], *out)
    return y if b is None else run(f"elementwise_add_{SUFFIXES[x.dtype]}", (y, b.reshape(-1, 1, 1, 1)), x.dtype)


def im2col_dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """`dx` by a matrix of patches."""
    n, o = dy.shape[:2]
    rows = contiguous(dy).reshape(n, g.groups, o // g.groups, prod(dy.shape[2:]))
    columns = matrices.product(_grouped(w, g.groups).swapaxes(-1, -2), rows)
    return col2im(columns, (n, w.shape[1] * g.groups, *size), _triple(w.shape[2:], 1), _triple(dy.shape[2:], 1), g)


def col2im(columns: Array, shape: Shape, kernel: Triple, out: Triple, g: Geometry) -> Array:
    """Columns added up at the places of their windows in an array of a shape `[N,C,D,H,W]`: the adjoint of im2col."""
    y = empty(shape, columns.dtype, columns)
    planes = _planes(shape, (*shape[:2], *out), kernel, g, shape[1], y.size)
    if y.size:
        _direct("col2im", grid_of(y.size, y), columns, y, planes, like=y)
    return y


def im2col_dw(dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """`dw` by a matrix of patches."""
    columns = im2col(x, kernel, dy.shape[2:], g)
    n, groups, _, pixels = columns.shape
    rows = contiguous(dy).reshape(n, groups, dy.shape[1] // groups, pixels)
    left, right = (contiguous(m.transpose(1, 2, 0, 3)).reshape(groups, m.shape[2], n * pixels) for m in (rows, columns))
    return matrices.product(left, right.swapaxes(-1, -2)).reshape(dy.shape[1], x.shape[1] // groups, *kernel)


# ---- ops


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    _, outputs = call.op.resolve(list(call.shapes), call.attrs)
    large = any(prod(s) >= MAX_ELEMENTS for s in (*call.shapes, *outputs) if s is not None)
    return "too many elements" if large else None


def _refuse_im2col(call: Call) -> str | None:
    if settings.get("VARIANT").get(call.op.name) != "im2col":
        return "slower: taken only when asked for by DLCORE_VARIANT"
    return "no kernel for arrays without elements" if 0 in call.dims.values() else _refuse(call)


def _refuse_depthwise(call: Call) -> str | None:
    channels = call.dims["C"]
    return _refuse(call) if channels == call.attrs["groups"] > 1 else "not as many groups as input channels"


def _wide(x: Array | None) -> Array | None:
    """16-bit floats in float32."""
    if x is None or not dtypes.is_half(x.dtype):
        return x
    return copy(f"copy_cast_{CASTS[x.dtype]}_f32", x, dtypes.float32)


class Variant(NamedTuple):
    """One way to compute the three passes; `wide`: 16-bit floats pass through float32."""

    refuse: Callable[[Call], str | None]
    forward: Callable[[Array, Array, Array | None, Geometry], Array]
    dx: Callable[[Array, Array, Triple, Geometry], Array]
    dw: Callable[[Array, Array, Triple, Geometry], Array]
    wide: bool = False


VARIANTS = {  # the last one is tried first
    "im2col": Variant(_refuse_im2col, im2col_forward, im2col_dx, im2col_dw),
    "native": Variant(_refuse, forward, dx, dw, wide=True),
    "depthwise": Variant(_refuse_depthwise, depthwise_forward, depthwise_dx, depthwise_dw),
}


def _register(rank: int, name: str, v: Variant) -> None:
    def ready(x: Array | None) -> Any:
        return _wide(x) if v.wide else x

    def finish(y: Array, dtype: Any) -> Array:
        if y.dtype != dtype:
            y = copy(f"copy_cast_f32_{CASTS[dtype]}", y, dtype)
        return y.reshape(*y.shape[:2], *y.shape[5 - rank :])

    @implement(f"conv{rank}d", "cuda", name, v.refuse)
    def conv(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Array:
        """Cross-correlation, bias added before the tile is stored."""
        return finish(v.forward(_three_axes(ready(x)), _three_axes(ready(w)), ready(b), geometry(**attrs)), x.dtype)

    @implement(f"conv{rank}d_dx", "cuda", name, v.refuse)
    def conv_dx(dy: Array, w: Array, *, size: Shape, **attrs: Any) -> Array:
        """Gradient for x of spatial sizes `size`."""
        y = v.dx(_three_axes(ready(dy)), _three_axes(ready(w)), _triple(size, 1), geometry(**attrs))
        return finish(y, dy.dtype)

    @implement(f"conv{rank}d_dw", "cuda", name, v.refuse)
    def conv_dw(dy: Array, x: Array, *, kernel: Shape, **attrs: Any) -> Array:
        """Gradient for w of spatial sizes `kernel`."""
        y = v.dw(_three_axes(ready(dy)), _three_axes(ready(x)), _triple(kernel, 1), geometry(**attrs))
        return finish(y, dy.dtype)


for _rank in (2, 3):
    for _name, _variant in VARIANTS.items():
        _register(_rank, _name, _variant)
