"""Floating-point arithmetic rounded once, as PTX prescribes (ISA 9.0, section 9.7.3).

Operations of 32 and 16 bits are carried out in float64 and rounded to odd there: the last bit says whether the result
was inexact, and since 53 >= 2 * 24 + 2 bits are kept, rounding that to the narrow type is rounding the exact result
(Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dlcore.sim.ptx_types import Array, Type

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)
MODES = ("rn", "rz", "rm", "rp", "rna")


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and its exact error (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded float64 product and its error (Dekker, Veltkamp), exact unless something over- or underflows."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = split(a), split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def split(a: Array) -> tuple[Array, Array]:
    """Halves of 26 and 27 bits that sum to a."""
    scaled = a * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def to_odd(value: Array, error: Array) -> Array:
    """value + error rounded to odd: an inexact value is moved to the neighbour whose last bit is set."""
    bits: Array = value.view(np.int64 if value.dtype == F64 else np.int32)
    inexact = (error != 0) & np.isfinite(error) & (bits & 1 == 0)
    outward = (error > 0) != np.signbit(value)
    odd: Array = bits + np.where(inexact, np.where(outward, 1, -1), 0).astype(bits.dtype)
    return odd.view(value.dtype)


def directed(value: Array, error: Array, mode: str) -> Array:
    """From the nearest value to the one that `mode` wants; of the exact rest, `error`, only the sign matters."""
    if mode == "rn":
        return value
    infinity = value.dtype.type(np.inf)
    down = (error < 0) & ((mode == "rm") | ((mode == "rz") & (value > 0)))
    up = (error > 0) & ((mode == "rp") | ((mode == "rz") & (value < 0)))
    lowered = np.where(down, np.nextafter(value, -infinity), value)
    return np.where(up, np.nextafter(value, infinity), lowered)


def narrow(value: Array, kind: Type, mode: str = "rn") -> Array:
    """A float64 (rounded to odd where inexact) as the decoded form of a PTX float type."""
    if kind.dtype == F64:
        return value
    if kind.name == "tf32" or kind.bfloat:
        single = value.astype(F32)
        single = to_odd(single, value - single)
        return round_bits(single, 13 if kind.name == "tf32" else 16, mode)
    rounded = value.astype(kind.dtype)
    return directed(rounded, value - rounded.astype(F64), mode)


def round_bits(value: Array, dropped: int, mode: str) -> Array:
    """float32 with its low `dropped` bits rounded off: rn (ties to even), rna (ties away from zero) or rz."""
    bits = value.view(np.uint32)
    half, last = 1 << (dropped - 1), bits >> dropped & 1
    increments: dict[str, Array | int] = {"rn": half - 1 + last, "rna": half, "rz": 0}
    rounded = (bits + increments[mode]) & (-1 << dropped & 0xFFFFFFFF)
    special = ~np.isfinite(value)
    quiet = np.where(np.isnan(value), np.uint32(0x7FFFFFFF & (-1 << dropped & 0xFFFFFFFF)), bits)
    return np.where(special, quiet, rounded).view(F32)


def flush(value: Array) -> Array:
    """Subnormal float32 become zeros of the same sign (`.ftz`)."""
    return np.where(np.abs(value) < np.float32(SMALLEST_NORMAL), np.copysign(np.float32(0), value), value)


def saturate(value: Array) -> Array:
    """Clamped to [0, 1]; NaN becomes 0 (`.sat`)."""
    return np.asarray(np.where(value > 0, np.minimum(value, value.dtype.type(1)), value.dtype.type(0)))


def add(a: Array, b: Array, kind: Type, mode: str) -> Array:
    """a + b; native where the type is, rounded once otherwise."""
    if mode == "rn" and kind.dtype in (F32, F64) and not kind.bfloat:
        return a + b
    if kind.dtype == F64:
        return fma_double(a, np.ones(1), b, mode)
    return narrow(to_odd(*two_sum(a.astype(F64), b.astype(F64))), kind, mode)


def multiply(a: Array, b: Array, kind: Type, mode: str) -> Array:
    """a * b."""
    if mode == "rn" and kind.dtype in (F32, F64) and not kind.bfloat:
        return a * b
    if kind.dtype != F64:
        return narrow(a.astype(F64) * b.astype(F64), kind, mode)  # exact in float64
    return fma_double(a, b, np.array([-0.0]), mode)


def fma(a: Array, b: Array, c: Array, kind: Type, mode: str) -> Array:
    """a * b + c with a single rounding."""
    if kind.dtype == F64:
        return fma_double(a, b, c, mode)
    product, addend = a.astype(F64) * b.astype(F64), c.astype(F64)
    if mode == "rn" and kind.name == "f32":
        total = product + addend
        # Rounding twice goes wrong only from the middle between two float32, or where those are subnormal.
        doubtful = (total.view(np.int64) & 0x1FFFFFFF == 0x10000000) | (np.abs(total) < SMALLEST_NORMAL)
        if not doubtful.any():
            return total.astype(F32)
    return narrow(to_odd(*two_sum(product, addend)), kind, mode)


def fma_double(a: Array, b: Array, c: Array, mode: str) -> Array:
    """Float64 fma by Boldo and Melquiond's algorithm; numbers near the ends of the range by exact fractions."""
    a, b, c = np.broadcast_arrays(a, b, c)
    high, low = two_product(a, b)
    inner, inner_error = two_sum(c, low)
    outer, outer_error = two_sum(high, inner)
    tail = to_odd(*two_sum(inner_error, outer_error))
    total, error = two_sum(outer, tail)
    result = directed(total, error, mode)
    extreme = np.maximum.reduce(np.abs([a, b, c, high])) > 1e290
    extreme |= (np.abs(high) < 1e-250) | (np.abs(total) < 1e-250)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    for i in np.flatnonzero(extreme & finite & (a != 0) & (b != 0)):
        result[i] = fraction_fma(a[i], b[i], c[i], mode)
    return np.where(finite & (a != 0) & (b != 0), result, a * b + c)


def fraction_fma(a: float, b: float, c: float, mode: str) -> float:
    """One fma in exact arithmetic."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if not exact:
        return float(a * b + c)
    try:
        nearest = float(exact)
    except OverflowError:
        nearest = float("inf") if exact > 0 else float("-inf")
    above = -1.0 if abs(nearest) == float("inf") and exact > 0 else 1.0
    error = above if abs(nearest) == float("inf") else float((exact > Fraction(nearest)) - (exact < Fraction(nearest)))
    return float(directed(np.array([nearest]), np.array([error]), mode)[0])


def divide(a: Array, b: Array, kind: Type, mode: str) -> Array:
    """a / b of float32 or float64 (float64 to nearest only)."""
    quotient = a / b
    if mode == "rn":
        return quotient
    remainder = a.astype(F64) - quotient.astype(F64) * b.astype(F64)
    return directed(quotient, remainder * np.sign(b), mode)


def square_root(a: Array, kind: Type, mode: str) -> Array:
    """The square root of float32 or float64 (float64 to nearest only)."""
    root = np.sqrt(a)
    return directed(root, a.astype(F64) - root.astype(F64) ** 2, mode)


def least(a: Array, b: Array) -> Array:
    """min: a number beats NaN, -0 < +0."""
    return np.where((a == b) & np.signbit(a), a, np.fmin(a, b))


def greatest(a: Array, b: Array) -> Array:
    """max: a number beats NaN, +0 > -0."""
    return np.where((a == b) & ~np.signbit(a), a, np.fmax(a, b))


def to_integer(value: Array, kind: Type, mode: str) -> Array:
    """Float to integer by rni, rzi, rmi or rpi; out of range clamps, NaN becomes 0."""
    whole = integral(value.astype(F64), mode)
    low, high = np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max
    inside = np.where((whole >= low) & (whole < float(high) + 1), whole, 0).astype(kind.dtype)
    clamped = np.where(whole > 0, kind.dtype.type(high), kind.dtype.type(low))
    outside = (whole < low) | (whole > high)
    if kind.bits == 64:
        outside = (whole < low) | (whole >= float(high))
    return np.where(outside, clamped, inside)


def integral(value: Array, mode: str) -> Array:
    """Rounded to a whole number, in the same type."""
    return {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](value)


def from_integer(value: Array, kind: Type, mode: str) -> Array:
    """Integer to float."""
    if kind.dtype == F64 or value.dtype.itemsize == 8:
        nearest = value.astype(F32 if kind.name == "f32" else F64)
        if mode == "rn":
            return nearest if kind.dtype == nearest.dtype and not kind.bfloat else narrow(nearest, kind)
        wide = np.longdouble
        return directed(nearest, np.sign(value.astype(wide) - nearest.astype(wide)).astype(F64), mode)
    return narrow(value.astype(F64), kind, mode)
