"""Element-wise ops on `_C`: one pass over the operands, whatever their strides; rows of `csrc/elementwise.h`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]

PLAIN = (
    "add", "subtract", "multiply", "divide", "lerp", "maximum", "minimum", "negative", "abs", "square", "sqrt",
    "pow", "rsqrt", "reciprocal", "exp", "log", "logaddexp", "sign", "floor", "ceil", "trunc", "round", "expm1",
    "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "relu", "silu", "mish", "logsigmoid", "softsign", "tanhshrink",
    "selu", "hardsigmoid", "hardswish", "relu_grad", "tanh_grad", "sigmoid_grad", "silu_grad", "less", "less_equal",
    "greater", "greater_equal", "equal", "not_equal", "where",
)  # fmt: skip
"""Ops that are their function of `_C`; those of ADAPTED and `clip` adapt something."""


def refuse_all_but_f32_f64(call: Call) -> str | None:
    """A `refuse` rule of kernels for float32 and float64."""
    return None if call.dtype in (dtypes.float32, dtypes.float64) else f"no kernel for {call.dtype}"


def _native(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return implement(name, "cpu", refuse=refuse_all_but_f32_f64)


for _name in PLAIN:
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64, numbers=True)(getattr(_C, _name))


@_native("clip")
def _clip(x: Array, low: Array | None, high: Array | None) -> Array:
    out: Array = _C.clip(x, -inf if low is None else low, inf if high is None else high)
    return out


ADAPTED: dict[str, Callable[[Mapping[str, Any]], tuple[str, list[float]]]] = {
    "celu": lambda a: ("celu", [a["alpha"]]),
    "elu": lambda a: ("elu", [a["alpha"]]),
    "gelu": lambda a: ("gelu_tanh" if a["approximate"] == "tanh" else "gelu", []),
    "gelu_grad": lambda a: ("gelu_tanh_grad" if a["approximate"] == "tanh" else "gelu_grad", []),
    "hardshrink": lambda a: ("hardshrink", [a["lambd"]]),
    "hardtanh": lambda a: ("clip", [a["low"], a["high"]]),
    "leaky_relu": lambda a: ("leaky_relu", [a["slope"]]),
    "prelu": lambda a: ("leaky_relu", []),
    "relu6": lambda a: ("clip", [0.0, 6.0]),
    "softplus": lambda a: ("softplus", [a["beta"]]),
    "softshrink": lambda a: ("softshrink", [a["lambd"]]),
    "threshold": lambda a: ("threshold", [a["threshold"], a["value"]]),
}
"""For ops with attributes, or with another name: the function of `_C`, and what it takes after the operands."""


def _adapted(name: str) -> Callable[..., Array]:
    adapt = ADAPTED[name]

    def call(*operands: Array, **attrs: Any) -> Array:
        kernel, numbers = adapt(attrs)
        out: Array = getattr(_C, kernel)(*operands, *numbers)
        return out

    return call


for _name in ADAPTED:
    _native(_name)(_adapted(_name))
