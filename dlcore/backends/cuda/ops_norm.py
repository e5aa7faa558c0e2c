"""Normalisations and their gradients on `kernels/norm.cu` (rows) and `kernels/batch_norm.cu` (channels)."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import empty, launch
from dlcore.backends.cuda.ops_copy import astype, contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.backends.cuda.rows import BLOCK, WARP, lanes_of, launch_rows, refuse, vectors
from dlcore.dispatch import implement
from dlcore.signature import Shape

Array = Any

SEGMENT = 4096  # elements of a row that one warp takes at a time
BLOCKS = 1024  # of partial sums, where there is that much to do


def _wide(dtype: Any) -> Any:
    return dtypes.float64 if dtype == dtypes.float64 else dtypes.float32


def _widened(x: Array) -> Array:
    x = contiguous(x)
    return x if x.dtype == _wide(x.dtype) else astype(x, dtype=_wide(x.dtype))


def _dense(*arrays: Array | None) -> list[Any]:
    return [None if x is None else contiguous(x) for x in arrays]


# ---- layer norm, RMS norm, group norm: rows


class _Rows:
    """Rows that are normalised by themselves, as kernels/norm.cu takes them: those of x's last axis, or groups."""

    def __init__(self, x: Array, eps: float, groups: int = 0, centre: bool = True) -> None:
        self.like, self.eps, self.groups, self.centre = x, eps, groups, centre
        self.n = x[0].size // groups if groups else x.shape[-1]
        self.count = x.size // self.n if self.n else 0

    def launch(self, kernel: str, *operands: Array | None, rest: tuple[Array, ...]) -> None:
        """Run a kernel of norm.cu. operands: of x's shape or for each element of a row; rest: what follows them."""
        x, groups = self.like, self.groups
        channels = x.shape[1] // groups if groups else 1
        way, lanes = ("long", BLOCK) if groups else lanes_of(self.n, x.itemsize)
        moved = vectors(self.n, *[a for a in operands if a is not None and (a.size == x.size or not groups)])
        packed = struct.pack(
            "<dIIIIIii4x", self.eps, self.count, self.n, groups, channels, self.n // channels, self.centre, moved
        )
        launch_rows(f"norm.{kernel}_{way}", self.count, lanes, *operands, *rest, packed, like=x)


def _normalise(x: Array, scale: Array | None, bias: Array | None, eps: float, groups: int, centre: bool) -> Array:
    x, scale, bias = _dense(x, scale, bias)
    y = empty(x.shape, x.dtype, x)
    if y.size:
        _Rows(x, eps, groups, centre).launch("norm", x, scale, bias, y, rest=())
    return y


def _gradients(
    dy: Array, x: Array, scale: Array | None, eps: float, groups: int, centre: bool
) -> tuple[Array, Array, Array | None]:
    """Gradients for x, scale and (if centred) bias."""
    dy, x, scale = _dense(dy, x, scale)
    dx = empty(x.shape, x.dtype, x)
    rows = _Rows(x, eps, groups, centre) if x.size else None
    mean, rate = (empty((rows.count if rows else 0,), _wide(x.dtype), x) for _ in range(2))
    if rows:
        rows.launch("norm_grad", dy, x, scale, dx, rest=(mean, rate))
    shape = x.shape if groups else (prod(x.shape[:-1]), x.shape[-1])
    channels = _Channels(x, shape, eps, groups or 1)
    dscale, dbias = (empty(shape[1:2], x.dtype, x) for _ in range(2))
    channels.totals(channels.sums(dy, x, mean, rate), None, dscale, dbias if centre else None, None)
    return dx, dscale, dbias if centre else None


@implement("layer_norm", "cuda", refuse=refuse)
def layer_norm(x: Array, scale: Array | None = None, bias: Array | None = None, *, eps: float) -> Array:
    """Rows of the last axis to mean 0 and variance 1."""
    return _normalise(x, scale, bias, eps, 0, True)


@implement("rms_norm", "cuda", refuse=refuse)
def rms_norm(x: Array, scale: Array | None = None, *, eps: float) -> Array:
    """Rows of the last axis over their root mean square."""
    return _normalise(x, scale, None, eps, 0, False)


@implement("group_norm", "cuda", refuse=refuse)
def group_norm(x: Array, scale: Array | None = None, bias: Array | None = None, *, groups: int, eps: float) -> Array:
    """Groups of channels to mean 0 and variance 1."""
    return _normalise(x, scale, bias, eps, groups, True)


@implement("layer_norm_grad", "cuda", refuse=refuse)
def layer_norm_grad(dy: Array, x: Array, scale: Array | None = None, *, eps: float) -> tuple[Any, ...]:
    """Gradients for x, scale and bias."""
    return _gradients(dy, x, scale, eps, 0, True)


@implement("rms_norm_grad", "cuda", refuse=refuse)
def rms_norm_grad(dy: Array, x: Array, scale: Array | None = None, *, eps: float) -> tuple[Any, ...]:
    """Gradients for x and scale."""
    return _gradients(dy, x, scale, eps, 0, False)[:2]


@implement("group_norm_grad", "cuda", refuse=refuse)
def group_norm_grad(dy: Array, x: Array, scale: Array | None = None, *, groups: int, eps: float) -> tuple[Any, ...]:
    """Gradients for x, scale and bias."""
    return _gradients(dy, x, scale, eps, groups, True)


# ---- batch norm: channels


class _Channels:
    """x[N,C,S...] for kernels/batch_norm.cu, cut in slices whose sums are found side by side."""

    def __init__(self, x: Array, shape: Shape, eps: float, groups: int = 0) -> None:
        self.like, self.eps, self.groups = x, eps, groups
        self.wide = _wide(x.dtype)
        self.examples, self.channels, self.inner = shape[0], shape[1], prod(shape[2:])
        self.by_column = self.inner == 1
        self.segments = 1 if self.by_column else -(-self.inner // SEGMENT)
        self.items = self.examples * self.segments
        columns = WARP * 16 // x.itemsize
        self.tiles = -(-self.channels // columns) if self.by_column else self.channels
        wanted = max(1, min(BLOCKS // max(self.tiles, 1), -(-self.items // (4 * BLOCK // WARP))))
        self.span = max(1, -(-self.items // wanted))
        self.parts = max(1, -(-self.items // self.span))

    def shape(self, *operands: Array) -> bytes:
        """`Channels` of batch_norm.cu. operands: the arrays in x's shape."""
        moved = vectors(self.channels if self.by_column else self.inner, *operands)
        return struct.pack(
            "<dIIIIIIIIIIi4x", self.eps, self.examples, self.channels, self.inner, self.groups,
            max(1, self.channels // (self.groups or 1)), SEGMENT, self.segments, self.items, self.span, self.parts,
            moved,
        )  # fmt: skip

    def launch(self, kernel: str, blocks: int, *operands: Any, full: tuple[Array, ...] = ()) -> None:
        """Run a kernel of batch_norm.cu. full: those of its operands in x's shape."""
        name = f"batch_norm.batch_norm_{kernel}_{SUFFIXES[self.like.dtype]}"
        launch(name, (blocks,), (BLOCK,), *operands, self.shape(*full), like=self.like)

    def moments(self, x: Array) -> Array:
        """Partial moments."""
        found = empty((self.parts, self.channels, 3), self.wide, self.like)
        self.launch("moments", self.parts * self.tiles, x, found, full=(x,))
        return found

    def sums(self, dy: Array, x: Array, mean: Array, rate: Array | None) -> Array:
        """Partial sums of dy z and dy."""
        found = empty((self.parts, self.channels, 2), self.wide, self.like)
        self.launch("sums", self.parts * self.tiles, dy, x, mean, rate, found, full=(dy, x))
        return found

    def totals(self, parts: Array, var: Array | None, *outputs: Array | None) -> None:
        """Whole sums into dscale, dbias, and both into a wide array; None where one is not wanted."""
        self.launch("totals", -(-self.channels // BLOCK), parts, var, *outputs)

    def each_element(self, kernel: str, *operands: Any, full: tuple[Array, ...]) -> None:
        """Run an element-wise pass."""
        if self.like.size:
            warps = self.items * self.channels * WARP
            blocks = self.parts * self.tiles if self.by_column else min(-(-warps // BLOCK), 8 * BLOCKS)
            self.launch(kernel, blocks, *operands, full=full)


@implement("batch_norm", "cuda", refuse=refuse)
def batch_norm(x: Array, scale: Array | None = None, bias: Array | None = None, *, eps: float) -> tuple[Array, ...]:
    """Channels to mean 0 and variance 1; also their means and variances."""
    x, scale, bias = _dense(x, scale, bias)
    channels = _Channels(x, x.shape, eps)
    mean, var = (empty(x.shape[1:2], x.dtype, x) for _ in range(2))
    wide = (mean, var) if x.dtype == channels.wide else tuple(empty(v.shape, channels.wide, x) for v in (mean, var))
    channels.launch("statistics", -(-channels.channels // BLOCK), channels.moments(x), mean, var, *wide)
    y = empty(x.shape, x.dtype, x)
    channels.each_element("apply", x, *wide, scale, bias, y, full=(x, y))
    return y, mean, var


@implement("batch_norm_inference", "cuda", refuse=refuse)
def batch_norm_inference(
    x: Array, mean: Array, var: Array, scale: Array | None = None, bias: Array | None = None, *, eps: float
) -> Array:
    """Normalise with given statistics."""
    x, scale, bias = _dense(x, scale, bias)
    y = empty(x.shape, x.dtype, x)
    _Channels(x, x.shape, eps).each_element("apply", x, _widened(mean), _widened(var), scale, bias, y, full=(x, y))
    return y


@implement("batch_norm_grad", "cuda", refuse=refuse)
def batch_norm_grad(
    dy: Array, dmean: Array, dvar: Array, x: Array, scale: Array | None, mean: Array, var: Array, *, eps: float
) -> tuple[Array, ...]:
    """Gradients for x, scale and bias."""
    dy, dmean, dvar, x, scale = _dense(dy, dmean, dvar, x, scale)
    mean, var = _widened(mean), _widened(var)
    channels = _Channels(x, x.shape, eps)
    dscale, dbias = (empty(x.shape[1:2], x.dtype, x) for _ in range(2))
    sums, dx = empty((2, channels.channels), channels.wide, x), empty(x.shape, x.dtype, x)
    channels.totals(channels.sums(dy, x, mean, None), var, dscale, dbias, sums)
    channels.each_element("dx", dy, x, mean, var, scale, sums, dmean, dvar, dx, full=(dy, x, dx))
    return dx, dscale, dbias
