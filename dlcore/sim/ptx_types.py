"""PTX scalar types, and how a register's bits become an array of numbers and back.

Registers hold raw bits: one unsigned integer (or bool, for predicates) per thread. A type decodes them: packed types
(`f16x2`) to an array with a leading axis of two, bfloat16 to the float32 of the same value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BITS: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
}

# Generic addresses of these spaces start here; global ones are below.
WINDOW = {"shared": 1 << 48, "local": 2 << 48, "param": 3 << 48}


@dataclass(frozen=True)
class Type:
    """`bits` is the width of the whole, `dtype` that of one decoded element; `kind` is one of b, u, s, f, pred."""

    name: str
    kind: str
    bits: int
    dtype: np.dtype[Any]
    packed: bool = False
    bfloat: bool = False

    @property
    def plain(self) -> bool:
        """Whether decoding is a change of view."""
        return not (self.packed or self.bfloat or self.kind == "pred")

    def decode(self, raw: Array) -> Array:
        """Numbers held by the low `bits` of raw registers."""
        if self.kind == "pred":
            return raw
        if raw.dtype.itemsize * 8 != self.bits:
            raw = raw.astype(BITS[self.bits])
        if self.packed:
            raw = np.stack([raw, raw >> 16]).astype(np.uint16)
        if self.bfloat:
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.view(self.dtype)

    def encode(self, value: Array, width: int) -> Array:
        """Raw registers of `width` bits that hold `value`; signed integers are sign-extended, others zero-extended."""
        if self.kind == "pred":
            return value
        if self.bfloat:
            value = (value.view(np.uint32) >> 16).astype(np.uint16)
        if self.packed:
            low, high = value.view(np.uint16).astype(np.uint32)
            value = low | high << 16
        if value.dtype.itemsize * 8 != width:
            value = value.view(BITS[value.dtype.itemsize * 8]) if value.dtype.kind == "f" else value
            value = value.astype(BITS[width])
        return value.view(BITS[width])


def _types() -> dict[str, Type]:
    plain = [Type(f"{k}{n}", k, n, np.dtype(f"{'i' if k == 's' else 'u'}{n // 8}")) for k in "bus" for n in BITS]
    floats = [Type(f"f{n}", "f", n, np.dtype(f"f{n // 8}")) for n in (16, 32, 64)]
    others = [
        Type("pred", "pred", 1, np.dtype(np.bool_)),
        Type("tf32", "f", 32, np.dtype(np.float32)),
        Type("bf16", "f", 16, np.dtype(np.float32), bfloat=True),
        Type("bf16x2", "f", 32, np.dtype(np.float32), packed=True, bfloat=True),
        Type("f16x2", "f", 32, np.dtype(np.float16), packed=True),
        Type("u16x2", "u", 32, np.dtype(np.uint16), packed=True),
        Type("s16x2", "s", 32, np.dtype(np.int16), packed=True),
    ]
    return {t.name: t for t in plain + floats + others}


TYPES = _types()
