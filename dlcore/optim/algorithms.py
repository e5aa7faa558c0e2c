"""The first-order optimizers. Settings, defaults and results are those of PyTorch where it has the algorithm."""

from __future__ import annotations

from typing import Any

from dlcore.errors import ArgumentError
from dlcore.optim.optimizer import Group, Optimizer, Params, Slot


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (`nesterov` for Nesterov's) and L2 weight decay.

    >>> opt = SGD(model.parameters(), lr=0.1, momentum=0.9)
    """

    kernel = "sgd"

    def __init__(
        self, params: Params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("SGD: nesterov needs momentum > 0 and dampening 0")
        settings = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov
        }  # fmt: skip
        super().__init__(params, settings, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """A velocity where there is momentum."""
        return ("momentum_buffer",) if group["momentum"] else ()


class Adam(Optimizer):
    """Adam, with L2 weight decay; `amsgrad` keeps the largest second moment.

    >>> opt = Adam(model.parameters(), lr=1e-3)
    """

    kernel = "adam"

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, amsgrad: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, settings, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """First and second moment."""
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")


class AdamW(Adam):
    """Adam with decoupled weight decay.

    >>> opt = AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    """

    kernel = "adamw"

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


class Adamax(Optimizer):
    """Adam with the infinity norm in place of the second moment."""

    kernel = "adamax"

    def __init__(
        self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """First moment and decayed maximum."""
        return ("exp_avg", "exp_inf")


class NAdam(Optimizer):
    """Adam with Nesterov momentum."""

    kernel = "nadam"

    def __init__(
        self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, momentum_decay: float = 4e-3, **options: Any,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "momentum_decay": momentum_decay}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """First and second moment."""
        return ("exp_avg", "exp_avg_sq")

    def new_state(self, slot: Slot, group: Group) -> None:
        """The moments, and the product of all momentum factors so far (0-d, from 1)."""
        super().new_state(slot, group)
        slot.state["mu_product"] = slot.param._backend.full((), 1, slot.values.dtype)


class RMSprop(Optimizer):
    """Gradient over its running root mean square; `centered` subtracts the running mean."""

    kernel = "rmsprop"

    def __init__(
        self, params: Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0, centered: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "momentum": momentum, "centered": centered}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Running mean square, and what the options need."""
        extra = {"grad_avg": group["centered"], "momentum_buffer": group["momentum"]}
        return ("square_avg", *(name for name, used in extra.items() if used))


class Adagrad(Optimizer):
    """Gradient over the root of the sum of its squares."""

    kernel = "adagrad"

    def __init__(
        self, params: Params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, **options: Any,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, {**settings, "initial_accumulator_value": initial_accumulator_value}, **options)

    def new_state(self, slot: Slot, group: Group) -> None:
        """The sum of squares, from the initial value."""
        values, start = slot.values, group["initial_accumulator_value"]
        slot.state["square_sum"] = slot.param._backend.full(values.shape, start, values.dtype)


class Adadelta(Optimizer):
    """Step size from the ratio of running mean squares of updates and gradients."""

    kernel = "adadelta"

    def __init__(
        self, params: Params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Running mean squares of gradients and of updates."""
        return ("square_avg", "delta_avg")


class Lion(Optimizer):
    """Sign of an interpolated momentum, with decoupled weight decay; takes a 3-10 times smaller rate than AdamW."""

    kernel = "lion"

    def __init__(
        self, params: Params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The momentum."""
        return ("exp_avg",)


class LAMB(Optimizer):
    """Adam whose step of each parameter tensor is scaled to the tensor's norm; for large batches."""

    kernel = "lamb"

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 0.0, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, **options)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """First and second moment."""
        return ("exp_avg", "exp_avg_sq")
