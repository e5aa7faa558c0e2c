"""Max and average pooling on `kernels/pool.cu`, and their gradients."""

from __future__ import annotations

import struct
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.conv_geometry import divisor
from dlcore.backends.cuda.launch import empty
from dlcore.backends.cuda.ops_copy import contiguous, int64
from dlcore.backends.cuda.rows import aligned, launch_threads, refuse
from dlcore.dispatch import implement
from dlcore.ops import window
from dlcore.signature import Shape

Array = Any


def _pool(
    count: int, size: Shape, out: Shape, kernel: Shape, stride: Shape, padding: Shape,
    dilation: Shape | None = None, include_pad: bool = False, gradient: bool = False, vectors: bool = False,
) -> bytes:  # fmt: skip
    """`Pool` of pool.cu. count: elements of the result."""
    dilation = dilation or (1,) * len(size)
    axes = list(zip(size, out, kernel, stride, padding, dilation, strict=True))
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    divisors = [*(axis[0 if gradient else 1] for axis in axes), *(axis[3] for axis in axes)]
    numbers = [n for axis in axes for n in axis]
    return struct.pack("<18iI2i18I", *numbers, count, include_pad, vectors, *[n for d in divisors for n in divisor(d)])


def max_pool(
    x: Array, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool = False
) -> tuple[Array, Array]:
    """Largest of each window of `x[N,C,S...]`, and its row-major position in S."""
    out = window.output_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    y, index = (empty((*x.shape[:2], *out), dtype, x) for dtype in (x.dtype, dtypes.int64))
    pool = _pool(y.size, x.shape[2:], out, kernel, stride, padding, dilation)
    launch_threads("pool.pool_max", y.size, contiguous(x), y, index, pool, like=x)
    return y, index


def max_pool_grad(
    dy: Array, i: Array, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape,
    ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """`dy[N,C,P...]` added up at the positions `i[N,C,P...]`, as dx[N,C,size...]."""
    dx = empty((*dy.shape[:2], *size), dy.dtype, dy)
    pool = _pool(dx.size, size, dy.shape[2:], kernel, stride, padding, dilation, gradient=True)
    launch_threads("pool.pool_max_grad", dx.size, contiguous(dy), contiguous(int64(i)), dx, pool, like=dy)
    return dx


def avg_pool(
    x: Array, *, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False, count_include_pad: bool = True
) -> Array:
    """Mean of each window of `x[N,C,S...]`."""
    out = window.output_sizes(x.shape[2:], kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    y = empty((*x.shape[:2], *out), x.dtype, x)
    pool = _pool(y.size, x.shape[2:], out, kernel, stride, padding, include_pad=count_include_pad)
    launch_threads("pool.pool_avg", y.size, contiguous(x), y, pool, like=x)
    return y


def avg_pool_grad(
    dy: Array, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """`dy[N,C,P...]` spread evenly over its windows, as dx[N,C,size...]."""
    dx = empty((*dy.shape[:2], *size), dy.dtype, dy)
    vectors = aligned(dx.shape[-1], dx)
    windows = size, dy.shape[2:], kernel, stride, padding
    pool = _pool(dx.size, *windows, include_pad=count_include_pad, gradient=True, vectors=vectors)
    threads = dx.size // (16 // dx.itemsize) if vectors else dx.size
    launch_threads("pool.pool_avg_grad", threads, contiguous(dy), dx, pool, like=dy)
    return dx


for _rank in (2, 3):
    implement(f"max_pool{_rank}d", "cuda", refuse=refuse)(max_pool)
    implement(f"max_pool{_rank}d_grad", "cuda", refuse=refuse)(max_pool_grad)
    implement(f"avg_pool{_rank}d", "cuda", refuse=refuse)(avg_pool)
    implement(f"avg_pool{_rank}d_grad", "cuda", refuse=refuse)(avg_pool_grad)
