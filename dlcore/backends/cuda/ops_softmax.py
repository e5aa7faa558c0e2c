"""Softmax and cross-entropy on `kernels/softmax.cu` and `kernels/cross_entropy.cu`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous, int64
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.backends.cuda.ops_reduce import reduce
from dlcore.backends.cuda.rows import BLOCK, SINGLES, lanes_of, launch_rows, launch_threads, refuse, vectors
from dlcore.dispatch import implement
from dlcore.ops.index import NO_CLASS

Array = Any

LONG_COLUMN = 1024  # elements from which few columns are turned into rows first
MANY_COLUMNS = 16384
PART = 8192  # positions whose losses one block sums


def _along(kernel: str, log: int) -> Callable[..., Array]:
    """A kernel of softmax.cu as a function of arrays and an axis."""

    def call(*arrays: Array, axis: int) -> Array:
        axis %= arrays[0].ndim
        shape = arrays[0].shape
        columns = prod(shape[axis + 1 :])
        if columns > 1 and shape[axis] >= LONG_COLUMN and arrays[0].size // shape[axis] < MANY_COLUMNS:
            return call(*[x.swapaxes(axis, -1) for x in arrays], axis=-1).swapaxes(axis, -1)
        arrays = tuple(map(contiguous, arrays))
        y = empty(shape, arrays[0].dtype, arrays[0])
        if y.size == 0:
            return y
        n = shape[axis]
        if columns > 1:
            outer = prod(shape[:axis])
            launch_threads(f"softmax.{kernel}_columns", outer * columns, *arrays, y, outer, n, columns, log, like=y)
        else:
            way, lanes = lanes_of(n, y.itemsize)
            rows, moved = y.size // n, vectors(n, *arrays, y)
            launch_rows(f"softmax.{kernel}_{way}", rows, lanes, *arrays, y, rows, n, log, moved, like=y)
        return y

    return call


for _name, _kernel, _log in (
    ("softmax", "softmax", 0), ("log_softmax", "softmax", 1), ("softmax_grad", "softmax_grad", 0),
    ("log_softmax_grad", "softmax_grad", 1),
):  # fmt: skip
    implement(_name, "cuda", refuse=refuse)(_along(_kernel, _log))


# ---- cross-entropy


class _Problem:
    """The operands that both passes share, ready for the kernels."""

    def __init__(
        self, logits: Array, labels: Array, weight: Array | None, ignore_index: int, label_smoothing: float,
        reduction: str,
    ) -> None:  # fmt: skip
        self.logits = contiguous(logits)
        self.labels = contiguous(int64(labels))
        self.weight = None if weight is None else contiguous(weight)
        self.rows, self.classes = labels.size, logits.shape[1]
        self.inner = prod(logits.shape[2:])
        self.wide = dtypes.float64 if logits.dtype == dtypes.float64 else dtypes.float32
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction
        self.span = max(PART, -(-self.rows // (BLOCK * 4)))  # so that one block can sum the parts

    def shape(self, *written: Array) -> bytes:
        """`Shape` of cross_entropy.cu. written: what the kernel writes in the shape of the logits."""
        moved = SINGLES if self.inner > 1 else vectors(self.classes, self.logits, self.weight, *written)
        return struct.pack(
            "<qdIIIIiiixxxx", self.ignore_index, self.label_smoothing, self.rows, self.classes, self.inner, self.span,
            moved, self.reduction == "none", self.reduction == "mean",
        )  # fmt: skip

    def launch(self, kernel: str, ways: tuple[str, int], *arguments: Any) -> None:
        """Launch a kernel in the way for rows that is given, or by columns where there are axes after the classes."""
        kernel = f"cross_entropy.{kernel}"
        if self.inner > 1:
            launch_threads(f"{kernel}_columns", self.rows, *arguments, like=self.logits)
        else:
            way, lanes = ways
            launch_rows(f"{kernel}_{way}", self.rows, lanes, *arguments, like=self.logits)

    def totals(self, loss: Array | None, total: Array | None, divisor: Array | None) -> None:
        """Sum losses into `total` (a mean where that is wanted) and the labels' weights into `divisor`."""
        logits, count = self.logits, max(1, -(-self.rows // self.span))
        parts = empty((count, 2), self.wide, logits) if count > 1 else None
        results = (parts, total, divisor)
        kernel = f"cross_entropy.cross_entropy_part_{SUFFIXES[logits.dtype]}"
        launch(kernel, (count,), (BLOCK,), loss, self.labels, self.weight, *results, self.shape(), like=logits)
        if count > 1:
            kernel, mean = f"cross_entropy.cross_entropy_total_{SUFFIXES[self.wide]}", int(self.reduction == "mean")
            launch(kernel, (1,), (BLOCK,), parts, count, mean, total, divisor, like=logits)


@implement("cross_entropy", "cuda", refuse=refuse, checks=True)
def cross_entropy(logits: Array, labels: Array, weight: Array | None = None, **attrs: Any) -> tuple[Array, Array]:
    """Logsumexp over the classes, and the loss."""
    problem = _Problem(logits, labels, weight, **attrs)
    lse, loss = (empty(labels.shape, problem.wide, logits) for _ in range(2))
    note = driver_of(logits).refusals.record("cross_entropy", NO_CLASS, problem.classes)
    operands = (problem.logits, problem.labels, problem.weight, lse, loss, note, problem.shape())
    problem.launch("cross_entropy", lanes_of(problem.classes, logits.itemsize), *operands)
    if problem.reduction == "none":
        return lse, loss
    total = empty((), problem.wide, logits)
    problem.totals(loss, total, None)
    return lse, total


@implement("cross_entropy_grad", "cuda", refuse=refuse)
def cross_entropy_grad(
    g_lse: Array | None, g_loss: Array, logits: Array, lse: Array, labels: Array, weight: Array | None = None,
    **attrs: Any,
) -> Array:  # fmt: skip
    """Gradient for the logits, from those of logsumexp and loss."""
    problem = _Problem(logits, labels, weight, **attrs)
    dx, divisor, weights = empty(logits.shape, logits.dtype, logits), None, None
    if problem.reduction == "mean":
        divisor = empty((), problem.wide, logits)
        problem.totals(None, None, divisor)
    if weight is not None and problem.label_smoothing:
        weights = reduce(weight, "sum", (0,), (), problem.wide)
    floats = [None if x is None else contiguous(x) for x in (g_lse, g_loss)]
    operands = (*floats, problem.logits, contiguous(lse), problem.labels, problem.weight, divisor, weights, dx)
    way = "warp" if problem.classes <= 1024 else "block"
    problem.launch("cross_entropy_grad", (way, 32 if way == "warp" else BLOCK), *operands, problem.shape(dx))
    return dx
