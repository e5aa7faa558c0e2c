"""Data types and the one promotion rule.

A dtype is a `numpy.dtype`. Promotion follows the array API; where that leaves int with float open, the float
wins. Python scalars are weak: they take the dtype of the array they meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from dlcore.errors import DTypeError

DType = np.dtype[Any]

float64: DType = np.dtype("float64")
float32: DType = np.dtype("float32")
float16: DType = np.dtype("float16")
int64: DType = np.dtype("int64")
int32: DType = np.dtype("int32")
int16: DType = np.dtype("int16")
int8: DType = np.dtype("int8")
uint8: DType = np.dtype("uint8")
uint16: DType = np.dtype("uint16")
uint32: DType = np.dtype("uint32")
uint64: DType = np.dtype("uint64")
bool_: DType = np.dtype("bool")

DEFAULT_FLOAT = float32
DEFAULT_INT = int64
_NATIVE = {d.name: d for d in (float64, float32, float16, int64, int32, int16, int8)}
_NATIVE |= {d.name: d for d in (uint8, uint16, uint32, uint64, bool_)}
NAMES = (*_NATIVE, "bfloat16")


@cache
def bfloat16_dtype() -> DType:
    """The bfloat16 dtype; it comes from the `ml_dtypes` package. Raises DTypeError where that is missing."""
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError("bfloat16 needs the package ml_dtypes: pip install 'dlcore[bf16]'") from None
    found: DType = np.dtype(ml_dtypes.bfloat16)
    return found


def has_bfloat16() -> bool:
    """Whether its package is installed."""
    try:
        bfloat16_dtype()
    except DTypeError:
        return False
    return True


def __getattr__(name: str) -> DType:
    if name == "bfloat16":
        return bfloat16_dtype()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def dtype(spec: Any) -> DType:
    """Turn a name, Python type or NumPy dtype into a supported dtype.

    >>> dtype("float32"), dtype(int)
    (dtype('float32'), dtype('int64'))
    """
    if spec is float:
        return DEFAULT_FLOAT
    if isinstance(spec, str) and spec == "bfloat16":
        return bfloat16_dtype()
    try:
        found: DType = np.dtype(spec)
    except TypeError:
        raise DTypeError(f"unknown dtype {spec!r}; expected one of {', '.join(NAMES)}") from None
    if found.name not in NAMES or not found.isnative:
        raise DTypeError(f"dtype {found} is not supported; expected one of {', '.join(NAMES)}")
    return _NATIVE.get(found.name, found)


@cache
def kind(dt: DType) -> str:
    """`"float"`, `"int"` or `"bool"`."""
    if dt.name == "bfloat16" or dt.kind == "f":
        return "float"
    return "bool" if dt.kind == "b" else "int"


def is_half(dt: DType) -> bool:
    """Whether `dt` is a 16-bit float, whose sums are accumulated in float32."""
    return dt.itemsize == 2 and kind(dt) == "float"


def wide(dt: DType) -> DType:
    """What sums of `dt` are accumulated in: float32 for a 16-bit float, else `dt` itself."""
    return float32 if is_half(dt) else dt


@cache
def promote(dtypes: frozenset[DType]) -> DType:
    """The dtype that holds all of `dtypes` (array-API promotion; a float beats any int)."""
    floats = {d for d in dtypes if kind(d) == "float"}
    chosen = floats or dtypes
    if len(chosen) == 1:
        return next(iter(chosen))
    if floats:
        return float64 if float64 in floats else float32
    return dtype(np.result_type(*chosen))


def scalar_dtype(value: Any, like: Iterable[DType]) -> DType:
    """The dtype that a Python scalar takes beside arrays of dtypes `like`."""
    present = frozenset(like)
    if isinstance(value, bool):
        return promote(present) if present else bool_
    default = DEFAULT_FLOAT if isinstance(value, float) else DEFAULT_INT
    if not present:
        return default
    found = promote(present)
    if kind(found) == "bool" or (kind(found) == "int" and isinstance(value, float)):
        return default
    return found
