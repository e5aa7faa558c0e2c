"""Patches as columns and back, by im2col and col2im of `kernels/conv_direct.cu`."""

from __future__ import annotations

from math import prod
from typing import Any

from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_conv import col2im, geometry, im2col
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, WHOLE
from dlcore.dispatch import Call, implement
from dlcore.dtypes import bool_
from dlcore.ops import window
from dlcore.signature import Shape

Array = Any


def _refuse_unfold(call: Call) -> str | None:
    known = call.dtype in SUFFIXES or (call.dtype in WHOLE and call.dtype != bool_)
    return refuse_large(call) if known else f"no kernel for {call.dtype}"


def _refuse_fold(call: Call) -> str | None:
    return refuse_large(call) if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


@implement("unfold", "cuda", refuse=_refuse_unfold)
def unfold(x: Array, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """`x[N,C,H,W] -> y[N,K,L]`."""
    n, c, *size = x.shape
    out = window.output_sizes(tuple(size), kernel, stride, padding, dilation)
    g = geometry(stride, padding, dilation, 1)
    columns = im2col(x.reshape(n, c, 1, *size), (1, kernel[0], kernel[1]), (1, out[0], out[1]), g)
    return columns.reshape(n, c * prod(kernel), prod(out))


@implement("fold", "cuda", refuse=_refuse_fold)
def fold(x: Array, *, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """`x[N,K,L] -> y[N,C,H,W]`."""
    n, channels = x.shape[0], x.shape[1] // prod(kernel)
    out = window.output_sizes(size, kernel, stride, padding, dilation)
    g = geometry(stride, padding, dilation, 1)
    y = col2im(contiguous(x), (n, channels, 1, *size), (1, kernel[0], kernel[1]), (1, out[0], out[1]), g)
    return y.reshape(n, channels, *size)
