"""Matrix products on `_C.matmul`: packed, multi-threaded, bias and activation in the epilogue."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast, widened
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]


def _refuse_ints(call: Call) -> str | None:
    return None if dtypes.kind(call.dtype) == "float" else f"no kernel for {call.dtype}"


def _product(a: Array, b: Array, bias: Array | None = None, activation: str = "none") -> Array:
    """act(a @ b + bias) of matrices or stacks of them; 16-bit operands are widened to float32 and rounded once."""
    if dtypes.is_half(a.dtype):
        bias = bias if bias is None else widened(bias)
        return cast(_product(widened(a), widened(b), bias, activation), a.dtype)
    out: Array = _C.matmul(a, b, None, bias, activation)
    return out


@implement("matmul", "cpu", refuse=_refuse_ints)
def matmul(a: Array, b: Array) -> Array:
    """`a[..., M, K] @ b[..., K, N]`."""
    if a.ndim == 2 and b.ndim == 2:
        return _product(a, b)
    if b.ndim == 2:  # one product over all leading axes
        flat = a.reshape(-1, a.shape[-1]) if a.shape[-1] else a.reshape(prod(a.shape[:-1]), 0)
        return _product(flat, b).reshape(*a.shape[:-1], b.shape[-1])
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _product(_stack(a, lead), _stack(b, lead)).reshape(*lead, a.shape[-2], b.shape[-1])


def _stack(x: Array, lead: tuple[int, ...]) -> Array:
    """`x[..., M, N]` as `[B, M, N]`, where B covers `lead` or is 1."""
    if prod(x.shape[:-2]) != 1:
        x = np.broadcast_to(x, (*lead, *x.shape[-2:]))
    return x.reshape(prod(x.shape[:-2]), *x.shape[-2:])


@implement("linear", "cpu", refuse=_refuse_ints)
def linear(x: Array, w: Array, b: Array | None = None, *, activation: str = "none") -> Array:
    """`act(x[..., I] @ w[O, I].T + b)`, bias and activation while the tile is still in registers."""
    bias = b if b is None or b.flags.c_contiguous else b.copy()
    if x.ndim == 2:
        return _product(x, w.T, bias, activation)
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    return _product(flat, w.T, bias, activation).reshape(*x.shape[:-1], w.shape[0])
