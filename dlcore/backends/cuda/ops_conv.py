"""Convolutions and their gradients on `kernels/conv*.cu`, in two and three dimensions by the same kernels.

Each is a product of matrices; what is worked out here is how lines and k's of an operand, as numbers of four digits
(image or channel, then three coordinates), translate into places in memory and coordinates. See conv.cuh.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import ceil, gcd, prod
from typing import Any, NamedTuple

from dlcore import dtypes, settings
from dlcore.backends.cuda import conv_depthwise, conv_patch, cost
from dlcore.backends.cuda import ops_matmul as matrices
from dlcore.backends.cuda.conv_geometry import (
    Digits,
    Geometry,
    Triple,
    Windows,
    divisor,
    dot,
    geometry,
    spans,
    steps_of,
    times,
    triple,
)
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, broadcast_strides, grid_of, merged, run
from dlcore.backends.cuda.ops_matmul import MAX_ELEMENTS, WIDE, pack_product
from dlcore.dispatch import Call, implement
from dlcore.ops import window
from dlcore.signature import Shape

Array = Any


NOTHING = Digits((1, 1, 1, 1), (0, 0, 0, 0))


def _three_axes(x: Array) -> Array:
    return x.reshape(*x.shape[:2], *(1,) * (5 - x.ndim), *x.shape[2:])


def _negative(a: Triple) -> Triple:
    return -a[0], -a[1], -a[2]


def _rows(sizes: Triple) -> Triple:
    """Strides of a contiguous array."""
    return sizes[1] * sizes[2], sizes[2], 1


def _images(x: Array, groups: int) -> Array:
    """`x[N,G*C,S...]` as a view `[G,N,C,S...]`."""
    n, c, *space = x.shape
    return x.reshape(n, groups, c // max(groups, 1), *space).transpose(1, 0, 2, 3, 4, 5)


def _filters(w: Array, groups: int) -> Array:
    """`w[G*O,C,K...]` as a view `[G,O,C,K...]`."""
    return w.reshape(groups, w.shape[0] // max(groups, 1), *w.shape[1:])


def channels_last(x: Array) -> Array:
    """`x[G,N,C,S...]` as `[G,N,S...,C]`, with channels of zeros added to whole vectors of 16 bytes, at least one."""
    g, n, c, *space = x.shape
    vector = 16 // x.itemsize
    padded = max(-(-c // vector), 1) * vector
    y = empty((g, n, *space, padded), x.dtype, x)
    group, image, channel, steps = steps_of(x)
    lines = n * prod(space)
    layout = Digits((n, *space), (image, *steps)).pack() + struct.pack("<2i3I", channel, group, lines, c, padded)
    grid = (-(-lines // 32), -(-padded // 32), g)
    launch(f"conv_tensor.conv_channels_last_b{x.itemsize}", grid, (32, 8), x, y, layout, like=x)
    return y


class Way(NamedTuple):
    """Which kernels compute a product."""

    module: str
    tensor: bool = False  # on tensor cores; operands are channels last
    tf32: bool = False
    patch: bool = False  # images are taken as they are (conv_patch.py)

    def images(self, x: Array) -> Array:
        """`x[G,N,C,S...]` in the order of memory that the kernels take."""
        if self.tensor and not self.patch:
            return channels_last(x).transpose(0, 1, 5, 2, 3, 4)
        return x if min(x.strides) >= 0 else contiguous(x)

    def rows(self, w: Array) -> Array:
        """`w[G,O,C,K...]` as matrices `[G,O,k]`."""
        packed = channels_last(w) if self.tensor else contiguous(w)
        return packed.reshape(*w.shape[:2], prod(packed.shape[2:]))

    @property
    def family(self) -> str:
        """Beginning of the kernels' names."""
        return "conv_patch" if self.patch else "conv"

    def kernels(self, dtype: Any) -> tuple[str, tuple[cost.Tile, ...]]:
        """End of the kernels' names, without the tile, and the tiles that there are."""
        if self.tensor:
            suffix, tiles = ("tf32", cost.TF32) if self.tf32 else (SUFFIXES[dtype], cost.HALF)
            return suffix, tuple(t for t in tiles if t.n <= 128)
        return SUFFIXES[dtype], cost.F64 if dtype == dtypes.float64 else cost.F32


SIMT, TENSOR = Way("conv"), Way("conv_tensor", tensor=True)
PATCH = Way("conv_patch", tensor=True, patch=True)
TF32 = PATCH._replace(tf32=True)


class Task(NamedTuple):
    """One launch of `conv_<name>`, all but the operands."""

    name: str
    m: int
    n: int
    k: int
    lines: tuple[int, int]  # elements between rows of A, of C
    windows: Windows
    groups: tuple[int, int]  # elements from one group to the next in A, C
    whole: int  # columns that lie side by side in C
    c: Digits = NOTHING
    c_origin: int = 0
    a: tuple[int, int, int] = (1, 0, 0)  # of A, where it is images: pixels; elements between images, pixels


def _run(way: Way, task: Task, a: Array, bias: Array | None, c: Array) -> None:
    """One launch, and another to add up splits."""
    m, n, k, images = task.m, task.n, task.k, task.windows.images
    groups = images.shape[0]
    if m * n * groups == 0:
        return
    work, (suffix, tiles) = cost.Work(m, n, k, groups, c.itemsize), way.kernels(c.dtype)
    choice = cost.choose(work, tiles, driver_of(c).multiprocessors)
    vectors = task.whole % (16 // c.itemsize) == 0 and driver_of(c).address(c) % 16 == 0
    batches = [(0, step) for step in (task.groups[0], steps_of(images)[0], task.groups[1])]
    packed = pack_product(work, choice, (task.lines[0], 0, task.lines[1]), groups, "none", vectors, batches)
    layout = packed + task.windows.pack() + task.c.pack()
    layout += struct.pack("<i3I2i", task.c_origin, *divisor(task.a[0]), *task.a[1:])
    sums = empty((groups, choice.splits, m, n), WIDE[c.dtype], c) if choice.splits > 1 else None
    tile, table = choice.tile, 8 * (prod(task.windows.kernel) + 1) if task.name == "forward" else 0
    kernel = f"{way.module}.conv_{task.name}_{suffix}_{tile.name.removesuffix('_any')}"
    arguments = (a, images, bias, c, sums, layout)
    launch(kernel, (choice.blocks(work),), (tile.threads,), *arguments, like=c, shared=tile.shared + table)
    if sums is not None:
        grid = grid_of(-(-groups * m * n // (16 // c.itemsize)), c)
        rows = task.c is NOTHING
        name = f"{'gemm.gemm' if rows else 'conv.conv'}_reduce_{SUFFIXES[c.dtype]}"
        launch(name, grid, (256,), sums, bias, c, packed if rows else layout, like=c)


def forward(way: Way, x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`x[N,C,S...] w[O,C/groups,K...] b[O]? -> y[N,O,P...]`, all with three spatial axes."""
    kernel = triple(w.shape[2:], 1)
    out = triple(window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation), 1)
    y = empty((x.shape[0], w.shape[0], *out), x.dtype, x)
    images = way.images(_images(x, g.groups))
    windows = Windows(images, out, kernel, g.stride, _negative(g.padding), g.dilation, way.tensor)
    area = prod(out)
    columns = Digits((x.shape[0], *out), (w.shape[0] * area, *_rows(out)))
    _correlate(way, _filters(w, g.groups), windows, b, y, columns, 0, area)
    return y


def _correlate(
    way: Way, w: Array, windows: Windows, b: Array | None, y: Array, columns: Digits, origin: int, whole: int
) -> None:
    """Filters `w[G,O,C,K...]` at all windows: those pixels of y that `columns` says, from `origin` on."""
    rows, area = way.rows(w), prod(y.shape[2:])
    bias = None if b is None else contiguous(b)
    if way.patch:
        conv_patch.run(*way.kernels(y.dtype), rows, windows, bias, y, (*columns.worth, origin))
    else:
        _, m, k = rows.shape
        task = Task("forward", m, windows.pixels(), k, (k, area), windows, (m * k, m * area), whole, columns, origin)
        _run(way, task, rows, bias, y)


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

    @property
    def start(self) -> int:
        """The output that the last of these taps reaches input 0 from: a window's first."""
        return self.output - self.back * (self.taps - 1)

    @property
    def turned(self) -> slice:
        """These taps, the last one first."""
        return slice(self.tap + self.step * (self.taps - 1), self.tap - 1 if self.tap else None, -self.step)


def dx(way: Way, dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for x: w turned round at windows of dy, for every residue of pixels modulo the stride."""
    kernel = triple(w.shape[2:], 1)
    y = empty((dy.shape[0], w.shape[1] * g.groups, *size), dy.dtype, dy)
    axes = [list(Residue.along(*a)) for a in zip(size, kernel, g.stride, g.padding, g.dilation, strict=True)]
    images, turned = way.images(_images(dy, g.groups)), _filters(w, g.groups).swapaxes(1, 2)
    for residues in product(*axes):
        _dx_of(way, images, turned, residues, g, y)
    return y


def _dx_of(way: Way, images: Array, w: Array, residues: tuple[Residue, ...], g: Geometry, y: Array) -> None:
    def each(name: str) -> Triple:
        a, b, c = (int(getattr(r, name)) for r in residues)
        return a, b, c

    size = triple(y.shape[2:], 1)
    windows = Windows(images, each("inputs"), each("taps"), (1, 1, 1), each("start"), each("back"), way.tensor)
    columns = Digits((y.shape[0], *windows.out), (prod(y.shape[1:]), *times(g.stride, _rows(size))))
    taps = w[(..., *(r.turned if r.taps else slice(0, 0) for r in residues))]
    whole = prod(size) if g.stride == (1, 1, 1) else 1
    _correlate(way, taps, windows, None, y, columns, dot(each("first"), _rows(size)), whole)


def dw(way: Way, dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """Gradient of `forward` for w."""
    out = triple(dy.shape[2:], 1)
    images = way.images(_images(x, g.groups))
    windows = Windows(images, out, kernel, g.stride, _negative(g.padding), g.dilation, way.tensor)
    rows, channels = dy.shape[1] // g.groups, x.shape[1] // g.groups
    if way.patch:
        y = empty((g.groups, rows, channels, *kernel), x.dtype, x)
        conv_patch.run_dw(*way.kernels(x.dtype), _images(dy, g.groups), windows, y)
        return y.reshape(dy.shape[1], channels, *kernel)
    n = prod(kernel) * images.shape[2]
    y = empty((g.groups, rows, n), x.dtype, x)
    a, pixel = (channels_last(_images(dy, g.groups)), 0) if way.tensor else _lined(_images(dy, g.groups))
    group, image, channel, _ = steps_of(a)
    line = a.shape[-1] if way.tensor else channel
    task = Task("dw", rows, n, windows.pixels(), (line, n), windows, (group, rows * n), n, a=(prod(out), image, pixel))
    _run(way, task, a, None, y)
    if way.tensor:
        y = contiguous(y.reshape(g.groups, rows, *kernel, images.shape[2])[..., :channels].transpose(0, 1, 5, 2, 3, 4))
    return y.reshape(dy.shape[1], channels, *kernel)


def _lined(images: Array) -> tuple[Array, int]:
    """`[G,N,C,S...]` and the elements from a pixel to the next: a copy where these or channels have no one step."""
    space, (steps,) = merged(images.shape[3:], [broadcast_strides(images, images.shape)[3:]])
    return (images, steps[0]) if len(space) == 1 and images.strides[2] >= 0 else (contiguous(images), 1)


# ---- few channels


def few_forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`forward` of so few channels that all of w fits a block's shared memory."""
    kernel, k = triple(w.shape[2:], 1), prod(w.shape[1:])
    out = triple(window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation), 1)
    y = empty((x.shape[0], w.shape[0], *out), x.dtype, x)
    windows = Windows(_images(x, 1), out, kernel, g.stride, _negative(g.padding), g.dilation, False)
    step = _few_step(w.shape[0])
    layout = windows.pack(of_all=True) + struct.pack("<5Ii", *divisor(prod(out)), windows.pixels(), step, w.shape[0])
    shared = _few_shared(k, w.shape[0], WIDE[x.dtype].itemsize)
    bias = None if b is None else contiguous(b)
    name, grid = f"conv_direct.conv_few_forward_{SUFFIXES[x.dtype]}", (-(-windows.pixels() // 512),)
    if y.size:
        launch(name, grid, (128,), x, contiguous(w), bias, y, layout, like=x, shared=shared)
    return y


def _few_step(channels: int) -> int:
    return -(-channels // 16) * 16 + 4


def _few_shared(k: int, channels: int, itemsize: int) -> int:
    """Bytes of shared memory: a table of k's and w."""
    return (k + 2) // 2 * 16 + k * _few_step(channels) * itemsize


# ---- the textbook's way: patches as columns of a matrix


def im2col(x: Array, kernel: Triple, out: Triple, g: Geometry) -> Array:
    """Columns `[N, groups, C/groups * taps, pixels]` of `x[N,C,S...]`."""
    channels, count = x.shape[1] // g.groups, x.shape[1] * prod(kernel)
    columns = empty((x.shape[0], g.groups, channels * prod(kernel), prod(out)), x.dtype, x)
    windows = Windows(x[None], out, kernel, g.stride, _negative(g.padding), g.dilation, False)
    if columns.size:
        launch(f"conv_direct.conv_im2col_b{x.itemsize}", grid_of(columns.size, x), (256,),
               x, columns, windows.pack(), count, prod(out), columns.size, like=x)  # fmt: skip
    return columns


def _grouped(w: Array, groups: int) -> Array:
    """`w[O,C/groups,K...]` as `[groups, O/groups, C/groups * taps]`."""
    return contiguous(w).reshape(groups, w.shape[0] // max(groups, 1), prod(w.shape[1:]))


def im2col_forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`forward` by a matrix of patches."""
    kernel = triple(w.shape[2:], 1)
    out = triple(window.output_sizes(x.shape[2:], kernel, g.stride, g.padding, g.dilation), 1)
    y = matrices.product(_grouped(w, g.groups), im2col(x, kernel, out, g)).reshape(x.shape[0], w.shape[0], *out)
    return y if b is None else run(f"elementwise_add_{SUFFIXES[x.dtype]}", (y, b.reshape(-1, 1, 1, 1)), x.dtype)


def im2col_dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """`dx` by a matrix of patches."""
    columns = matrices.product(_grouped(w, g.groups).swapaxes(-1, -2), _in_lines(dy, g.groups))
    shape, kernel = (dy.shape[0], w.shape[1] * g.groups, *size), triple(w.shape[2:], 1)
    return col2im(columns, shape, kernel, triple(dy.shape[2:], 1), g)


def col2im(columns: Array, shape: Shape, kernel: Triple, out: Triple, g: Geometry) -> Array:
    """Columns added up at the places of their windows in an array of a shape `[N,C,D,H,W]`: the adjoint of im2col."""
    y = empty(shape, columns.dtype, columns)
    sizes = (*shape[2:], *out, *kernel, *g.stride, *g.padding, *g.dilation)
    divisors = [n for size in (*kernel, *g.stride, *shape[2:]) for n in divisor(size)]
    if y.size:
        planes = struct.pack("<18i28I", *sizes, *divisors, y.size)
        launch(f"conv_direct.conv_col2im_{SUFFIXES[y.dtype]}", grid_of(y.size, y), (256,), columns, y, planes, like=y)
    return y


def im2col_dw(dy: Array, x: Array, kernel: Triple, g: Geometry) -> Array:
    """`dw` by a matrix of patches."""
    columns = im2col(x, kernel, dy.shape[2:], g)
    n, groups, _, pixels = columns.shape
    rows = _in_lines(dy, groups)
    left, right = (contiguous(m.transpose(1, 2, 0, 3)).reshape(groups, m.shape[2], n * pixels) for m in (rows, columns))
    return matrices.product(left, right.swapaxes(-1, -2)).reshape(dy.shape[1], x.shape[1] // groups, *kernel)


# ---- one tap


def pointwise_forward(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """`forward` of 1x1 kernels: products of w and images as they are."""
    y = matrices.product(_grouped(w, g.groups), _in_lines(x, g.groups)).reshape(x.shape[0], w.shape[0], *x.shape[2:])
    return y if b is None else run(f"elementwise_add_{SUFFIXES[x.dtype]}", (y, b.reshape(-1, 1, 1, 1)), x.dtype)


def pointwise_dx(dy: Array, w: Array, size: Triple, g: Geometry) -> Array:
    """Its gradient for x."""
    x = matrices.product(_grouped(w, g.groups).swapaxes(-1, -2), _in_lines(dy, g.groups))
    return x.reshape(dy.shape[0], w.shape[1] * g.groups, *size)


def _in_lines(x: Array, groups: int) -> Array:
    """`x[N,G*C,S...]` as `[N,G,C,pixels]`."""
    return contiguous(x).reshape(x.shape[0], groups, x.shape[1] // groups, prod(x.shape[2:]))


# ---- ops


MAX_SPAN = 31  # bits of a mask, see conv.cuh
NO_ELEMENTS = "no kernel for arrays without elements"


def _refuse(call: Call, unit: int = 1) -> str | None:
    """unit: what channels are padded to."""
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    _, outputs = call.op.resolve(list(call.shapes), call.attrs)
    large = any(prod(s) * unit >= MAX_ELEMENTS for s in (*call.shapes, *outputs) if s is not None)
    return "too many elements" if large else None


def _kernel(call: Call) -> Triple:
    return triple(call.attrs.get("kernel") or (call.shapes[1] or ())[2:], 1)


def _geometry(call: Call) -> Geometry:
    return geometry(*(call.attrs[name] for name in ("stride", "padding", "dilation", "groups")))


def _span(call: Call) -> int:
    return sum(spans(_kernel(call), triple(call.attrs["dilation"], 1)))


def _refuse_product(call: Call, unit: int = 1) -> str | None:
    return f"the kernel's axes span more than {MAX_SPAN} pixels" if _span(call) > MAX_SPAN else _refuse(call, unit)


def _refuse_native(call: Call) -> str | None:
    return "16-bit floats: on tensor cores" if dtypes.is_half(call.dtype) else _refuse_product(call)


def _refuse_tensor(call: Call) -> str | None:
    return _refuse_product(call, 8) if dtypes.is_half(call.dtype) else f"no kernel for {call.dtype}"


def _refuse_tf32(call: Call) -> str | None:
    if settings.get("VARIANT").get(call.op.name) != "tf32":
        return "less precise: taken only when asked for by DLCORE_VARIANT"
    return _refuse_patch_of(TF32, call) if call.dtype == dtypes.float32 else f"no kernel for {call.dtype}"


def _cut(call: Call) -> conv_patch.Cut:
    """Of a convolution, of its gradient for w, or of that for x at the residue of most taps."""
    g, kernel = _geometry(call), _kernel(call)
    of_w = call.op.name.endswith("_dw")
    images, _, *size = call.shapes[0] if of_w and call.shapes[0] else call.op.resolve([*call.shapes], call.attrs)[1][0]
    out, stride, back = triple((*size,), 1), g.stride, g.dilation
    if call.op.name.endswith("_dx"):
        common = [gcd(s, d) for s, d in zip(stride, back, strict=True)]
        kernel = triple(tuple(ceil(k * c / s) for k, s, c in zip(kernel, stride, common, strict=True)), 1)
        out = triple(tuple(ceil(n / s) for n, s in zip(out, stride, strict=True)), 1)
        stride, back = (1, 1, 1), triple(tuple(d // c for d, c in zip(back, common, strict=True)), 1)
    copied = next((n for n in conv_patch.COPIED if out[2] % n == 0), 1) if of_w else 0
    return conv_patch.cut_of(images, out, kernel, stride, back, copied)


def _refuse_patch_of(way: Way, call: Call) -> str | None:
    if refused := _refuse(call):
        return refused
    if _channels(call) % (16 // call.dtype.itemsize):
        return "channels are no whole vectors of 16 bytes"
    if (cut := _cut(call)).copied and 0 in call.dims.values():
        return NO_ELEMENTS
    if cut.copied == 1:
        return "rows of dy are no whole pairs of pixels"
    fits = conv_patch.fitting(way.kernels(call.dtype)[1], cut)
    return None if fits else "windows too large for shared memory, or too few taps"


def _channels(call: Call) -> int:
    """That a product's sums run over, or of the gradient for w its columns."""
    channels, groups = (call.shapes[call.op.name.endswith("_dw")] or ())[1], int(call.attrs["groups"])
    return channels // groups


def _refuse_pointwise(call: Call) -> str | None:
    g, (_, o, *size), vector = _geometry(call), call.op.resolve([*call.shapes], call.attrs)[1][0], 8
    if not dtypes.is_half(call.dtype):
        return f"no kernel for {call.dtype}"
    if (_kernel(call), g.stride, g.padding) != ((1, 1, 1), (1, 1, 1), (0, 0, 0)):
        return "more than one tap, or not all pixels"
    if any(n == 0 or n % vector for n in (o // g.groups, _channels(call), prod(size))):
        return "channels or images are no whole vectors"
    return _refuse(call)


FEW_TAPS = 3  # so few do not share enough pixels
MAX_WASTE = 0.5  # of multiply-adds


def _refuse_patch(call: Call) -> str | None:
    if not dtypes.is_half(call.dtype):
        return f"no kernel for {call.dtype}"
    asked = settings.get("VARIANT").get(call.op.name) == "patch"
    return _refuse_patch_of(PATCH, call) or (None if asked else _wasteful(call))


def _wasteful(call: Call) -> str | None:
    """What makes another order of memory quicker."""
    cut, channels, tiles = _cut(call), _channels(call), PATCH.kernels(call.dtype)[1]
    together = conv_patch.GROUP if cut.copied else tiles[0].slab
    if channels < (1 - MAX_WASTE) * together * ceil(channels / together):
        return "few channels: most would be zeros"
    if cut.taps < FEW_TAPS:
        return "few taps"
    wasted = min(conv_patch.wasted(tile, box, cut) for tile, box in conv_patch.fitting(tiles, cut).items())
    return "few pixels: most would be zeros" if wasted > MAX_WASTE else None


def _refuse_im2col(call: Call) -> str | None:
    if settings.get("VARIANT").get(call.op.name) != "im2col" and _span(call) <= MAX_SPAN:
        return "slower: taken for large kernels, or when asked for by DLCORE_VARIANT"
    return NO_ELEMENTS if 0 in call.dims.values() else _refuse(call)


def _refuse_depthwise(call: Call) -> str | None:
    if not call.dims["C"] == call.attrs["groups"] > 1:
        return "not as many groups as input channels"
    return _refuse(call) or conv_depthwise.refuse(_kernel(call), _geometry(call), call.dtype.itemsize)


FEW, FEW_HALF = 32, 16  # channels times taps: what is quicker without a product, see docs/kernels.md


def _refuse_few(call: Call) -> str | None:
    if call.attrs["groups"] != 1:
        return "no kernel for groups"
    k, half = prod((call.shapes[1] or ())[1:]), dtypes.is_half(call.dtype)
    if not 0 < k <= (FEW_HALF if half else FEW):
        return "too many channels and taps"
    shared = _few_shared(k, call.dims["O"], 8 if call.dtype == dtypes.float64 else 4)
    return "too many output channels" if shared > 48 * 1024 else _refuse_product(call)


class Variant(NamedTuple):
    """One way to compute the passes, or some of them."""

    refuse: Callable[[Call], str | None]
    forward: Callable[[Array, Array, Array | None, Geometry], Array]
    dx: Callable[[Array, Array, Triple, Geometry], Array] | None = None
    dw: Callable[[Array, Array, Triple, Geometry], Array] | None = None


def _products(refuse: Callable[[Call], str | None], way: Way) -> Variant:
    return Variant(refuse, partial(forward, way), partial(dx, way), partial(dw, way))


VARIANTS = {  # the last one is tried first
    "im2col": Variant(_refuse_im2col, im2col_forward, im2col_dx, im2col_dw),
    "native": _products(_refuse_native, SIMT),
    "tensor": _products(_refuse_tensor, TENSOR),
    "patch": _products(_refuse_patch, PATCH),
    "pointwise": Variant(_refuse_pointwise, pointwise_forward, pointwise_dx),
    "tf32": _products(_refuse_tf32, TF32)._replace(dw=None),  # ldmatrix does not transpose 32-bit numbers
    "direct": Variant(_refuse_few, few_forward),
    "depthwise": Variant(_refuse_depthwise, conv_depthwise.forward, conv_depthwise.dx, conv_depthwise.dw),
}


def _register(rank: int, name: str, v: Variant) -> None:
    def finish(y: Array) -> Array:
        return y.reshape(*y.shape[:2], *y.shape[5 - rank :])

    def conv(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Array:
        """Cross-correlation, bias added before the tile is stored."""
        return finish(v.forward(_three_axes(x), _three_axes(w), b, geometry(**attrs)))

    def conv_dx(dy: Array, w: Array, *, size: Shape, **attrs: Any) -> Array:
        """Gradient for x of spatial sizes `size`."""
        assert v.dx
        return finish(v.dx(_three_axes(dy), _three_axes(w), triple(size, 1), geometry(**attrs)))

    def conv_dw(dy: Array, x: Array, *, kernel: Shape, **attrs: Any) -> Array:
        """Gradient for w of spatial sizes `kernel`."""
        assert v.dw
        return finish(v.dw(_three_axes(dy), _three_axes(x), triple(kernel, 1), geometry(**attrs)))

    for op, fn, own in (("", conv, v.forward), ("_dx", conv_dx, v.dx), ("_dw", conv_dw, v.dw)):
        if own:
            implement(f"conv{rank}d{op}", "cuda", name, v.refuse)(fn)


for _rank in (2, 3):
    for _name, _variant in VARIANTS.items():
        _register(_rank, _name, _variant)
