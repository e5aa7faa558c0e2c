"""L-BFGS: a quasi-Newton method for small problems with a deterministic loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dlcore.autograd import grad_mode
from dlcore.creation import tensor
from dlcore.errors import ArgumentError
from dlcore.optim.optimizer import Closure, Optimizer, Params
from dlcore.tensor import Tensor

Array = Any
CURVATURE = 1e-10  # smallest s.y of a pair that enters the history
SUFFICIENT_DECREASE, SLOPE_DECREASE = 1e-4, 0.9  # c1 and c2 of the Wolfe conditions
MAX_SEARCH = 25  # evaluations of one line search


class Point(NamedTuple):
    """A point on the search line: step length, loss, slope along the line, gradient."""

    t: float
    loss: float
    slope: float
    grad: Array


class LBFGS(Optimizer):
    """Limited-memory BFGS; `step(closure)` makes up to `max_iter` iterations and returns the first loss.

    closure: zeroes the gradients, computes the loss, calls `backward`, returns the loss.
    line_search: "strong_wolfe", or None for steps of length `lr`. max_eval: None for 1.25 * max_iter evaluations.
    Nocedal & Wright, "Numerical optimization" (2006), algorithms 7.4, 7.5, 3.5 and 3.6.

    >>> opt = LBFGS(model.parameters(), line_search="strong_wolfe")
    >>> loss = opt.step(closure)
    """

    def __init__(
        self, params: Params, lr: float = 1.0, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search: str | None = "strong_wolfe", **options: Any,
    ) -> None:  # fmt: skip
        if line_search not in (None, "strong_wolfe"):
            raise ArgumentError(f"LBFGS: line_search must be None or 'strong_wolfe'; got {line_search!r}")
        settings = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_eval or max_iter * 5 // 4, "history_size": history_size,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
        }  # fmt: skip
        super().__init__(params, settings, **options)
        if len(self.groups) != 1:
            raise ArgumentError("LBFGS: takes one group of parameters")
        self.line_search = line_search
        self._steps: list[Array] = []
        self._changes: list[Array] = []
        self._last: tuple[Array, Array] | None = None  # gradient and step of the latest iteration

    def step(self, closure: Closure | None = None) -> Tensor | None:
        """Iterate from the present parameters. Raises ArgumentError without a closure."""
        if closure is None:
            raise ArgumentError("LBFGS: step(closure) needs a function that computes the loss and calls backward()")
        with grad_mode(True):
            first = closure()
        if self._may_step():
            self._iterate(closure, float(first.item()), self._flat_grad())
        return first

    def _iterate(self, closure: Closure, loss: float, grad: Array) -> None:
        group, evaluations = self.groups[0], 1
        for i in range(group["max_iter"]):
            if abs(grad).max() <= group["tolerance_grad"] or evaluations >= group["max_eval"]:
                return
            t = group["lr"] if self._last else min(1.0, 1.0 / float(abs(grad).sum())) * group["lr"]
            direction = self._direction(grad)
            slope = float(grad @ direction)
            if slope > -group["tolerance_change"]:
                return
            start, line = Point(0.0, loss, slope, grad), _Line(self, closure, direction)
            if self.line_search:
                found = strong_wolfe(line, start, t)
                line.move(found.t)
            elif i + 1 < group["max_iter"]:
                found = line(t)
            else:
                line.move(t)
                found = start._replace(t=t)
            evaluations += line.evaluations
            self._last = (grad, found.t * direction)
            small = abs(found.t * direction).max() <= group["tolerance_change"]
            if small or abs(found.loss - loss) < group["tolerance_change"]:
                return
            loss, grad = found.loss, found.grad

    def _direction(self, grad: Array) -> Array:
        """Minus the inverse Hessian estimate times the gradient: the two-loop recursion."""
        if self._last:
            self._remember(self._last[1], grad - self._last[0])
        q, alphas = -grad, []
        for s, y in zip(reversed(self._steps), reversed(self._changes), strict=True):
            alphas.append(s @ q / (y @ s))
            q = q - alphas[-1] * y
        if self._steps:
            s, y = self._steps[-1], self._changes[-1]
            q = q * (y @ s / (y @ y))
        for s, y, alpha in zip(self._steps, self._changes, reversed(alphas), strict=True):
            q = q + s * (alpha - y @ q / (y @ s))
        return q

    def _remember(self, s: Array, y: Array) -> None:
        if y @ s > CURVATURE:
            size = int(self.groups[0]["history_size"])
            self._steps = [*self._steps, s][-size:]
            self._changes = [*self._changes, y][-size:]

    def _flat_grad(self) -> Array:
        grads = [p.grad._array if p.grad is not None else p._backend.full(p.shape, 0, p.dtype) for p in self.params()]
        return np.concatenate([g.reshape(-1) for g in grads])

    def flat(self) -> Array:
        """All parameters as one vector (a copy)."""
        return np.concatenate([p._array.reshape(-1) for p in self.params()])

    def write(self, flat: Array) -> None:
        """Set all parameters from one vector."""
        begin = 0
        for p in self.params():
            p.assign(flat[begin : begin + p.size].reshape(p.shape))
            begin += p.size

    def state_dict(self) -> dict[str, Tensor]:
        """Settings, history and the latest iteration, as tensors."""
        state = super().state_dict()
        if self._last:
            state |= {"last.grad": tensor(self._last[0]), "last.step": tensor(self._last[1])}
        if self._steps:
            state |= {
                "history.steps": tensor(np.stack(self._steps)),
                "history.changes": tensor(np.stack(self._changes)),
            }
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned. Raises ArgumentError, and changes nothing, when it does not fit."""
        own = {k: np.array(x) for k, x in state.items() if k.startswith(("last.", "history."))}
        size = sum(p.size for p in self.params())
        if any(x.shape[-1] != size for x in own.values()):
            raise ArgumentError(f"LBFGS: the state is not that of {size} parameters; nothing was loaded")
        super().load_state_dict({k: x for k, x in state.items() if k not in own})
        self._last = (own["last.grad"], own["last.step"]) if "last.grad" in own else None
        self._steps = list(own.get("history.steps", ()))
        self._changes = list(own.get("history.changes", ()))


class _Line:
    """The loss along a direction from the present parameters."""

    def __init__(self, optimizer: LBFGS, closure: Closure, direction: Array) -> None:
        self.optimizer, self.closure, self.direction = optimizer, closure, direction
        self.start = optimizer.flat()
        self.evaluations = 0

    def move(self, t: float) -> None:
        self.optimizer.write(self.start + t * self.direction)

    def __call__(self, t: float) -> Point:
        self.move(t)
        self.evaluations += 1
        with grad_mode(True):
            loss = float(self.closure().item())
        grad = self.optimizer._flat_grad()
        return Point(t, loss, float(grad @ self.direction), grad)


def strong_wolfe(line: Callable[[float], Point], start: Point, t: float) -> Point:
    """A point that meets the strong Wolfe conditions (algorithm 3.5), or the best found in MAX_SEARCH evaluations."""
    before = start
    for i in range(MAX_SEARCH):
        point = line(t)
        if _too_high(point, start) or (i and point.loss >= before.loss):
            return _zoom(line, start, before, point, MAX_SEARCH - i)
        if abs(point.slope) <= -SLOPE_DECREASE * start.slope:
            return point
        if point.slope >= 0:
            return _zoom(line, start, point, before, MAX_SEARCH - i)
        t = min(max(_cubic_minimum(before, point), t + 0.01 * (t - before.t)), 10 * t)
        before = point
    return before


def _zoom(line: Callable[[float], Point], start: Point, low: Point, high: Point, count: int) -> Point:
    """Algorithm 3.6: shrink the bracket; `low` is the best point that decreases enough."""
    for _ in range(count):
        left, right = sorted((low.t, high.t))
        margin = 0.1 * (right - left)
        point = line(min(max(_cubic_minimum(low, high), left + margin), right - margin))
        if _too_high(point, start) or point.loss >= low.loss:
            high = point
            continue
        if abs(point.slope) <= -SLOPE_DECREASE * start.slope:
            return point
        if point.slope * (high.t - low.t) >= 0:
            high = low
        low = point
    return low


def _too_high(point: Point, start: Point) -> bool:
    return not point.loss <= start.loss + SUFFICIENT_DECREASE * point.t * start.slope


def _cubic_minimum(a: Point, b: Point) -> float:
    """Minimiser of the cubic through two points with their slopes (equation 3.59); the middle where there is none."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (a.t + b.t) / 2
    d2 = math.copysign(math.sqrt(square), b.t - a.t)
    divisor = b.slope - a.slope + 2 * d2
    best = b.t - (b.t - a.t) * (b.slope + d2 - d1) / divisor if divisor else math.nan
    return best if math.isfinite(best) else (a.t + b.t) / 2
