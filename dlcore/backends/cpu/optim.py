"""Update rules of the common optimizers on `_C`: one call for all parameters (see `dlcore.optim.kernels`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C
from dlcore.dispatch import implement

Array = np.ndarray[Any, Any]
Arrays = list[Array]
States = dict[str, Arrays]


def _dense(grads: Arrays) -> Arrays:
    return [_C.contiguous(g) for g in grads]


@implement("optim.sgd", "cpu")
def sgd(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float, **_: Any,
) -> None:  # fmt: skip
    """Stochastic gradient descent with momentum."""
    gain = 1.0 if step == 1 else 1 - dampening
    buffers = states.get("momentum_buffer")
    _C.sgd(
        params, _dense(grads), buffers, lr=lr, weight_decay=weight_decay, momentum=momentum, gain=gain,
        nesterov=nesterov,
    )  # fmt: skip


@implement("optim.adam", "cpu")
def adam(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: tuple[float, float], eps: float,
    weight_decay: float, shrink: float = 1.0, **_: Any,
) -> None:  # fmt: skip
    """Adam; `shrink` multiplies the parameters first."""
    _C.adam(
        params, _dense(grads), states["exp_avg"], states["exp_avg_sq"], states.get("max_exp_avg_sq"), shrink=shrink,
        weight_decay=weight_decay, beta1=betas[0], beta2=betas[1], root=(1 - betas[1] ** step) ** 0.5, eps=eps,
        rate=lr / (1 - betas[0] ** step),
    )  # fmt: skip


@implement("optim.adamw", "cpu")
def adamw(params: Arrays, grads: Arrays, states: States, *, lr: float, weight_decay: float, **settings: Any) -> None:
    """Adam with decoupled weight decay."""
    adam(params, grads, states, lr=lr, weight_decay=0.0, shrink=1 - lr * weight_decay, **settings)
