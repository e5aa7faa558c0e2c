"""Learning-rate schedules: each is a formula from the step number and the group's initial rate to its rate."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlcore import recording
from dlcore.creation import tensor
from dlcore.errors import ArgumentError
from dlcore.optim.optimizer import Group, Optimizer
from dlcore.tensor import Tensor


class Schedule:
    """Base class: a subclass defines `rate(t, base)`, the rate at step `t` (from 0) of a group that began with `base`.

    Making one sets the rates for step 0; call `step()` once per step or epoch, after the optimizer's.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.t = 0
        for group in optimizer.groups:
            group.setdefault("initial_lr", group["lr"])
        self._set_rates()

    def rate(self, t: int, base: float) -> float:
        """Learning rate at step `t`."""
        raise NotImplementedError

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return self.optimizer.lr

    @recording.host
    def step(self, metric: float | None = None) -> None:
        """Go on to the next step. `metric` is for `ReduceLROnPlateau`."""
        self.t += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for group in self.optimizer.groups:
            group["lr"] = self.rate(self.t, group["initial_lr"])

    def state_dict(self) -> dict[str, Tensor]:
        """The step number, as a tensor that `dl.save` takes."""
        return {"t": tensor(self.t, device="numpy")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned (the rates themselves are in the optimizer's state)."""
        if state.keys() != self.state_dict().keys():
            raise ArgumentError(
                f"{type(self).__name__}: expected {', '.join(self.state_dict())}; got {', '.join(state) or 'nothing'}"
            )
        for name, value in state.items():
            setattr(self, name, type(getattr(self, name))(value))


class LambdaLR(Schedule):
    """base * factor(t) for any function.

    >>> LambdaLR(opt, lambda t: 0.95 ** t)
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self.factor = factor
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """base * factor(t)."""
        return base * self.factor(t)


class StepLR(Schedule):
    """Multiply by `gamma` every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        _positive(step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """base * gamma^(t // step_size)."""
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """Multiply by `gamma` at each milestone."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """base * gamma^(milestones passed)."""
        return base * self.gamma ** bisect.bisect_right(self.milestones, t)


class ExponentialLR(Schedule):
    """Multiply by `gamma` every step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """base * gamma^t."""
        return base * self.gamma**t


def _cosine(start: float, end: float, done: float) -> float:
    """From start (done = 0) to end (done = 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


class CosineAnnealingLR(Schedule):
    """Half a cosine from the initial rate to `eta_min` in `T_max` steps, and back.

    Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        _positive(T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The cosine at t / T_max."""
        return _cosine(base, self.eta_min, t / self.T_max)


class CosineAnnealingWarmRestarts(Schedule):
    """Cosine cycles of `T_0`, `T_0 * T_mult`, `T_0 * T_mult^2`, ... steps, each from the initial rate (SGDR)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        _positive(T_0=T_0, T_mult=T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The cosine at the position in the current cycle."""
        length = self.T_0
        while t >= length and self.T_mult > 1:
            t, length = t - length, length * self.T_mult
        return _cosine(base, self.eta_min, t % length / length)


class LinearWarmup(Schedule):
    """From `start_factor` times the initial rate to the initial rate in `steps` steps, then constant."""

    def __init__(self, optimizer: Optimizer, steps: int, start_factor: float = 0.1) -> None:
        _positive(steps=steps)
        self.steps, self.start_factor = steps, start_factor
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """base * (start_factor + (1 - start_factor) * min(t / steps, 1))."""
        return base * (self.start_factor + (1 - self.start_factor) * min(t / self.steps, 1.0))


class WarmupCosine(Schedule):
    """Linear warm-up over `warmup` steps (the first takes base / warmup), then half a cosine to `min_lr` at `total`."""

    def __init__(self, optimizer: Optimizer, warmup: int, total: int, min_lr: float = 0.0) -> None:
        if not 0 <= warmup < total:
            raise ArgumentError(f"WarmupCosine: expected 0 <= warmup < total; got {warmup} and {total}")
        self.warmup, self.total, self.min_lr = warmup, total, min_lr
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The ramp, then the cosine; `min_lr` from `total` on."""
        if t < self.warmup:
            return base * (t + 1) / self.warmup
        return _cosine(base, self.min_lr, min((t - self.warmup) / (self.total - self.warmup), 1.0))


class OneCycleLR(Schedule):
    """Up to `max_lr` in the first `pct_start` of `total_steps`, down to `max_lr / div_factor / final_div_factor`.

    anneal: "cos" or "linear". With `cycle_momentum`, momentum (or the first beta) goes from `max_momentum` down to
    `base_momentum` and back. Smith & Topin, "Super-convergence" (2018).
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float, total_steps: int, pct_start: float = 0.3, anneal: str = "cos",
        div_factor: float = 25.0, final_div_factor: float = 1e4, cycle_momentum: bool = True,
        base_momentum: float = 0.85, max_momentum: float = 0.95,
    ) -> None:  # fmt: skip
        _positive(total_steps=total_steps)
        if anneal not in ("cos", "linear"):
            raise ArgumentError(f"OneCycleLR: anneal must be 'cos' or 'linear'; got {anneal!r}")
        self.total_steps, self.anneal = total_steps, anneal
        self.peak = pct_start * total_steps - 1
        self.rates = max_lr / div_factor, max_lr, max_lr / div_factor / final_div_factor
        self.momenta = (max_momentum, base_momentum, max_momentum) if cycle_momentum else None
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The rate; the initial rate of the group plays no part."""
        return self._between(t, *self.rates)

    def _between(self, t: int, first: float, middle: float, last: float) -> float:
        if t >= self.total_steps:
            raise ArgumentError(f"OneCycleLR: step {t} of a schedule of {self.total_steps} steps")
        start, end, done = (first, middle, t / self.peak) if t <= self.peak else (
            middle, last, (t - self.peak) / (self.total_steps - 1 - self.peak)
        )  # fmt: skip
        return _cosine(start, end, done) if self.anneal == "cos" else start + (end - start) * done

    def _set_rates(self) -> None:
        super()._set_rates()
        if self.momenta:
            for group in self.optimizer.groups:
                _set_momentum(group, self._between(self.t, *self.momenta))


def _set_momentum(group: Group, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif "momentum" in group:
        group["momentum"] = value


class SequentialLR(Schedule):
    """One schedule after another: the next begins, at its own step 0, at each milestone.

    >>> SequentialLR(opt, [LinearWarmup(opt, 5), ExponentialLR(opt, 0.9)], milestones=[5])
    """

    def __init__(self, optimizer: Optimizer, schedules: Sequence[Schedule], milestones: Sequence[int]) -> None:
        if len(schedules) != len(milestones) + 1 or list(milestones) != sorted(milestones):
            raise ArgumentError("SequentialLR: expected one rising milestone between every two schedules")
        self.schedules, self.milestones = list(schedules), list(milestones)
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The current schedule's rate at its own step number."""
        i = bisect.bisect_right(self.milestones, t)
        return self.schedules[i].rate(t - (self.milestones[i - 1] if i else 0), base)


class ChainedLR(Schedule):
    """All schedules at once: each takes the rate of the one before as its initial rate."""

    def __init__(self, optimizer: Optimizer, schedules: Sequence[Schedule]) -> None:
        self.schedules = list(schedules)
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """The last schedule's rate."""
        for schedule in self.schedules:
            base = schedule.rate(t, base)
        return base


class ReduceLROnPlateau(Schedule):
    """Multiply by `factor` when `step(metric)` saw no improvement more than `patience` times in a row.

    mode: "min" or "max". An improvement exceeds the best so far by `threshold`, relative to it ("rel") or absolute
    ("abs"). cooldown: steps after a reduction in which nothing is counted. min_lr: never below.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0, min_lr: float = 0.0,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or not 0 < factor < 1:
            raise ArgumentError(
                "ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel' or 'abs', 0 < factor < 1"
            )
        self.sign = 1.0 if mode == "min" else -1.0
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr
        self.threshold, self.relative = threshold, threshold_mode == "rel"
        self.best, self.bad, self.cooling = self.sign * math.inf, 0, 0
        super().__init__(optimizer)

    def _set_rates(self) -> None:
        """The rates change in `step` only."""

    @recording.host
    def step(self, metric: float | None = None) -> None:
        """Take the latest value of the metric. Raises ArgumentError without one."""
        if metric is None:
            raise ArgumentError("ReduceLROnPlateau: step(metric) needs the metric's value")
        self.t += 1
        better = self._is_better(float(metric))
        self.best = float(metric) if better else self.best
        self.bad = 0 if better or self.cooling else self.bad + 1
        self.cooling = max(self.cooling - 1, 0)
        if self.bad > self.patience:
            self.bad, self.cooling = 0, self.cooldown
            for group in self.optimizer.groups:
                group["lr"] = max(group["lr"] * self.factor, self.min_lr)

    def _is_better(self, metric: float) -> bool:
        if math.isinf(self.best):
            return not math.isnan(metric)
        margin = self.threshold * (abs(self.best) if self.relative else 1.0)
        return self.sign * metric < self.sign * self.best - margin

    def state_dict(self) -> dict[str, Tensor]:
        """Step number, best metric and counters."""
        state = {name: tensor(getattr(self, name), device="numpy") for name in ("bad", "cooling")}
        return super().state_dict() | state | {"best": tensor(self.best, "float64", "numpy")}


def _positive(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{name} must be an int >= 1; got {value!r}")
