"""Initialisers. Each overwrites a tensor with random or fixed values and returns it.

fan_in and fan_out of a weight `[O, I, *K]` are I * prod(K) and O * prod(K).

>>> he_normal(layer.weight, nonlinearity="relu")
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore.creation import zeros as empty
from dlcore.errors import ArgumentError, ShapeError
from dlcore.nn.parameter import Parameter
from dlcore.ops import random
from dlcore.tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAINS = {
    "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75,
}  # fmt: skip


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """Factor that keeps the variance through a non-linearity: He et al. (2015) for relu and leaky_relu (`slope`).

    Raises ArgumentError for an unknown name.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope * slope))
    if nonlinearity not in GAINS:
        raise ArgumentError(f"gain: unknown nonlinearity {nonlinearity!r}; expected {', '.join(GAINS)} or leaky_relu")
    return GAINS[nonlinearity]


def fans(x: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight. Raises ShapeError for fewer than two dimensions."""
    if x.ndim < 2:
        raise ShapeError(f"fans: a weight has at least 2 dimensions; got shape {x.shape}")
    field = math.prod(x.shape[2:])
    return x.shape[1] * field, x.shape[0] * field


def _fan(x: Tensor, mode: str) -> int:
    fan_in, fan_out = fans(x)
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode must be 'fan_in' or 'fan_out'; got {mode!r}")
    return max(fan_in if mode == "fan_in" else fan_out, 1)


def constant(x: Tensor, value: float) -> Tensor:
    """Every element `value`."""
    x.assign(value)
    return x


def zeros(x: Tensor) -> Tensor:
    """Every element 0."""
    return constant(x, 0)


def ones(x: Tensor) -> Tensor:
    """Every element 1."""
    return constant(x, 1)


def identity(x: Tensor) -> Tensor:
    """Ones on the diagonal of a matrix, or of the centre of a convolution's weight `[O, I, *K]`; else 0."""
    if x.ndim < 2:
        raise ShapeError(f"identity: needs at least 2 dimensions; got shape {x.shape}")
    values = np.zeros(x.shape)
    centre = tuple(k // 2 for k in x.shape[2:])
    for i in range(min(x.shape[:2])):
        values[(i, i, *centre)] = 1
    x.assign(values)
    return x


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform in [low, high)."""
    x.assign(random.uniform(x.shape, low, high, x.dtype, x.device))
    return x


def normal(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal."""
    x.assign(random.normal(x.shape, mean, std, x.dtype, x.device))
    return x


def truncated_normal(x: Tensor, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0) -> Tensor:
    """Normal restricted to [low, high] (absolute bounds)."""
    if not (low < high and std > 0):
        raise ArgumentError(f"truncated_normal: expected low < high and std > 0; got {low}, {high} and {std}")
    bounds = (low - mean) / std, (high - mean) / std
    x.assign(random.truncated_normal(x.shape, mean, std, *bounds, x.dtype, x.device))
    return x


def glorot_uniform(x: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out). Glorot & Bengio (2010), equation 16."""
    bound = gain * math.sqrt(6 / max(sum(fans(x)), 1))
    return uniform(x, -bound, bound)


def glorot_normal(x: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with variance gain^2 * 2 / (fan_in + fan_out). Glorot & Bengio (2010)."""
    return normal(x, 0.0, gain * math.sqrt(2 / max(sum(fans(x)), 1)))


def he_uniform(x: Tensor, slope: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform with variance gain(nonlinearity, slope)^2 / fan. He et al., "Delving deep into rectifiers" (2015)."""
    bound = gain(nonlinearity, slope) * math.sqrt(3 / _fan(x, mode))
    return uniform(x, -bound, bound)


def he_normal(x: Tensor, slope: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with variance gain(nonlinearity, slope)^2 / fan. He et al., "Delving deep into rectifiers" (2015)."""
    return normal(x, 0.0, gain(nonlinearity, slope) / math.sqrt(_fan(x, mode)))


def lecun_uniform(x: Tensor) -> Tensor:
    """Uniform with variance 1 / fan_in. LeCun et al., "Efficient BackProp" (1998), section 4.6."""
    return he_uniform(x, nonlinearity="linear")


def lecun_normal(x: Tensor) -> Tensor:
    """Normal with variance 1 / fan_in. LeCun et al., "Efficient BackProp" (1998), section 4.6."""
    return he_normal(x, nonlinearity="linear")


def orthogonal(x: Tensor, gain: float = 1.0) -> Tensor:
    """Rows (or columns, where there are fewer) orthonormal times `gain`; axes after the first count as one.

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning" (2014).
    """
    if x.ndim < 2:
        raise ShapeError(f"orthogonal: needs at least 2 dimensions; got shape {x.shape}")
    rows, columns = x.shape[0], math.prod(x.shape[1:])
    tall: Any = _host(random.normal((max(rows, columns), min(rows, columns))))
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    x.assign(gain * (q.T if rows < columns else q).reshape(x.shape))
    return x


def sparse(x: Tensor, sparsity: float, std: float = 0.01) -> Tensor:
    """Normal with the fraction `sparsity` of each column set to 0. Martens, "Hessian-free optimization" (2010)."""
    if x.ndim != 2 or not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparse: needs a matrix and 0 <= sparsity <= 1; got shape {x.shape} and {sparsity}")
    order = np.argsort(_host(random.uniform(x.shape)), axis=0)
    values = std * _host(random.normal(x.shape))
    np.put_along_axis(values, order[: math.ceil(sparsity * x.shape[0])], 0.0, axis=0)
    x.assign(values)
    return x


def fan_in_parameter(shape: tuple[int, ...], fan_in: int) -> Parameter:
    """New parameter, uniform in +-1 / sqrt(fan_in): the default of linear, convolutional and recurrent layers."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    found = Parameter(empty(shape))
    uniform(found, -bound, bound)
    return found


def _host(x: Tensor) -> NDArray[np.float64]:
    return np.asarray(x.numpy(), np.float64)


xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal
