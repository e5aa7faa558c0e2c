"""Element-wise ops on `_C`: one pass over the operands, whatever their strides; rows of `csrc/elementwise.h`."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from dlcore import _C, dtypes
from dlcore.dispatch import Call, implement

Array = np.ndarray[Any, Any]

PLAIN = (
    "add", "subtract", "multiply", "divide", "lerp", "maximum", "minimum", "negative", "abs", "square", "sqrt",
    "pow", "rsqrt", "reciprocal", "exp", "log", "expm1", "log1p", "tanh", "sigmoid", "erf", "relu", "silu", "mish",
    "logsigmoid", "softsign", "relu_grad", "tanh_grad", "sigmoid_grad", "silu_grad", "less", "less_equal", "greater",
    "greater_equal", "equal", "not_equal", "where",
)  # fmt: skip
"""Ops that are their function of `_C`; the others adapt attributes."""


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


@_native("leaky_relu")
def _leaky_relu(x: Array, *, slope: float) -> Array:
    out: Array = _C.leaky_relu(x, slope)
    return out


@_native("elu")
def _elu(x: Array, *, alpha: float) -> Array:
    out: Array = _C.elu(x, alpha)
    return out


@_native("softplus")
def _softplus(x: Array, *, beta: float) -> Array:
    out: Array = _C.softplus(x, beta)
    return out


@_native("gelu")
def _gelu(x: Array, *, approximate: str) -> Array:
    out: Array = (_C.gelu_tanh if approximate == "tanh" else _C.gelu)(x)
    return out


@_native("gelu_grad")
def _gelu_grad(g: Array, x: Array, *, approximate: str) -> Array:
    out: Array = (_C.gelu_tanh_grad if approximate == "tanh" else _C.gelu_grad)(g, x)
    return out
