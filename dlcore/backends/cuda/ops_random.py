"""Random numbers and dropout on `kernels/random.cu`, with the bits of the references."""

from __future__ import annotations

import struct
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import BLOCK, SUFFIXES, grid_of
from dlcore.dispatch import Call, implement
from dlcore.ops.random import normal_words
from dlcore.signature import Shape

Array = Any


def _refuse_dtype(call: Call) -> str | None:
    return None if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


def _run(kernel: str, key: Array, y: Array, *arguments: Any, x: Array | None = None) -> Array:
    """Fill `y` from a key `[2]:int64`: four elements a thread, or two made from 64 bits."""
    key = contiguous(key.astype(dtypes.int64, copy=False))
    operands = () if x is None else (contiguous(x),)
    name = f"random.random_{kernel}_{SUFFIXES[y.dtype]}" if y.dtype in SUFFIXES else f"random.random_{kernel}"
    launch(name, grid_of(-(-y.size // 2), y), (BLOCK,), *operands, key, y, y.size, *arguments, like=y)
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
