"""Recurrent networks over whole sequences: the parts that all share, and the plain one (Elman).

Sequences are `x[T,N,I]`. The product of all steps with `w_ih` is one GEMM; only the product with `w_hh` goes step by
step; the gradients of the weights are products over all steps, too. With `lengths`, steps past the end of a sequence
keep its state, so that in both directions the state at the last step taken is the final one. `reverse` takes the steps
from the last to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from dlcore.creation import constant
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.derive import define_derived
from dlcore.ops.elementwise import less
from dlcore.ops.matmul import linear_gradients, rows
from dlcore.ops.shape import where
from dlcore.ops.window import as_tensor
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

Step = Callable[..., tuple[Sequence[Any], Sequence[Any]]]


def steps(count: int, reverse: bool) -> list[int]:
    """Time indices in the order in which the steps are taken."""
    return list(range(count))[:: -1 if reverse else 1]


def projected(xp: Any, x: Any, w: Any, b: Any) -> Any:
    """`x[T,N,I]` times `w[G,I]`, plus `b[G]`, as `[T,N,G]`."""
    t, n, i = x.shape
    z = xp.reshape(xp.matmul(xp.reshape(x, (t * n, i)), xp.matrix_transpose(w)), (t, n, w.shape[0]))
    return z if b is None else z + b


def sigmoid(xp: Any, z: Any) -> Any:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + xp.exp(-z))


def parts(z: Any, count: int) -> list[Any]:
    """`z[N,count*H]` as `count` blocks `[N,H]`."""
    size = z.shape[1] // count
    return [z[:, k * size : (k + 1) * size] for k in range(count)]


def hold(xp: Any, lengths: Any, t: int, new: Any, old: Any) -> Any:
    """`new` where step t lies within the sequence, else `old`; `old` None stands for 0."""
    if lengths is None:
        return new
    return xp.where((lengths > t)[:, None], new, xp.zeros_like(new) if old is None else old)


def unroll(
    xp: Any, step: Step, states: Sequence[Any], lengths: Any, count: int, reverse: bool, into: Sequence[Any] = ()
) -> tuple[Sequence[Any], list[Any]]:
    """Take all steps: `new states, results = step(t, *states)`.

    into: for each state None or `[T,N,H]`, which is added to it before each step (gradients that flow into a step).
    Past the end of a sequence its states stay and its results are 0. Returns the last states and, stacked in order of
    time, the states and the results of every step.
    """
    found: dict[int, list[Any]] = {}
    for t in steps(count, reverse):
        states = [s if more is None else s + more[t, ...] for s, more in zip_longest(states, into)]
        new, results = step(t, *states)
        states = [hold(xp, lengths, t, n, s) for n, s in zip(new, states, strict=True)]
        found[t] = [*states, *(hold(xp, lengths, t, r, None) for r in results)]
    return states, [xp.stack(list(column)) for column in zip(*(found[t] for t in range(count)), strict=True)]


def before(states: Any, first: Any, reverse: bool) -> list[Any]:
    """The state that each step starts from, in order of time: that of the step before it, or `first`."""
    found = [states[t, ...] for t in range(states.shape[0])]
    return [*found[1:], first] if reverse else [first, *found[:-1]]


def initial_state(xp: Any, state: Any, x: Any, w_hh: Any) -> Any:
    """The given state, or zeros `[N,H]`."""
    return xp.zeros((x.shape[1], w_hh.shape[1]), dtype=x.dtype) if state is None else state


def taken(wanted: bool, *gradients: Any) -> list[Any]:
    """Gradients of the initial states if they are wanted, else without rows."""
    return [g if wanted else g[:0, ...] for g in gradients]


def recurrent_gradient(dz: Tensor, h: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """Gradient of `w_hh[G,H]` from those of its products `dz[T,N,G]` with the states before each step."""
    later, earlier = (dz[:-1], h[1:]) if reverse else (dz[1:], h[:-1])
    if h0 is None:
        return rows(later).mT @ rows(earlier)
    from_start = dz[-1 if reverse else 0].mT @ h0
    return from_start if dz.shape[0] == 1 else from_start + rows(later).mT @ rows(earlier)


def check(d: Dims, **_: Any) -> Mapping[str, Any]:
    """Refuse sequences without a step."""
    if d.T == 0:
        raise ShapeError("x has no time step; expected T of at least 1")
    return {}


def check_gradient(d: Dims, *, initial: bool, **_: Any) -> Mapping[str, Any]:
    """The rows of the initial states' gradients."""
    return {**check(d), "M": d.N if initial else 0}


def check_lengths(read: Callable[[Any], Any], x: Any, *others: Any, **_: Any) -> None:
    """Refuse lengths, the last operand, outside [0, T] for `x[T,N,I]`."""
    lengths = others[-1]
    host = np.asarray([] if lengths is None else read(lengths))
    if host.size and not 0 <= host.min() <= host.max() <= x.shape[0]:
        raise IndexRangeError(f"lengths must lie in [0, {x.shape[0]}]; got {host.tolist()}")


def on_device(lengths: Any, x: Any) -> Tensor | None:
    """`lengths` as a tensor on the device of `x`."""
    return None if lengths is None else as_tensor(lengths, as_tensor(x))


def masked(y: Tensor, lengths: Tensor | None) -> Tensor:
    """`y[T,N,H]` with zeros past the end of each sequence."""
    if lengths is None:
        return y
    times = constant(np.arange(y.shape[0])[:, None, None], device=y.device)
    out: Tensor = where(less(times, lengths.reshape(-1, 1)), y, 0.0)
    return out


def as_sequence(x: Any) -> Tensor:
    """`x[N,I]` of a cell as the one-step sequence `[1,N,I]`."""
    x = as_tensor(x)
    found: Tensor = x.reshape(1, *x.shape)
    return found


def small(shape: Shape) -> Arr:
    """A sample's operand in a range that does not saturate gates, where 16-bit gradients would have no digits left."""
    return Arr(shape, -0.5, 0.5)


def cases() -> Iterable[tuple[tuple[int, int, int, int], Any, dict[str, Any]]]:
    """Sizes (T, N, I, H), lengths and attributes: odd, size-1, zero-size, ragged, both directions."""
    return [
        ((3, 2, 4, 3), None, {}),
        ((3, 3, 2, 2), np.asarray([1, 3, 0]), {"reverse": True}),
        ((2, 2, 3, 3), np.asarray([2, 1]), {}),
        ((1, 1, 1, 1), None, {"reverse": True}),
        ((2, 0, 3, 2), None, {}),
    ]


_SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "tanh": lambda xp, h: 1 - h * h,
    "relu": lambda xp, h: xp.where(h > 0, xp.zeros_like(h) + 1, xp.zeros_like(h)),
}


def _rnn(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b: Any, lengths: Any, *, activation: str = "tanh",
    reverse: bool = False,
) -> Any:  # fmt: skip
    z, h0 = projected(xp, x, w_ih, b), initial_state(xp, h0, x, w_hh)

    def step(t: int, h: Any) -> Any:
        new = z[t, ...] + xp.matmul(h, xp.matrix_transpose(w_hh))
        return (xp.tanh(new) if activation == "tanh" else xp.where(new > 0, new, xp.zeros_like(new)),), ()

    return unroll(xp, step, [h0], lengths, x.shape[0], reverse)[1][0]


def _rnn_grad(
    xp: Any, dh: Any, w_hh: Any, h: Any, lengths: Any, *, activation: str = "tanh", reverse: bool = False,
    initial: bool = True,
) -> Any:  # fmt: skip
    def step(t: int, total: Any) -> Any:
        dz = total * _SLOPES[activation](xp, h[t, ...])
        return (xp.matmul(dz, w_hh),), (dz,)

    zeros = xp.zeros_like(h[0, ...])
    last, (_, dz) = unroll(xp, step, [zeros], lengths, h.shape[0], not reverse, into=[dh])
    return dz, *taken(initial, *last)


def _rnn_vjp(
    g_h: Tensor, x: Tensor, h0: Tensor | None, w_ih: Tensor, w_hh: Tensor, h: Tensor, lengths: Tensor | None,
    activation: str, reverse: bool, needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    dz, dh0 = _rnn_grad_op(g_h, w_hh, h, lengths, activation=activation, reverse=reverse, initial=needs[1])
    dx, dw_ih, db = linear_gradients(dz, x, w_ih, (needs[0], needs[2], needs[4]))
    return dx, dh0, dw_ih, recurrent_gradient(dz, h, h0, reverse) if needs[3] else None, db


def _known_activation(d: Dims, *, activation: str, **_: Any) -> Mapping[str, Any]:
    if activation not in _SLOPES:
        raise ArgumentError(f"activation must be one of {', '.join(_SLOPES)}; got {activation!r}")
    return check(d)


def _activations(k: int) -> str:
    return "relu" if k == 2 else "tanh"


def _samples() -> Iterable[Sample]:
    for k, ((t, n, i, h), lengths, attrs) in enumerate(cases()):
        x, h0, *weights = map(small, ((t, n, i), (n, h), (h, i), (h, h)))
        b = small((h,)) if k % 2 == 0 else None
        yield sample(x, h0 if k else None, *weights, b, lengths, **attrs, activation=_activations(k))


def _grad_samples() -> Iterable[Sample]:
    for k, ((t, n, _, h), lengths, attrs) in enumerate(cases()):
        operands = (t, n, h), small((h, h)), small((t, n, h)), lengths
        yield sample(*operands, **attrs, activation=_activations(k), initial=k != 2)


_rnn_op: Op = define(
    "rnn",
    "x[T,N,I]:float h0[N,H]:float? w_ih[H,I]:float w_hh[H,H]:float b[H]:float? lengths[N]:int? -> h[T,N,H]",
    _rnn,
    vjp=_rnn_vjp,
    infer=_known_activation,
    check=check_lengths,
    flops=lambda d: 2 * d.T * d.N * d.H * (d.I + d.H),
    samples=_samples,
    doc="States h_t = act(w_ih x_t + w_hh h_(t-1) + b) of a plain recurrent network. See `dl.rnn`.",
)

_rnn_grad_op: Op = define_derived(
    "rnn_grad",
    "dh[T,N,H]:float w_hh[H,H]:float h[T,N,H]:float lengths[N]:int? -> dz[T,N,H] dh0[M,H]",
    _rnn_grad,
    infer=check_gradient,
    flops=lambda d: 2 * d.T * d.N * d.H * d.H,
    samples=_grad_samples,
    doc="Gradients of rnn for the sums before the activation and, if `initial`, for h0 (M is N or 0).",
)


def rnn(
    x: Any, h0: Any, w_ih: Any, w_hh: Any, b: Any = None, lengths: Any = None, reverse: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Plain recurrent network h_t = act(w_ih x_t + w_hh h_(t-1) + b) over sequences; returns `(y[T,N,H], hT[N,H])`.

    x: `[T,N,I]`; h0: `[N,H]`, or None for zeros; w_ih: `[H,I]`; w_hh: `[H,H]`; b: `[H]`. activation: "tanh" or "relu".
    lengths: `[N]` ints in [0, T], the steps of each sequence: past them y is 0 and the state stays (None: T for all).
    reverse: from the last step to the first. Raises ShapeError, ArgumentError, IndexRangeError.

    >>> y, h = rnn(dl.ones((5, 2, 3)), dl.zeros((2, 4)), dl.ones((4, 3)), dl.ones((4, 4)))
    >>> y.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    lengths = on_device(lengths, x)
    h: Tensor = _rnn_op(x, h0, w_ih, w_hh, b, lengths, activation=activation, reverse=reverse)
    return masked(h, lengths), h[0 if reverse else -1]


def rnn_cell(x: Any, h: Any, w_ih: Any, w_hh: Any, b: Any = None, activation: str = "tanh") -> Tensor:
    """One step of `rnn`: the new state `[N,H]` for `x[N,I]` and `h[N,H]`."""
    return rnn(as_sequence(x), h, w_ih, w_hh, b, activation=activation)[1]
