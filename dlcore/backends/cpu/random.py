"""Random numbers and dropout on `_C`, with the bits of the references."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.backends.cpu.cast import cast
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import Call, implement
from dlcore.ops.random import normal_words

Array = np.ndarray[Any, Any]


def _refuse_16_bits(call: Call) -> str | None:
    dtype = call.attrs["dtype"]
    return None if dtype in (dtypes.float32, dtypes.float64) else f"no kernel for {dtype}"


def _key(key: Array) -> tuple[int, int]:
    return int(key[0]), int(key[1])


@implement("uniform", "cpu", refuse=_refuse_16_bits)
def uniform(key: Array, *, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uniform numbers in [0, 1)."""
    out: Array = _C.empty(shape, dtype)
    _C.uniform(*_key(key), out)
    return out


@implement("normal", "cpu", refuse=_refuse_16_bits)
def normal(key: Array, *, shape: tuple[int, ...], dtype: Any, low: float, high: float) -> Array:
    """Standard normal numbers, cut to [low, high]."""
    out: Array = _C.empty(shape, dtype)
    _C.normal(*_key(key), out, *normal_words(low, high, 8 * dtype.itemsize))
    return out


def _integers(key: Array, shape: tuple[int, ...], low: int, size: int) -> Array:
    out: Array = _C.empty(shape, dtypes.int64)
    _C.integers(*_key(key), out, low, size)
    return out


@implement("randint", "cpu")
def randint(key: Array, *, low: int, high: int, shape: tuple[int, ...]) -> Array:
    """low + w mod (high - low) of 64-bit words w."""
    return _integers(key, shape, low, high - low)


@implement("permutation", "cpu")
def permutation(key: Array, *, size: int) -> Array:
    """The integers below `size` in the order of their words; equal words, of which hardly any two are, in their own."""
    words = _integers(key, (size,), 0, 0).view(np.uint64)
    order: Array = np.argsort(words)
    ordered = words[order]
    return np.argsort(words, stable=True) if (ordered[1:] == ordered[:-1]).any() else order


@implement("bernoulli", "cpu", refuse=refuse_all_but_f32_f64)
def bernoulli(p: Array, key: Array) -> Array:
    """1 with probability p, else 0."""
    u = uniform(key, shape=p.shape, dtype=dtypes.float32)
    return cast(_C.less(cast(u, p.dtype), p), p.dtype)


@implement("dropout", "cpu", refuse=refuse_all_but_f32_f64)
def dropout(x: Array, key: Array, *, p: float) -> Array:
    """Elements kept with probability 1 - p and divided by it, else 0."""
    out: Array = _C.empty(x.shape, x.dtype)
    _C.dropout(*_key(key), x if x.flags.c_contiguous else x.copy(), out, p, 1.0 / (1.0 - p) if p < 1 else 0.0)
    return out
