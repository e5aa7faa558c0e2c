"""Integer and bit arithmetic of PTX (ISA 9.0, sections 9.7.1, 9.7.2 and 9.7.8) on arrays of one dtype."""

from __future__ import annotations

import numpy as np

from dlcore.sim.ptx_types import BITS, Array


def width(a: Array) -> int:
    """Bits of one element."""
    return a.dtype.itemsize * 8


def unsigned(a: Array) -> Array:
    """The same bits as an unsigned integer."""
    return a.view(BITS[width(a)])


def wide_multiply(a: Array, b: Array) -> Array:
    """The product of 16- or 32-bit integers at twice the width."""
    double: Array = a.astype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    product: Array = double * b.astype(double.dtype)
    return product


def high_multiply(a: Array, b: Array) -> Array:
    """The upper half of the product."""
    if width(a) < 64:
        return (wide_multiply(a, b) >> width(a)).astype(a.dtype)
    high = _high_multiply_64(unsigned(a), unsigned(b))
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, unsigned(b), np.uint64(0)) - np.where(b < 0, unsigned(a), np.uint64(0))
    return high.view(a.dtype)


def _high_multiply_64(a: Array, b: Array) -> Array:
    low = np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & low, a >> 32, b & low, b >> 32
    middle = a1 * b0 + (a0 * b0 >> 32)
    carry = a0 * b1 + (middle & low)
    high: Array = a1 * b1 + (middle >> 32) + (carry >> 32)
    return high


def divide(a: Array, b: Array) -> Array:
    """Quotient towards zero; all bits set where b is zero."""
    size, by = magnitude(a), magnitude(b)
    quotient = (size // np.maximum(by, by.dtype.type(1))).view(a.dtype)
    if a.dtype.kind == "i":
        quotient = np.where((a < 0) ^ (b < 0), -quotient, quotient)
    return np.where(b == 0, ~np.zeros(1, a.dtype), quotient)


def remainder(a: Array, b: Array) -> Array:
    """a - divide(a, b) * b; a where b is zero."""
    return np.where(b == 0, a, a - divide(a, b) * b)


def magnitude(a: Array) -> Array:
    """The absolute value as an unsigned integer."""
    return unsigned(np.where(a < 0, -a, a)) if a.dtype.kind == "i" else a


def shift_left(a: Array, count: Array) -> Array:
    """a << count; zero where count reaches the width."""
    shifted: Array = a << np.minimum(count, width(a) - 1).astype(a.dtype)
    return np.where(count >= width(a), a.dtype.type(0), shifted)


def shift_right(a: Array, count: Array) -> Array:
    """a >> count; zero, or the sign, where count reaches the width."""
    last = width(a) - 1
    shifted: Array = a >> np.minimum(count, last).astype(a.dtype)
    return np.where(count > last, shifted >> a.dtype.type(last), shifted)


def funnel_left(low: Array, high: Array, count: Array) -> Array:
    """The upper word of high:low << count, with count <= 32."""
    return (_joined(low, high) << count.astype(np.uint64) >> 32).astype(np.uint32)


def funnel_right(low: Array, high: Array, count: Array) -> Array:
    """The lower word of high:low >> count, with count <= 32."""
    return (_joined(low, high) >> count.astype(np.uint64)).astype(np.uint32)


def _joined(low: Array, high: Array) -> Array:
    return high.astype(np.uint64) << 32 | low


def low_bits(count: Array, like: Array) -> Array:
    """A mask of the `count` lowest bits."""
    return ~shift_left(~np.zeros(like.shape, unsigned(like).dtype), count)


def extract(a: Array, position: Array, length: Array) -> Array:
    """bfe: `length` bits from `position` on, sign-extended for signed types."""
    position, length = position & 0xFF, length & 0xFF
    field = shift_right(a, position)
    if a.dtype.kind == "u":
        return field & low_bits(length, a)
    last = np.minimum(position + length - 1, width(a) - 1)
    negative = (shift_right(unsigned(a), last) & unsigned(a).dtype.type(1)).astype(bool) & (length > 0)
    mask = low_bits(length, a).view(a.dtype)
    return np.where(negative, field | ~mask, field & mask)


def insert(field: Array, into: Array, position: Array, length: Array) -> Array:
    """bfi: `into` with `length` bits at `position` replaced by those of `field`."""
    position, length = position & 0xFF, length & 0xFF
    mask = shift_left(low_bits(length, into), position)
    return (into & ~mask) | (shift_left(field, position) & mask)


def count_ones(a: Array) -> Array:
    """popc"""
    return np.bitwise_count(a).astype(np.uint32)


def leading_zeros(a: Array) -> Array:
    """clz"""
    filled = a
    for step in (1, 2, 4, 8, 16, 32):
        filled = filled | shift_right(filled, np.array([step]))
    return (width(a) - np.bitwise_count(filled)).astype(np.uint32)


def highest_bit(a: Array, *, from_top: bool) -> Array:
    """bfind: the highest set bit (for signed types, the highest that differs from the sign), or all ones."""
    bits = unsigned(np.where(a < 0, ~a, a)) if a.dtype.kind == "i" else a
    zeros = leading_zeros(bits)
    place = zeros if from_top else np.uint32(width(a) - 1) - zeros
    return np.where(bits == 0, np.uint32(0xFFFFFFFF), place)


def reverse_bits(a: Array) -> Array:
    """brev"""
    result = np.zeros_like(a)
    for i in range(width(a)):
        result |= (a >> a.dtype.type(i) & a.dtype.type(1)) << a.dtype.type(width(a) - 1 - i)
    return result


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """prmt: each nibble of the selector picks a byte of b:a; its top bit replicates the byte's sign instead."""
    both: Array = _joined(a, b)
    result: Array = np.zeros(1, np.uint32)
    for i in range(4):
        pick = (selector >> (4 * i)).astype(np.uint64)
        byte = both >> (pick & 7) * 8 & 0xFF
        sign = np.where(byte & 0x80, 0xFF, 0).astype(np.uint64)
        result = result | np.where(pick & 8, sign, byte).astype(np.uint32) << (8 * i)
    return result


def lookup_bits(a: Array, b: Array, c: Array, table: int) -> Array:
    """lop3: any logical operation of three operands, by its truth table."""
    result = a & 0
    for i in range(8):
        if table >> i & 1:
            result = result | (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return result


def add_carry(a: Array, b: Array, carry: Array) -> tuple[Array, Array]:
    """a + b + carry and the carry out."""
    partial = a + b
    total = partial + carry.astype(a.dtype)
    return total, (unsigned(partial) < unsigned(a)) | (unsigned(total) < unsigned(partial))


def subtract_borrow(a: Array, b: Array, borrow: Array) -> tuple[Array, Array]:
    """a - b - borrow and the borrow out."""
    partial = a - b
    return partial - borrow.astype(a.dtype), (unsigned(a) < unsigned(b)) | (unsigned(partial) < borrow)


def dot_bytes(a: Array, b: Array, a_signed: bool, b_signed: bool) -> Array:
    """dp4a's sum of four products of bytes."""
    left = a[:, None].view(np.int8 if a_signed else np.uint8).astype(np.int32)
    right = b[:, None].view(np.int8 if b_signed else np.uint8).astype(np.int32)
    total: Array = (left * right).sum(-1, dtype=np.int32)
    return total
