"""Random numbers that depend on a key (seed, stream) and the element's index alone; see `dlcore.ops.philox`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from dlcore import dtypes, recording
from dlcore.creation import constant
from dlcore.errors import ArgumentError, DTypeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.philox import Array, Xp, normal_quantile, scaled, unit, words_32, words_64
from dlcore.random import next_key
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

# ---- uniform and integers

_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}


def _uniform(xp: Xp, key: Array, *, shape: Shape = (), dtype: Any = dtypes.float32) -> Array:
    bits = _BITS[dtype.name]
    wide = bits > 32
    word = words_64(xp, key, prod(shape)) if wide else words_32(xp, key, prod(shape))
    kept = word >> ((64 if wide else 32) - bits)
    return xp.reshape(xp.astype(kept, xp.float64 if wide else xp.float32) * 2.0**-bits, shape)


def _shaped(d: Dims, *, shape: Shape, **_: Any) -> Mapping[str, Any]:
    return {"R": tuple(shape)}


def _dtype_attr(promoted: Any, attrs: Mapping[str, Any]) -> Any:
    return attrs["dtype"]


KEY = np.asarray([2**40 + 7, 3])
_ONLY_A_KEY = {"zero_size": "the only operand is the key; the samples have zero-size results"}


def _float_samples() -> Iterable[Sample]:
    yield from (sample(KEY, shape=shape) for shape in [(3, 5), (), (0, 2), (1,)])
    yield sample(KEY, shape=(7,), dtype=dtypes.float64)
    yield sample(KEY, shape=(2, 9), dtype=dtypes.float16)


_uniform_op: Op = define(
    "uniform",
    "key[2]:int -> y[R...]",
    _uniform,
    infer=_shaped,
    dtype=_dtype_attr,
    samples=_float_samples,
    exempt=_ONLY_A_KEY,
    doc="Multiples of 2**-b in [0, 1), b = 24 for float32, 53 for float64, 11 for float16, 8 for bfloat16.",
)

_randint_op: Op = define(
    "randint",
    "key[2]:int -> y[R...]:int",
    lambda xp, key, *, low=0, high=2, shape=(): (
        xp.reshape(xp.astype(words_64(xp, key, prod(shape)) % (high - low), xp.int64), shape) + low
    ),
    infer=_shaped,
    samples=lambda: [
        sample(KEY, low=-3, high=9, shape=(4, 5)), sample(KEY, low=0, high=1, shape=()), sample(KEY, high=5, shape=(0,))
    ],
    exempt=_ONLY_A_KEY,
    doc="low + w mod (high - low) for 64-bit words w; the bias is below (high - low) / 2**64.",
)  # fmt: skip

_permutation_op: Op = define(
    "permutation",
    "key[2]:int -> y[N]:int",
    lambda xp, key, *, size=0: xp.argsort(words_64(xp, key, size), stable=True),
    infer=lambda d, *, size: {"N": size},
    samples=lambda: [sample(KEY, size=17), sample(KEY, size=1), sample(KEY, size=0)],
    exempt=_ONLY_A_KEY,
    doc="The integers below `size` in the order of their 64-bit words.",
)

# ---- normal


def _normal(
    xp: Xp,
    key: Array,
    *,
    shape: Shape = (),
    dtype: Any = dtypes.float32,
    low: float = -math.inf,
    high: float = math.inf,
) -> Array:
    width = 64 if dtype == dtypes.float64 else 32
    word = (words_64 if width == 64 else words_32)(xp, key, prod(shape))
    first, size = normal_words(low, high, width)
    if size:
        word = scaled(word, size, width) + first
    return xp.reshape(normal_quantile(xp, word, width), shape)


def normal_words(low: float, high: float, width: int) -> tuple[int, int]:
    """First and number of the words that invert to [low, high]; the number is 0 for all of them."""
    if low == -math.inf and high == math.inf:
        return 0, 0
    first, last = _quantile_word(low, width), _quantile_word(high, width)
    return first, max(last - first, 1)


def _quantile_word(x: float, width: int) -> int:
    """The word at which the normal distribution function reaches x."""
    word = int(0.5 * math.erfc(-x / math.sqrt(2)) * 2.0**width)
    return min(word, (1 << width) - 1)


_normal_op: Op = define(
    "normal",
    "key[2]:int -> y[R...]",
    _normal,
    infer=_shaped,
    dtype=_dtype_attr,
    samples=lambda: [*_float_samples(), sample(KEY, shape=(20,), low=-2.0, high=1.0)],
    exempt=_ONLY_A_KEY,
    doc="Standard normal numbers by inversion of 32-bit words (64-bit for float64), cut to [low, high].",
)

# ---- masks

_bernoulli_op: Op = define(
    "bernoulli",
    "p[S...]:float key[2]:int -> y[S...]",
    lambda xp, p, key: unit(xp, key, p.shape) < p,
    samples=lambda: [sample(Arr(s, 0.0, 1.0), KEY) for s in [(3, 5), (), (0,)]],
    doc="1 with probability p, else 0.",
)


def _dropout_reference(xp: Xp, x: Array, key: Array, *, p: float = 0.5) -> Array:
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    return xp.where(unit(xp, key, x.shape) >= p, x * scale, xp.zeros_like(x))


_dropout_op: Op = define(
    "dropout",
    "x[S...]:float key[2]:int -> y[S...]",
    _dropout_reference,
    vjp={"x": lambda g, key, p: _dropout_op(g, key, p=p)},
    samples=lambda: [sample((3, 5), KEY, p=0.3), sample((), KEY), sample((0, 3), KEY), sample((9,), KEY, p=1.0)],
    doc="Elements kept with probability 1 - p and divided by it, else 0; the gradient draws the same mask again.",
)


def _picked(xp: Xp, p: Array, key: Array, *, count: int = 1, replacement: bool = True) -> Array:
    rows = (*p.shape[:-1], count)
    if replacement:
        cdf = xp.cumulative_sum(p, axis=-1)
        u = xp.astype(unit(xp, key, rows), p.dtype) * cdf[..., -1:]
        return xp.sum(xp.astype(u[..., :, None] >= cdf[..., None, :], xp.int64), axis=-1)
    tail = (xp.astype(words_32(xp, key, prod(p.shape)), xp.float64) + 0.5) * 2.0**-32
    return xp.argsort(-xp.log(xp.reshape(tail, p.shape)) / p, axis=-1, stable=True)[..., :count]


_multinomial_op: Op = define(
    "multinomial",
    "p[...,C]:float key[2]:int -> y[...,K]:int",
    _picked,
    infer=lambda d, *, count, **_: {"K": count},
    samples=lambda: [
        sample(Arr((2, 5), 0.1, 1.0), KEY, count=7), sample(Arr((5,), 0.1, 1.0), KEY, count=3, replacement=False),
        sample(Arr((1,), 0.1, 1.0), KEY), sample(Arr((0, 3), 0.1, 1.0), KEY, count=2),
    ],
    exempt={"value": "an index jumps where rounding p to 16 bits moves a boundary; tests/test_random.py tests counts"},
    doc="Indices drawn with probabilities proportional to p; without replacement by sorting -log(u) / p.",
)  # fmt: skip


# ---- what users call


def _key(device: str | None = None) -> Tensor:
    key = next_key()
    made = constant(np.asarray(key), device=device)
    if recording.now.recorder is not None:
        recording.now.recorder.key(made, key)
    return made


def _sizes(name: str, shape: Any) -> Shape:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not isinstance(n, int) or n < 0 for n in sizes):
        raise ArgumentError(f"{name}: sizes must be ints >= 0; got {sizes}")
    return sizes


def _float(name: str, dtype: Any) -> Any:
    found = dtypes.dtype(dtype)
    if dtypes.kind(found) != "float":
        raise DTypeError(f"{name}: expected a floating-point dtype; got {found}")
    return found


def uniform(
    shape: int | Shape, low: float = 0.0, high: float = 1.0, dtype: Any = float, device: str | None = None
) -> Tensor:
    """Uniform numbers in [low, high).

    >>> uniform((2, 3), -1.0, 1.0).shape
    (2, 3)
    """
    u: Tensor = _uniform_op(_key(device), shape=_sizes("uniform", shape), dtype=_float("uniform", dtype))
    return u if (low, high) == (0.0, 1.0) else u * (high - low) + low


def normal(
    shape: int | Shape, mean: float = 0.0, std: float = 1.0, dtype: Any = float, device: str | None = None
) -> Tensor:
    """Normal numbers. Raises ArgumentError for a negative `std`.

    >>> normal((2, 3), std=0.1).shape
    (2, 3)
    """
    return truncated_normal(shape, mean, std, -math.inf, math.inf, dtype, device)


def truncated_normal(
    shape: int | Shape,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: Any = float,
    device: str | None = None,
) -> Tensor:
    """Normal numbers cut to [mean + low * std, mean + high * std] (the bounds count in standard deviations)."""
    if std < 0 or not low < high:
        raise ArgumentError(f"normal: expected std >= 0 and low < high; got std {std}, low {low}, high {high}")
    z: Tensor = _normal_op(
        _key(device), shape=_sizes("normal", shape), dtype=_float("normal", dtype), low=float(low), high=float(high)
    )
    return z if (mean, std) == (0.0, 1.0) else z * std + mean


def rand(*shape: int, dtype: Any = float, device: str | None = None) -> Tensor:
    """Uniform numbers in [0, 1).

    >>> rand(2, 3).shape
    (2, 3)
    """
    return uniform(shape, dtype=dtype, device=device)


def randn(*shape: int, dtype: Any = float, device: str | None = None) -> Tensor:
    """Standard normal numbers.

    >>> randn(2, 3).shape
    (2, 3)
    """
    return normal(shape, dtype=dtype, device=device)


def randint(low: int, high: int, shape: int | Shape = (), device: str | None = None) -> Tensor:
    """Integers (int64) in [low, high). Raises ArgumentError for an empty range."""
    if low >= high:
        raise ArgumentError(f"randint: no integer in [{low}, {high})")
    out: Tensor = _randint_op(_key(device), low=low, high=high, shape=_sizes("randint", shape))
    return out


def randperm(n: int, device: str | None = None) -> Tensor:
    """The integers below `n` in random order.

    >>> sorted(randperm(4).tolist())
    [0, 1, 2, 3]
    """
    out: Tensor = _permutation_op(_key(device), size=_sizes("randperm", n)[0])
    return out


def _probabilities(name: str, p: Any) -> None:
    host = np.asarray(p)
    wrong = host[~((host >= 0) & (host <= 1))]
    if wrong.size:
        raise ArgumentError(f"{name}: probabilities must lie in [0, 1]; got {wrong[0]}")


def bernoulli(p: Tensor) -> Tensor:
    """1 with probability `p`, else 0, element by element. Raises ArgumentError for p outside [0, 1]."""
    _probabilities("bernoulli", p)
    out: Tensor = _bernoulli_op(p, _key(p.device))
    return out


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`x` with elements zeroed with probability `p` and the others divided by 1 - p; `x` itself when not training.

    Raises ArgumentError for p outside [0, 1].
    """
    _probabilities("dropout", p)
    if not training or p == 0:
        return x
    out: Tensor = _dropout_op(x, _key(x.device), p=float(p))
    return out


def multinomial(p: Tensor, count: int = 1, replacement: bool = True) -> Tensor:
    """`count` indices per row of `p[..., C]`, drawn with probabilities proportional to the row; int64 `[..., count]`.

    Raises ArgumentError for weights that are negative, not finite or all zero, and, without replacement, for more
    draws than weights above zero.
    """
    host = np.asarray(p, np.float64)
    positive = (host > 0).sum(axis=-1)
    if not (np.isfinite(host) & (host >= 0)).all() or not (positive > 0).all():
        raise ArgumentError("multinomial: each row needs finite weights >= 0, one of them above 0")
    if count < 1 or (not replacement and (positive < count).any()):
        raise ArgumentError(f"multinomial: {count} draws from rows with {positive.min(initial=0)} weights above 0")
    out: Tensor = _multinomial_op(p, _key(p.device), count=count, replacement=replacement)
    return out


def categorical(logits: Tensor, count: int = 1) -> Tensor:
    """`count` indices per row of `logits[..., C]`, drawn with probabilities softmax(logits); int64 `[..., count]`."""
    return multinomial((logits - logits.max(axis=-1, keepdims=True)).exp(), count)
