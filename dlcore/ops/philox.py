"""The generator behind the random ops: the same bits on every backend and for any number of threads.

Element i of a result depends on the key (seed, stream) and on i alone. The generator is Philox4x32-10 (Salmon, Moraes,
Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the seed is its key and (block, stream) its
counter, 64 bits each, low word first. Block j gives the 32-bit words 4j to 4j+3; a 64-bit word is two of them, low
first. What follows from the words uses only integers and + - * / sqrt, each rounded once (no fused multiply-add).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from math import prod
from typing import Any

from dlcore.signature import Shape

Xp = Any
Array = Any

LOW_32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(xp: Xp, counter: list[Array], key: list[Array]) -> list[Array]:
    """Philox4x32-10: four words for each counter of four words (uint64 arrays that hold 32-bit values)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW_32, (p0 >> 32) ^ c3 ^ k1, p0 & LOW_32
        k0, k1 = (k0 + WEYL[0]) & LOW_32, (k1 + WEYL[1]) & LOW_32
    return [c0, c1, c2, c3]


def words_32(xp: Xp, key: Array, count: int) -> Array:
    """The first `count` 32-bit words of a key's sequence, as uint64."""
    seed, stream = xp.astype(key[0], xp.uint64), xp.astype(key[1], xp.uint64)
    block = xp.astype(xp.arange(-(-count // 4)), xp.uint64)
    zero = xp.zeros_like(block)
    counter = [block & LOW_32, block >> 32, (stream & LOW_32) + zero, (stream >> 32) + zero]
    words = philox(xp, counter, [seed & LOW_32, seed >> 32])
    return xp.reshape(xp.stack(words, axis=1), (-1,))[:count]


def words_64(xp: Xp, key: Array, count: int) -> Array:
    """The first `count` 64-bit words: pairs of 32-bit words, low first."""
    pairs = xp.reshape(words_32(xp, key, 2 * count), (count, 2))
    return pairs[:, 0] | (pairs[:, 1] << 32)


def scaled(word: Array, size: int, width: int) -> Array:
    """Words mapped from [0, 2**width) to [0, size) by word * size / 2**width, its partial products rounded down."""
    if width == 32:
        return (word * size) >> 32
    high, low = word >> 32, word & LOW_32
    size_high, size_low = size >> 32, size & LOW_32
    return high * size_high + ((high * size_low) >> 32) + ((low * size_high) >> 32)


def unit(xp: Xp, key: Array, shape: Shape) -> Array:
    """Uniform float32 multiples of 2**-24 in [0, 1): what masks are made from, in every dtype."""
    return xp.reshape(xp.astype(words_32(xp, key, prod(shape)) >> 8, xp.float32) * 2.0**-24, shape)


# Coefficients of P and Q in x = r P / Q, lowest power first: Wichura, "Algorithm AS 241: the percentage points of the
# normal distribution", Applied Statistics 37 (1988), routines PPND7 (float32) and PPND16 (float64). The three regions
# are |p - 1/2| <= 0.425 and, with r = sqrt(-log(tail)), r <= 5 and r > 5.
_PPND7 = (
    ((3.3871327179, 50.434271938, 159.29113202, 59.109374720), (1.0, 17.895169469, 78.757757664, 67.187563600)),
    ((1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103), (1.0, 0.73700164250, 0.12021132975)),
    ((6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997), (1.0, 0.24197894225, 0.012258202635)),
)
_PPND16 = (
    (
        (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
         4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
        (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
         2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
    ),
    (
        (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
         1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
        (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
         1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
    ),
    (
        (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
         2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
        (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
         7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
    ),
)  # fmt: skip


def _polynomial(x: Array, coefficients: Iterable[float]) -> Array:
    """Horner's rule, lowest power first."""
    reverse = list(coefficients)[::-1]
    y = x * reverse[0] + reverse[1]
    for c in reverse[2:]:
        y = y * x + c
    return y


def _minus_log(xp: Xp, n: Array, width: int, dtype: Any) -> Array:
    """-log(n / 2**(width + 1)) of positive integers n < 2**width, by exponent split and the series of atanh."""
    zeros = xp.zeros_like(n)
    for s in (32, 16, 8, 4, 2, 1):
        if s < width:
            small = n < 2 ** (width - s)
            n, zeros = xp.where(small, n << s, n), xp.where(small, zeros + s, zeros)
    f = xp.astype(n, dtype) * 2.0 ** (1 - width)  # n / 2**(width + 1) = f * 2**-(zeros + 2), 1 <= f <= 2
    high = f > math.sqrt(2)
    f, exponent = xp.where(high, f * 0.5, f), xp.astype(xp.where(high, zeros + 1, zeros + 2), dtype)
    s = (f - 1.0) / (f + 1.0)
    terms = 6 if width == 32 else 12  # the next term is below half a unit in the last place
    series = _polynomial(s * s, [2.0 / (2 * k + 1) for k in range(terms)])
    return exponent * math.log(2) - s * series


def normal_quantile(xp: Xp, word: Array, width: int) -> Array:
    """The normal quantile of (word + 1/2) / 2**width. The tail is an exact integer, so both tails are alike."""
    regions, dtype = (_PPND7, xp.float32) if width == 32 else (_PPND16, xp.float64)
    lower = word < 2 ** (width - 1)
    n = 2 * xp.where(lower, word, 2**width - 1 - word) + 1
    tail = xp.astype(n, dtype) * 2.0 ** -(width + 1)
    q = 0.5 - tail
    r = xp.sqrt(_minus_log(xp, n, width, dtype))
    parts = [0.180625 - q * q, r - 1.6, r - 5.0]
    centre, middle, far = (_polynomial(x, p) / _polynomial(x, d) for x, (p, d) in zip(parts, regions, strict=True))
    size = xp.where(q <= 0.425, q * centre, xp.where(r <= 5.0, middle, far))
    return xp.where(lower, -size, size)
