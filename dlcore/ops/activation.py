"""Activation functions. Each keeps NaN, and none overflows for large arguments.

The gradient at a kink is that of the flat side (`relu` at 0 gives 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import Op
from dlcore.ops.activation_grad import CUBIC, ROOT, gelu_grad, logistic, relu_grad, sigmoid_grad, silu_grad
from dlcore.ops.elementwise import abs, elementwise, erf, exp, logical_and, minimum, tanh
from dlcore.ops.shape import axis_index, where
from dlcore.signature import Dims
from dlcore.tensor import Tensor

Xp = Any


def _activation(name: str, doc: str, vjp: Any, reference: Any, **fields: Any) -> Op:
    return elementwise(name, doc, {"x": vjp}, reference, kind="float", **{"low": -5.0, "high": 5.0, **fields})


def _require(condition: Callable[..., bool], message: str) -> Callable[..., Mapping[str, Any]]:
    """An `infer` rule that refuses bad attributes."""

    def infer(d: Dims, **attrs: Any) -> Mapping[str, Any]:
        if not condition(**attrs):
            raise ArgumentError(f"{message}; got {', '.join(f'{k}={v!r}' for k, v in attrs.items())}")
        return {}

    return infer


def _decay(xp: Xp, x: Any) -> Any:
    """e**-|x|, which cannot overflow."""
    return xp.exp(-xp.abs(x))


# ---- sigmoid, softplus and what is made of them

# fmt: off
sigmoid: Op = _activation("sigmoid", "1 / (1 + e**-x).",
    lambda g, y: sigmoid_grad(g, y),
    logistic)
logsigmoid = _activation("logsigmoid", "log(sigmoid(x)).",
    lambda g, x: g * sigmoid(-x),
    lambda xp, x: xp.where(x > 0, 0.0, x) - xp.log1p(_decay(xp, x)))
softplus: Op = _activation("softplus", "log(1 + e**(beta * x)) / beta.",
    lambda g, x, beta: g * sigmoid(beta * x),
    lambda xp, x, *, beta=1.0: (xp.where(x < 0, 0.0, x) + xp.log1p(_decay(xp, beta * x)) / beta),
    attrs=[{"beta": 2.5}], infer=_require(lambda beta: beta > 0, "beta must be positive"))
# fmt: on


def _mish_slope(x: Tensor) -> Tensor:
    t = tanh(softplus(x))
    slope: Tensor = t + x * sigmoid(x) * (1 - t * t)
    return slope


# fmt: off
silu = _activation("silu", "x * sigmoid(x), also called swish (Elfwing et al. 2018, arXiv:1702.03118).",
    lambda g, x: silu_grad(g, x),
    lambda xp, x: x * logistic(xp, x))
mish = _activation("mish", "x * tanh(softplus(x)) (Misra 2019, arXiv:1908.08681).",
    lambda g, x: g * _mish_slope(x),
    lambda xp, x: x * xp.tanh(softplus.reference(xp, x)))
softsign = _activation("softsign", "x / (1 + |x|).",
    lambda g, x: g / _squared(1 + abs(x)),
    lambda xp, x: x / (1 + xp.abs(x)))
tanhshrink = _activation("tanhshrink", "x - tanh(x).",
    lambda g, x: g * _squared(tanh(x)),
    lambda xp, x: x - xp.tanh(x))
# fmt: on


def _squared(x: Tensor) -> Tensor:
    return x * x


# ---- GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)


def _gelu(xp: Xp, x: Any, *, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(ROOT * (x + CUBIC * x * x * x)))
    return 0.5 * x * (1 + erf.reference(xp, x / sqrt(2)))


gelu = _activation(
    "gelu",
    "x times the normal distribution function of x; approximate='tanh' is the cheaper form.",
    lambda g, x, approximate: gelu_grad(g, x, approximate=approximate),
    _gelu,
    attrs=[{"approximate": "tanh"}],
    infer=_require(lambda approximate: approximate in ("none", "tanh"), "approximate must be 'none' or 'tanh'"),
)

# ---- rectifiers


def _elu(xp: Xp, x: Any, *, alpha: float = 1.0) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.where(x > 0, 0.0, x)))


def _celu(xp: Xp, x: Any, *, alpha: float = 1.0) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.where(x > 0, 0.0, x) / alpha))


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Fixed-point constants of Klambauer et al. 2017, arXiv:1706.02515, equation 14."""


def _leak(g: Tensor, x: Tensor, slope: Any) -> Any:
    """Gradient of a leaky rectifier."""
    return where(x > 0, g, g * slope)


def _saturating(x: Tensor, alpha: float, rate: float) -> Any:
    """Slope of a rectifier whose negative side is `alpha * (e**(rate * x) - 1)`."""
    return where(x > 0, 1.0, (alpha * rate) * exp(rate * minimum(x, 0.0)))


# fmt: off
relu = elementwise("relu", "max(x, 0).",
    {"x": lambda g, y: relu_grad(g, y)},
    lambda xp, x: xp.where(x < 0, 0, x))
leaky_relu = _activation("leaky_relu", "x where positive, else slope * x.",
    _leak,
    lambda xp, x, *, slope=0.01: xp.where(x > 0, x, slope * x), attrs=[{"slope": 0.3}])
elu = _activation("elu", "x where positive, else alpha * (e**x - 1) (Clevert et al. 2016, arXiv:1511.07289).",
    lambda g, x, alpha: g * _saturating(x, alpha, 1.0), _elu, attrs=[{"alpha": 0.5}])
celu = _activation("celu", "x where positive, else alpha * (e**(x / alpha) - 1) (Barron 2017, arXiv:1704.07483).",
    lambda g, x, alpha: g * _saturating(x, alpha, 1 / alpha), _celu, attrs=[{"alpha": 0.5}],
    infer=_require(lambda alpha: alpha > 0, "alpha must be positive"))
selu = _activation("selu", "Self-normalising elu with fixed constants (Klambauer et al. 2017, arXiv:1706.02515).",
    lambda g, x: g * (SELU_SCALE * _saturating(x, SELU_ALPHA, 1.0)),
    lambda xp, x: SELU_SCALE * _elu(xp, x, alpha=SELU_ALPHA))
_prelu: Op = elementwise("prelu", "x where positive, else weight * x (He et al. 2015, arXiv:1502.01852).",
    {"x": lambda g, x, weight: _leak(g, x, weight), "weight": lambda g, x: g * minimum(x, 0.0)},
    lambda xp, x, weight: xp.where(x > 0, x, weight * x), operands="x weight", kind="float")

# ---- piecewise linear functions


def _inside(x: Tensor, low: float, high: float) -> Tensor:
    out: Tensor = logical_and(x > low, x < high)
    return out


hardtanh = _activation("hardtanh", "x bounded to [low, high].",
    lambda g, x, low, high: where(_inside(x, low, high), g, 0.0),
    lambda xp, x, *, low=-1.0, high=1.0: xp.clip(x, low, high), attrs=[{"low": -0.5, "high": 2.0}],
    infer=_require(lambda low, high: low <= high, "low must not exceed high"))
relu6 = _activation("relu6", "min(max(x, 0), 6).",
    lambda g, x: where(_inside(x, 0.0, 6.0), g, 0.0),
    lambda xp, x: xp.clip(x, 0.0, 6.0), high=9.0)
hardsigmoid = _activation("hardsigmoid", "x / 6 + 1 / 2 bounded to [0, 1].",
    lambda g, x: where(_inside(x, -3.0, 3.0), g / 6, 0.0),
    lambda xp, x: xp.clip(x / 6 + 0.5, 0.0, 1.0))
hardswish = _activation("hardswish", "x * hardsigmoid(x) (Howard et al. 2019, arXiv:1905.02244).",
    lambda g, x: where(x <= -3, 0.0, g * where(x < 3, (2 * x + 3) / 6, 1.0)),
    lambda xp, x: x * xp.clip(x / 6 + 0.5, 0.0, 1.0))
hardshrink = _activation("hardshrink", "x where |x| > lambd, else 0.",
    lambda g, x, lambd: where(abs(x) > lambd, g, 0.0),
    lambda xp, x, *, lambd=0.5: xp.where(xp.abs(x) <= lambd, 0.0, x), attrs=[{"lambd": 1.2}], high=5.3)
softshrink = _activation("softshrink", "x moved towards 0 by lambd, and 0 where |x| <= lambd.",
    lambda g, x, lambd: where(abs(x) > lambd, g, 0.0),
    lambda xp, x, *, lambd=0.5: x - xp.clip(x, -lambd, lambd), attrs=[{"lambd": 1.2}], high=5.3,
    infer=_require(lambda lambd: lambd >= 0, "lambd must not be negative"))
threshold = _activation("threshold", "x where x > threshold, else value.",
    lambda g, x, threshold: where(x > threshold, g, 0.0),
    lambda xp, x, *, threshold=0.0, value=0.0: xp.where(x <= threshold, value, x),
    attrs=[{"threshold": 0.4, "value": -2.0}])
# fmt: on


def prelu(x: Any, weight: Any) -> Tensor:
    """`x` where positive, else `weight * x` (He et al. 2015, arXiv:1502.01852).

    x: [N, C, ...] floats. weight: slopes [C], one per channel (axis 1), or any shape that broadcasts to x's.

    >>> prelu(dl.tensor([[-2.0, 4.0]]), dl.tensor([0.5, 0.5]))
    tensor([[-1., 4.]])
    """
    if getattr(weight, "ndim", 0) == 1 and getattr(x, "ndim", 0) > 2:
        weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
    out: Tensor = _prelu(x, weight)
    return out


def glu(x: Tensor, axis: int = -1) -> Tensor:
    """First half of `x` along an axis times the sigmoid of its second half (Dauphin et al. 2017, arXiv:1612.08083).

    Raises ShapeError where the axis has an odd size.

    >>> glu(dl.zeros((3, 8))).shape
    (3, 4)
    """
    at = axis_index(axis, x.ndim)
    half, odd = divmod(x.shape[at], 2)
    if odd:
        raise ShapeError(f"glu: axis {axis} has odd size {x.shape[at]}; got x{list(x.shape)}")
    lead = (slice(None),) * at
    out: Tensor = x[(*lead, slice(None, half))] * sigmoid(x[(*lead, slice(half, None))])
    return out
