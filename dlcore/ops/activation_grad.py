"""Gradients of the common activations. Each is an op of its own, so that a backward pass reads its arrays once.

`dy` is the gradient of the output; `out` the activation's output, `x` its operand.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from dlcore.op import Op
from dlcore.ops.elementwise import elementwise, erf, exp, tanh
from dlcore.tensor import Tensor

Xp = Any

CUBIC = 0.044715  # of gelu's tanh form: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2
ROOT = sqrt(2 / pi)


def _gradient(name: str, doc: str, operands: str, vjp: Any, reference: Any, **fields: Any) -> Op:
    return elementwise(name, doc, vjp, reference, operands=operands, kind="float", **fields)


def logistic(xp: Xp, x: Any) -> Any:
    """Reference of sigmoid: 1 / (1 + e**-x) without overflow."""
    decay = xp.exp(-xp.abs(x))
    return xp.where(x < 0, decay, 1.0) / (1 + decay)


def _silu_slope(xp: Xp, x: Any) -> Any:
    s = logistic(xp, x)
    return s * (1 + x * (1 - s))


def _silu_curvature(x: Tensor) -> Tensor:
    s = 0.5 * (1 + tanh(0.5 * x))
    out: Tensor = s * (1 - s) * (2 + x * (1 - 2 * s))
    return out


def _gelu_slope(xp: Xp, x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        t = xp.tanh(ROOT * (x + CUBIC * x * x * x))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * CUBIC * x * x)
    return 0.5 * (1 + erf.reference(xp, x / sqrt(2))) + x * xp.exp(-0.5 * x * x) / sqrt(2 * pi)


def _gelu_curvature(x: Tensor, approximate: str) -> Tensor:
    square = x * x
    if approximate == "tanh":
        t, rate = tanh(ROOT * (x + CUBIC * (x * square))), ROOT * (1 + 3 * CUBIC * square)
        bent: Tensor = (1 - t * t) * (rate + x * (3 * ROOT * CUBIC * x - t * rate * rate))
        return bent
    out: Tensor = exp(-0.5 * square) * (2 - square) / sqrt(2 * pi)
    return out


# fmt: off
relu_grad: Op = _gradient("relu_grad", "dy where the output of relu is positive, else 0.", "dy out",
    {"dy": lambda g, out: relu_grad(g, out)},
    lambda xp, dy, out: xp.where(out > 0, dy, 0.0))
tanh_grad: Op = _gradient("tanh_grad", "dy * (1 - out**2).", "dy out",
    {"dy": lambda g, out: tanh_grad(g, out), "out": lambda g, dy, out: -2 * g * dy * out},
    lambda xp, dy, out: dy * (1 - out * out), low=0.1, high=0.9)
sigmoid_grad: Op = _gradient("sigmoid_grad", "dy * out * (1 - out).", "dy out",
    {"dy": lambda g, out: sigmoid_grad(g, out), "out": lambda g, dy, out: g * dy * (1 - 2 * out)},
    lambda xp, dy, out: dy * out * (1 - out), low=0.1, high=0.9)
silu_grad: Op = _gradient("silu_grad", "dy * s * (1 + x * (1 - s)), where s = sigmoid(x).", "dy x",
    {"dy": lambda g, x: silu_grad(g, x), "x": lambda g, dy, x: g * dy * _silu_curvature(x)},
    lambda xp, dy, x: dy * _silu_slope(xp, x))
gelu_grad: Op = _gradient("gelu_grad", "dy times the slope of gelu at x.", "dy x",
    {"dy": lambda g, x, approximate: gelu_grad(g, x, approximate=approximate),
     "x": lambda g, dy, x, approximate: g * dy * _gelu_curvature(x, approximate)},
    lambda xp, dy, x, *, approximate="none": dy * _gelu_slope(xp, x, approximate), attrs=[{"approximate": "tanh"}])
# fmt: on
