"""Attention and its gradient on `kernels/attention*.cu`."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES, broadcast_strides, merged
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = Any

THREADS, TILE = 256, 64
WIDTHS = (64, 128, 256)  # of heads: what a kernel has registers for
TENSOR_THREADS, TENSOR_WIDTH = 128, 128  # of attention_tensor.cu: threads of a block, the widest heads
MAX_LEAD = 4  # kMaxLead of attention.cuh
INDEX_LIMIT = 2**31


def _refuse(call: Call) -> str | None:
    if call.dtype not in SUFFIXES or call.dtype == dtypes.float64:
        return f"no kernel for {call.dtype}"
    if max(call.dims.D, call.dims.E) > WIDTHS[-1]:
        return f"heads wider than {WIDTHS[-1]}"
    if len(call.dims.ELL) > MAX_LEAD:
        return f"more than {MAX_LEAD} leading axes"
    rows = prod(call.dims.ELL) * max(call.dims.T, call.dims.S)
    return "2**31 rows or more" if rows >= INDEX_LIMIT else None


class Heads(NamedTuple):
    """Operands as the kernels take them, and `Attention` of attention.cuh."""

    operands: tuple[Array | None, ...]  # q, k, v, bias
    lead: Shape
    packed: bytes


def _lead(arrays: tuple[Array | None, ...]) -> Shape:
    return np.broadcast_shapes(*(x.shape[:-2] for x in arrays if x is not None))


def _lined(x: Array) -> Array:
    """`x`, or a copy of it, with contiguous columns."""
    return x if x.shape[-1] == 1 or x.strides[-1] == x.itemsize else contiguous(x)


def heads(
    q: Array, k: Array, v: Array, bias: Array | None, more: tuple[Array, ...], vector: int = 4,
    *, causal: bool, scale: float | None,
) -> Heads:  # fmt: skip
    """Describe a call. more: contiguous arrays with the columns of q or v that are read along with them.

    vector: elements that the kernel moves at once where all rows are whole, aligned vectors.
    """
    q, k, v = _lined(q), _lined(k), _lined(v)
    arrays = [q, k, v] if bias is None else [q, k, v, bias]
    lead: Shape = np.broadcast_shapes(*(x.shape[:-2] for x in arrays))
    steps = [broadcast_strides(x, (*lead, *x.shape[-2:])) for x in arrays]
    sizes, lead_steps = merged(lead, [s[:-2] for s in steps])
    padding = [0] * (MAX_LEAD - len(sizes))
    last_first = [n for s in lead_steps for n in (*s[::-1], *padding)]
    last_first += [0] * (4 * MAX_LEAD - len(last_first))
    rows = [*[s[-2] for s in steps], 0][:4]
    aligned = [_aligned(x, vector) for x in (*arrays[:3], *more)]
    vectors = all(aligned) and all(n % vector == 0 for s in steps[:3] for n in s[:-1])
    packed = struct.pack(
        "<7if4qq16q4I", q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1], causal, vectors, len(sizes),
        q.shape[-1] ** -0.5 if scale is None else scale,
        *rows, 0 if bias is None else steps[3][-1], *last_first, *sizes[::-1], *padding,
    )  # fmt: skip
    return Heads((q, k, v, bias), lead, packed)


def _aligned(x: Array, vector: int) -> bool:
    return bool(x.shape[-1] % vector == 0 and driver_of(x).address(x) % 16 == 0)


def _width(*columns: int) -> int:
    return next(width for width in WIDTHS if width >= max(columns))


def _run(kernel: str, blocks: int, like: Array, *arguments: Any, threads: int = THREADS) -> None:
    launch(f"{kernel}_{SUFFIXES[like.dtype]}", (blocks,), (threads,), *arguments, like=like)


def _tiles(rows: int) -> int:
    return -(-rows // TILE)


@implement("attention", "cuda", refuse=_refuse)
def attention(
    q: Array, k: Array, v: Array, bias: Array | None, *, causal: bool, scale: float | None
) -> tuple[Array, Array]:
    """`-> y[...,T,E] lse[...,T]`."""
    lead = _lead((q, k, v, bias))
    t, e = q.shape[-2], v.shape[-1]
    y, lse = empty((*lead, t, e), q.dtype, q), empty((*lead, t), q.dtype, q)
    tensor = dtypes.is_half(q.dtype) and max(q.shape[-1], e) <= TENSOR_WIDTH
    call = heads(q, k, v, bias, (y,), 8 if tensor else 4, causal=causal, scale=scale)
    arguments = prod(lead) * _tiles(t), q, *call.operands, y, lse, call.packed
    if tensor:
        _run(f"attention_tensor.attention_tensor_{_width(q.shape[-1], e)}", *arguments, threads=TENSOR_THREADS)
    else:
        _run(f"attention.attention_forward_{256 if dtypes.is_half(q.dtype) else _width(e)}", *arguments)
    return y, lse


class Backward(NamedTuple):
    """What the kernels of the gradient share."""

    heads: Heads
    dy: Array
    lse: Array
    delta: Array

    def run(self, kernel: str, tiles: int, *results: Array) -> None:
        """Launch a kernel with a block for each tile of each head."""
        operands = *self.heads.operands, self.dy, self.lse, self.delta
        _run(kernel, prod(self.heads.lead) * tiles, self.dy, *operands, *results, self.heads.packed)


def backward(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array,
    results: tuple[Array, ...], **attrs: Any,
) -> Backward:  # fmt: skip
    """Describe a gradient, and find the part that all keys of a query share."""
    lead = _lead((dy, q, k, v, bias))
    dy, y = (_full(x, (*lead, *x.shape[-2:])) for x in (dy, y))
    lse, dlse = _full(lse, (*lead, lse.shape[-1])), None if dlse is None else _full(dlse, (*lead, dlse.shape[-1]))
    delta = empty(lse.shape, dtypes.float32, lse)
    warps = THREADS // 32
    _run("attention_grad.attention_delta", -(-lse.size // warps), dy, dy, y, dlse, delta, lse.size, dy.shape[-1])
    return Backward(heads(q, k, v, bias, (dy, *results), **attrs), dy, lse, delta)


def _full(x: Array, shape: Shape) -> Array:
    return contiguous(x if x.shape == shape else driver_of(x).xp.broadcast_to(x, shape))


@implement("attention_grad", "cuda", refuse=_refuse)
def attention_grad(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array, **attrs: Any
) -> tuple[Array, Array, Array]:
    """`-> dq[...,T,D] dk[...,S,D] dv[...,S,E]`."""
    lead = _lead((dy, q, k, v, bias))
    dq, dk, dv = (empty((*lead, *x.shape[-2:]), x.dtype, x) for x in (q, k, v))
    call = backward(dy, dlse, q, k, v, bias, y, lse, (dq, dk, dv), **attrs)
    d, e = q.shape[-1], v.shape[-1]
    call.run(f"attention_grad.attention_grad_q_{_width(d)}", _tiles(q.shape[-2]), dq)
    call.run(f"attention_grad_kv.attention_grad_kv_{_width(d, e)}", _tiles(k.shape[-2]), dk, dv)
    return dq, dk, dv


@implement("attention_bias_grad", "cuda", refuse=_refuse)
def attention_bias_grad(
    dy: Array, dlse: Array | None, q: Array, k: Array, v: Array, bias: Array | None, y: Array, lse: Array, **attrs: Any
) -> Array:
    """`-> dbias[...,T,S]`."""
    t, s = q.shape[-2], k.shape[-2]
    dbias = empty((*_lead((dy, q, k, v, bias)), t, s), q.dtype, q)
    call = backward(dy, dlse, q, k, v, bias, y, lse, (), **attrs)
    call.run("attention_grad.attention_grad_bias", _tiles(t) * _tiles(s), dbias)
    return dbias
