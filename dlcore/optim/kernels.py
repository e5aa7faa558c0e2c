"""The update rules, in place on raw arrays.

A kernel is registered like that of an op, under `optim.<rule>`. `kernel(params, grads, states, **hyper)` updates a list
of parameters at once: `params` and `grads` are lists of arrays of one floating dtype (float32 or float64; gradients may
have any strides), `states[key]` is the list of each parameter's state array, and `hyper` are the settings of the
parameter group with `step`, the number of this update (from 1). The rules below serve every backend that has none of
its own, and parameters that are not contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlcore.dispatch import implement, variants

Array = Any
Kernel = Callable[..., None]


def find(rule: str, backend: str, params: Sequence[Array] = ()) -> Kernel:
    """The backend's own kernel of an update rule where there is one that takes the parameters, else the one below."""
    native = variants(f"optim.{rule}", backend) if all(p.flags.c_contiguous for p in params) else []
    return (native or variants(f"optim.{rule}", "numpy"))[0].fn


def rule(update: Callable[..., None]) -> Callable[..., None]:
    """Decorator: register `update(p, g, **states, **hyper)` of one parameter as the kernel of that name."""

    @implement(f"optim.{update.__name__}", "numpy")
    def run(params: list[Array], grads: list[Array], states: dict[str, list[Array]], **hyper: Any) -> None:
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            update(p, g, **{key: arrays[i] for key, arrays in states.items()}, **hyper)

    return update


def _average(mean: Array, x: Array, decay: float) -> None:
    """mean = decay * mean + (1 - decay) * x."""
    mean *= decay
    mean += (1 - decay) * x


@rule
def sgd(
    p: Array, g: Array, momentum_buffer: Array = None, *, lr: float, step: int, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float,
) -> None:  # fmt: skip
    """Sutskever et al., "On the importance of initialization and momentum" (2013); velocity without the rate."""
    if weight_decay:
        g = g + weight_decay * p
    if momentum:
        momentum_buffer *= momentum
        momentum_buffer += g if step == 1 else (1 - dampening) * g
        g = g + momentum * momentum_buffer if nesterov else momentum_buffer
    p -= lr * g


@rule
def adam(
    p: Array, g: Array, exp_avg: Array, exp_avg_sq: Array, max_exp_avg_sq: Array = None, *, lr: float, step: int,
    betas: tuple[float, float], eps: float, weight_decay: float, amsgrad: bool,
) -> None:  # fmt: skip
    """Kingma & Ba, "Adam" (2015), algorithm 1; Reddi et al., "On the convergence of Adam" (2018) for amsgrad."""
    if weight_decay:
        g = g + weight_decay * p
    _average(exp_avg, g, betas[0])
    _average(exp_avg_sq, g * g, betas[1])
    square = np.maximum(max_exp_avg_sq, exp_avg_sq, out=max_exp_avg_sq) if amsgrad else exp_avg_sq
    scale = np.sqrt(square) / math.sqrt(1 - betas[1] ** step) + eps
    p -= lr / (1 - betas[0] ** step) * exp_avg / scale


@rule
def adamw(p: Array, g: Array, *, lr: float, weight_decay: float, **rest: Any) -> None:
    """Loshchilov & Hutter, "Decoupled weight decay regularization" (2019)."""
    p *= 1 - lr * weight_decay
    adam(p, g, lr=lr, weight_decay=0.0, **rest)


@rule
def adamax(
    p: Array, g: Array, exp_avg: Array, exp_inf: Array, *, lr: float, step: int, betas: tuple[float, float],
    eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """Kingma & Ba, "Adam" (2015), algorithm 2."""
    if weight_decay:
        g = g + weight_decay * p
    _average(exp_avg, g, betas[0])
    np.maximum(betas[1] * exp_inf, abs(g) + eps, out=exp_inf)
    p -= lr / (1 - betas[0] ** step) * exp_avg / exp_inf


@rule
def nadam(
    p: Array, g: Array, exp_avg: Array, exp_avg_sq: Array, mu_product: Array, *, lr: float, step: int,
    betas: tuple[float, float], eps: float, weight_decay: float, momentum_decay: float,
) -> None:  # fmt: skip
    """Dozat, "Incorporating Nesterov momentum into Adam" (2016)."""
    if weight_decay:
        g = g + weight_decay * p
    mu, mu_next = (betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
    mu_product *= mu
    _average(exp_avg, g, betas[0])
    _average(exp_avg_sq, g * g, betas[1])
    scale = np.sqrt(exp_avg_sq / (1 - betas[1] ** step)) + eps
    p -= lr * (1 - mu) / (1 - mu_product) * g / scale
    p -= lr * mu_next / (1 - mu_product * mu_next) * exp_avg / scale


@rule
def rmsprop(
    p: Array, g: Array, square_avg: Array, grad_avg: Array = None, momentum_buffer: Array = None, *, lr: float,
    step: int, alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool,
) -> None:  # fmt: skip
    """Tieleman & Hinton, "RMSprop" (2012); Graves, "Generating sequences" (2013) for the centred form."""
    if weight_decay:
        g = g + weight_decay * p
    _average(square_avg, g * g, alpha)
    variance = square_avg
    if centered:
        _average(grad_avg, g, alpha)
        variance = square_avg - grad_avg * grad_avg
    update = g / (np.sqrt(variance) + eps)
    if momentum:
        momentum_buffer *= momentum
        momentum_buffer += update
        update = momentum_buffer
    p -= lr * update


@rule
def adagrad(
    p: Array, g: Array, square_sum: Array, *, lr: float, step: int, lr_decay: float, eps: float, weight_decay: float,
    initial_accumulator_value: float,
) -> None:  # fmt: skip
    """Duchi et al., "Adaptive subgradient methods" (2011)."""
    if weight_decay:
        g = g + weight_decay * p
    square_sum += g * g
    p -= lr / (1 + (step - 1) * lr_decay) * g / (np.sqrt(square_sum) + eps)


@rule
def adadelta(
    p: Array, g: Array, square_avg: Array, delta_avg: Array, *, lr: float, step: int, rho: float, eps: float,
    weight_decay: float,
) -> None:  # fmt: skip
    """Zeiler, "ADADELTA" (2012)."""
    if weight_decay:
        g = g + weight_decay * p
    _average(square_avg, g * g, rho)
    delta = np.sqrt(delta_avg + eps) / np.sqrt(square_avg + eps) * g
    _average(delta_avg, delta * delta, rho)
    p -= lr * delta


@rule
def lion(
    p: Array, g: Array, exp_avg: Array, *, lr: float, step: int, betas: tuple[float, float], weight_decay: float
) -> None:
    """Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2."""
    p *= 1 - lr * weight_decay
    p -= lr * np.sign(betas[0] * exp_avg + (1 - betas[0]) * g)
    _average(exp_avg, g, betas[1])


@rule
def lamb(
    p: Array, g: Array, exp_avg: Array, exp_avg_sq: Array, *, lr: float, step: int, betas: tuple[float, float],
    eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """You et al., "Large batch optimization for deep learning" (2020), algorithm 2, with phi(x) = x."""
    _average(exp_avg, g, betas[0])
    _average(exp_avg_sq, g * g, betas[1])
    scale = np.sqrt(exp_avg_sq / (1 - betas[1] ** step)) + eps
    update = exp_avg / (1 - betas[0] ** step) / scale + weight_decay * p
    p_norm, update_norm = (float(np.sqrt((x * x).sum())) for x in (p, update))
    trust = p_norm / update_norm if p_norm and update_norm else 1.0
    p -= lr * trust * update
