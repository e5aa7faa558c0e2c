"""Products of matrices on `kernels/gemm*.cu`: transposed operands by their layout, batches by strides."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dlcore import dtypes, settings
from dlcore.backends.cuda import cost, tune
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import MAX_GRID, contiguous
from dlcore.backends.cuda.ops_elementwise import MAX_AXES, SUFFIXES, broadcast_strides, grid_of, merged
from dlcore.dispatch import Call, implement
from dlcore.ops.matmul import ACTIVATIONS
from dlcore.signature import Shape

Array = Any

MAX_LINE = 2**25  # elements between lines: offsets within a tile have 32 bits
MAX_ELEMENTS = 2**31
SKINNY_ROWS = (1, 4, 16)  # kernels of gemm_skinny.cu
SKINNY_ROWS_HALF = (8, 16)  # of gemm_skinny_tensor.cu
WIDE = {dtype: dtypes.wide(dtype) for dtype in SUFFIXES}


class Operand(NamedTuple):
    """A stack of matrices `x[..., rows, columns]` as kernels take it."""

    x: Array
    transposed: bool  # columns, not rows, are the lines that lie contiguous
    line: int  # elements from one line to the next

    def whole(self) -> bool:
        """Whether its lines are whole vectors."""
        along = self.x.shape[-2] if self.transposed else self.x.shape[-1]
        return bool(along * self.x.itemsize % 16 == 0)

    def aligned(self) -> bool:
        """Whether all its lines are whole vectors that begin at multiples of 16 bytes."""
        steps = (self.line * self.x.itemsize, *self.x.strides[:-2])
        places = (*steps, driver_of(self.x).address(self.x))
        return self.whole() and all(n % 16 == 0 for n in places)


def operand(x: Array) -> Operand:
    """`x` if its rows or its columns are contiguous, else a copy of it."""
    rows, columns = x.shape[-2:]
    if x.flags.c_contiguous:
        return Operand(x, False, columns)
    down, across = (s // x.itemsize for s in x.strides[-2:])
    down, across = (0 if rows == 1 else down), (0 if columns == 1 else across)
    if (across == 1 or columns == 1) and 0 <= down < MAX_LINE:
        return Operand(x, False, down)
    if (down == 1 or rows == 1) and 0 <= across < MAX_LINE:
        return Operand(x, True, across)
    return operand(contiguous(x))


class Batches(NamedTuple):
    """Two nested loops over the matrices of two stacks; strides in elements, outer and inner."""

    outer: int
    inner: int
    a: tuple[int, int]
    b: tuple[int, int]


def batches(a: Array, b: Array, lead: Shape) -> Batches | None:
    """How to walk the leading axes of two stacks together; None where two loops do not do."""
    sizes, steps = merged(lead, [broadcast_strides(x, (*lead, *x.shape[-2:]))[:-2] for x in (a, b)])
    if len(sizes) > 2:
        return None
    (a0, a1), (b0, b1) = ((0,) * (2 - len(s)) + tuple(s) for s in steps)
    return Batches(prod(sizes[:-1]), sizes[-1], (a0, a1), (b0, b1))


def product(a: Array, b: Array, bias: Array | None = None, activation: str = "none", tf32: bool = False) -> Array:
    """`activation(a @ b + bias)` of stacks of matrices whose leading axes broadcast, `bias[N]` along rows."""
    lead: Shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = empty((*lead, a.shape[-2], b.shape[-1]), a.dtype, a)
    if c.size == 0:
        return c
    skinny = not tf32 and prod(lead) <= MAX_GRID and cost.is_skinny(c.shape[-2], c.shape[-1], a.shape[-1], c.dtype)
    done = _run_skinny(a, b, c, bias, activation) if skinny else _run_tiled(a, b, c, bias, activation, tf32)
    return c if done else product(_stacked(a, lead), _stacked(b, lead), bias, activation, tf32)


def _stacked(x: Array, lead: Shape) -> Array:
    """A copy with the leading axes broadcast."""
    return contiguous(np.broadcast_to(x, (*lead, *x.shape[-2:])))


def _in_rows(x: Array) -> Operand:
    """`x` with contiguous, aligned rows, copied if need be; only for rows of whole vectors."""
    found = operand(x)
    return Operand(contiguous(x), False, x.shape[-1]) if found.transposed or not found.aligned() else found


def _in_columns(x: Array) -> Operand:
    rows = _in_rows(x.swapaxes(-1, -2))
    return Operand(rows.x.swapaxes(-1, -2), True, rows.line)


def _run_skinny(a: Array, b: Array, c: Array, bias: Array | None, activation: str) -> bool:
    """One launch of a kernel for few rows of `a`, or else for few columns of `b`; False where two loops do not do."""
    (m, n), k = c.shape[-2:], a.shape[-1]
    few, half = m <= n, dtypes.is_half(c.dtype)
    x, w = (a, operand(b.swapaxes(-1, -2))) if few else (b.swapaxes(-1, -2), operand(a))
    walk = batches(x, w.x, c.shape[:-2])
    if walk is None:
        return False
    work = cost.Work(min(m, n), max(m, n), k, walk.outer * walk.inner, c.itemsize)
    steps = [walk.a, walk.b, (walk.inner * m * n, m * n)]
    x_row, x_k = (s // x.itemsize for s in x.strides[-2:])
    vectors = x_k == 1 and Operand(x, False, x_row).aligned()
    layout = pack_product(work, cost.UNSPLIT, (0, w.line, 0), walk.inner, activation, False, steps)
    layout += struct.pack("<6i", x_row, x_k, *((n, 1) if few else (1, n)), not few, vectors)
    rows = next(r for r in (SKINNY_ROWS_HALF if half else SKINNY_ROWS) if r >= work.m)
    kernel = f"gemm_skinny_{'kn'[w.transposed]}_{SUFFIXES[c.dtype]}_{rows}{'' if w.aligned() else '_any'}"
    grid = -(-work.n * c.itemsize // 128), work.batches  # lines of a block: eight vectors
    launch(f"gemm_skinny{'_tensor' if half else ''}.{kernel}", grid, (256,), x, w.x, bias, c, layout, like=c)
    return True


def _run_tiled(a: Array, b: Array, c: Array, bias: Array | None, activation: str, tf32: bool) -> bool:
    """One launch of a tiled kernel, and another to add up splits; False where two loops over batches do not do."""
    left, right = (_in_rows(a), _in_columns(b)) if tf32 else (operand(a), operand(b))
    if left.transposed and right.transposed:  # there is no such kernel
        left = operand(contiguous(left.x))
    walk = batches(left.x, right.x, c.shape[:-2])
    if walk is None:
        return False
    m, n, k = c.shape[-2], c.shape[-1], a.shape[-1]
    count, vector = walk.outer * walk.inner, 16 // c.itemsize
    work, (kernel, tiles, fast) = cost.Work(m, n, k, count, c.itemsize), _kernels(left, right, tf32)
    vectors = n % vector == 0 and driver_of(c).address(c) % 16 == 0
    steps = [walk.a, walk.b, (walk.inner * m * n, m * n)]

    def run(choice: cost.Choice) -> None:
        choice = choice if fast else cost.at_any_alignment(choice)
        layout = pack_product(work, choice, (left.line, right.line, n), walk.inner, activation, vectors, steps)
        partial = empty((count, choice.splits, m, n), WIDE[c.dtype], c) if choice.splits > 1 else None
        tile, arguments = choice.tile, (left.x, right.x, bias, c, partial, layout)
        launch(f"{kernel}_{tile.name}", (choice.blocks(work),), (tile.threads,), *arguments, like=c, shared=tile.shared)
        if partial is not None:
            grid = grid_of(-(-c.size // vector), c)
            launch(f"gemm.gemm_reduce_{SUFFIXES[c.dtype]}", grid, (256,), partial, bias, c, layout, like=c)

    run(tune.choose(kernel, work, tiles, driver_of(c), run))
    return True


def pack_product(
    work: cost.Work, choice: cost.Choice, lines: tuple[int, int, int], inner: int, activation: str, vectors: bool,
    steps: Sequence[tuple[int, int]],
) -> bytes:  # fmt: skip
    """`Product` of gemm.cuh. lines, steps: elements between lines, and between batches, of A, B and C."""
    return struct.pack(
        "<6i3I3i6qd", work.m, work.n, work.k, choice.slice, choice.splits, inner, *lines,
        ACTIVATIONS.index(activation), vectors, work.batches, *(n for step in steps for n in step), 1.0,
    )  # fmt: skip


def _kernels(a: Operand, b: Operand, tf32: bool) -> tuple[str, tuple[cost.Tile, ...], bool]:
    """The kernel for these layouts, without its tile; tiles to choose from; whether they do at these alignments.

    Tiles decide on splits, and these on the order of sums: so what is chosen from depends on shapes alone.
    """
    layout, dtype = "nt"[a.transposed] + "nt"[b.transposed], a.x.dtype
    if tf32:
        return f"gemm_tensor.gemm_{layout}_tf32", cost.TF32, True
    if dtypes.is_half(dtype):
        (m, k), n = a.x.shape[-2:], b.x.shape[-1]
        whole = k % 8 == 0 or m % 8 == n % 8 == 0  # some layout has lines of whole vectors
        tiles, fast = (cost.HALF, a.aligned() and b.aligned()) if whole else (cost.HALF_ANY, True)
        return f"gemm_tensor.gemm_{layout}_{SUFFIXES[dtype]}", tiles, fast
    moved = {"nn": (b,), "nt": (), "tn": (a, b)}[layout]  # what is copied by vectors where it can be
    double = dtype == dtypes.float64
    fast = double or (len(moved) > 0 and all(x.aligned() for x in moved))
    return f"gemm.gemm_{layout}_{SUFFIXES[dtype]}", cost.F64 if double else cost.F32, fast


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES:
        return f"no kernel for {call.dtype}"
    _, outputs = call.op.resolve(list(call.shapes), call.attrs)
    shapes = [s for s in (*call.shapes, *outputs) if s is not None]
    large = any(prod(s) >= MAX_ELEMENTS or len(s) > MAX_AXES for s in shapes)
    return "too many axes or elements" if large else None


def _refuse_tf32(call: Call) -> str | None:
    if settings.get("VARIANT").get(call.op.name) != "tf32":
        return "less precise: taken only when asked for by DLCORE_VARIANT"
    if call.dtype != dtypes.float32:
        return f"no kernel for {call.dtype}"
    inner = call.shapes[0][-1] if call.shapes[0] else 0
    return "K is no multiple of 4" if inner % 4 else _refuse(call)


def _flat(x: Array) -> Array:
    """All leading axes of `x[..., K]` as one; a copy where strides do not allow it."""
    shape = prod(x.shape[:-1]), x.shape[-1]
    sizes, _ = merged(x.shape[:-1], [broadcast_strides(x, x.shape)[:-1]])
    return x.reshape(shape) if len(sizes) == 1 else contiguous(x).reshape(shape)


def _register(variant: str, refuse: Callable[[Call], str | None], tf32: bool) -> None:
    @implement("matmul", "cuda", variant, refuse)
    def matmul(a: Array, b: Array) -> Array:
        """`a[..., M, K] @ b[..., K, N]`."""
        if a.ndim > 2 and b.ndim == 2:  # one product over all leading axes
            return product(_flat(a), b, tf32=tf32).reshape(*a.shape[:-1], b.shape[-1])
        return product(a, b, tf32=tf32)

    @implement("linear", "cuda", variant, refuse)
    def linear(x: Array, w: Array, b: Array | None = None, *, activation: str = "none") -> Array:
        """`act(x[..., I] @ w[O, I].T + b)`, bias and activation before the tile is stored."""
        bias = None if b is None else contiguous(b)
        return product(_flat(x), w.T, bias, activation, tf32).reshape(*x.shape[:-1], w.shape[0])


_register("tf32", _refuse_tf32, tf32=True)
_register("native", _refuse, tf32=False)
