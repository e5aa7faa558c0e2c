"""Random numbers, dropout and draws on `kernels/random.cu` and `multinomial.cu`, with the bits of the references."""

from __future__ import annotations

import struct
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import contiguous, positions, wide_copy
from dlcore.backends.cuda.ops_elementwise import BLOCK, SUFFIXES, grid_of
from dlcore.backends.cuda.ops_sort import order
from dlcore.dispatch import Call, implement
from dlcore.ops.random import normal_words
from dlcore.signature import Shape

Array = Any


def _refuse_dtype(call: Call) -> str | None:
    return None if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


def _refuse_draws(call: Call) -> str | None:
    return refuse_large(call) if call.dtype in SUFFIXES else _refuse_dtype(call)


def _run(kernel: str, key: Array, y: Array, *arguments: Any, x: Array | None = None) -> Array:
    """Fill `y` from a key `[2]:int64` and an operand of its shape."""
    key = contiguous(key.astype(dtypes.int64, copy=False))
    if x is not None:
        x = contiguous(x)
        arguments = (*arguments, int(driver_of(x).address(x) % 16 == 0))
    operands = () if x is None else (x,)
    name = f"random.random_{kernel}_{SUFFIXES[y.dtype]}" if y.dtype in SUFFIXES else f"random.random_{kernel}"
    launch(name, grid_of(-(-y.nbytes // 16), y), (BLOCK,), *operands, key, y, y.size, *arguments, like=y)
    return y


@implement("uniform", "cuda")
def uniform(key: Array, *, shape: Shape, dtype: Any) -> Array:
    """Uniform numbers in [0, 1)."""
    return _run("uniform", key, empty(shape, dtype, key))


@implement("normal", "cuda")
def normal(key: Array, *, shape: Shape, dtype: Any, low: float, high: float) -> Array:
    """Standard normal numbers, cut to [low, high]."""
    words = normal_words(low, high, 64 if dtype == dtypes.float64 else 32)
    return _run("normal", key, empty(shape, dtype, key), struct.pack("<2Q", *words))


@implement("randint", "cuda")
def randint(key: Array, *, low: int, high: int, shape: Shape) -> Array:
    """Integers in [low, high)."""
    return _run("integers", key, empty(shape, dtypes.int64, key), low, struct.pack("<2Q", 0, high - low))


@implement("dropout", "cuda", refuse=_refuse_dtype)
def dropout(x: Array, key: Array, *, p: float) -> Array:
    """Elements kept with probability 1 - p and divided by it, else 0."""
    return _run("dropout", key, empty(x.shape, x.dtype, x), p, 1.0 / (1.0 - p) if p < 1 else 0.0, x=x)


@implement("bernoulli", "cuda", refuse=_refuse_dtype)
def bernoulli(p: Array, key: Array) -> Array:
    """1 with probability p, else 0."""
    return _run("bernoulli", key, empty(p.shape, p.dtype, p), x=p)


@implement("permutation", "cuda", refuse=refuse_large)
def permutation(key: Array, *, size: int) -> Array:
    """The integers below `size` in the order of their 64-bit words."""
    return order(_run("words", key, empty((size,), dtypes.uint64, key)), size)


@implement("multinomial", "cuda", refuse=_refuse_draws)
def multinomial(p: Array, key: Array, *, count: int, replacement: bool) -> Array:
    """`p[..., C] -> y[..., count]`: by bisection of running sums, or the order of -log(u) / p."""
    p, key = contiguous(wide_copy(p) if dtypes.is_half(p.dtype) else p), positions(key)
    suffix, classes = SUFFIXES[p.dtype], p.shape[-1]
    if not replacement:
        race = empty(p.shape, dtypes.float64, p)
        if p.size:
            grid = grid_of(-(-p.size // 4), p)
            launch(f"multinomial.multinomial_race_{suffix}", grid, (BLOCK,), p, key, race, p.size, like=p)
        return order(race, count)
    sums, y = empty(p.shape, p.dtype, p), empty((*p.shape[:-1], count), dtypes.int64, p)
    if y.size:
        rows = p.size // classes
        launch(f"multinomial.multinomial_sums_{suffix}", grid_of(rows, p), (BLOCK,), p, sums, rows, classes, like=p)
        draws = sums, key, y, classes, count, y.size
        launch(f"multinomial.multinomial_draw_{suffix}", grid_of(y.size, p), (BLOCK,), *draws, like=p)
    return y
