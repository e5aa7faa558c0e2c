"""Less common element-wise functions of floats, and predicates, on `kernels/functions.cu`."""

from __future__ import annotations

from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.ops_elementwise import like, refuse, register
from dlcore.dispatch import implement

Array = Any

PLAIN = (
    "log10", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "tanhshrink", "selu",
    "hardsigmoid", "hardswish", "floor_divide", "remainder", "logaddexp", "hypot", "atan2",
)  # fmt: skip
"""Ops that are the kernel of their name."""

for _name in PLAIN:
    register(_name, f"functions_{_name}")
for _name in ("isnan", "isinf", "isfinite", "signbit"):
    register(_name, f"functions_{_name}", out=dtypes.bool_)


@implement("relu6", "cuda", refuse=refuse)
def relu6(x: Array) -> Array:
    """`x` bounded to [0, 6]."""
    return hardtanh(x, low=0.0, high=6.0)


@implement("hardtanh", "cuda", refuse=refuse)
def hardtanh(x: Array, *, low: float, high: float) -> Array:
    """`x` bounded to [low, high]."""
    return like(x, "elementwise_clip", x, x.dtype.type(low), x.dtype.type(high))


def _with_number(op: str) -> None:
    """An op whose one attribute is the kernel's second operand."""

    def native(x: Array, **attrs: float) -> Array:
        (number,) = attrs.values()
        return like(x, f"functions_{op}", x, x.dtype.type(number))

    implement(op, "cuda", refuse=refuse)(native)


for _name in ("celu", "hardshrink", "softshrink"):
    _with_number(_name)


@implement("threshold", "cuda", refuse=refuse)
def threshold(x: Array, *, threshold: float, value: float) -> Array:
    """`x` where it is above the threshold, else `value`."""
    return like(x, "functions_threshold", x, x.dtype.type(threshold), x.dtype.type(value))
