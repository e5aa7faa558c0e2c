"""Long short-term memory (Hochreiter and Schmidhuber, 1997) over whole sequences.

With the gates i, f, g, o in this order along the first axis of the weights::

    i, f, o = sigmoid(z),  g = tanh(z)   where z = w_ih x_t + w_hh h_(t-1) + b
    c_t = f c_(t-1) + i g
    h_t = o tanh(c_t)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dlcore.op import Op, Sample, define, sample
from dlcore.ops import rnn
from dlcore.ops.derive import define_derived
from dlcore.ops.matmul import linear_gradients
from dlcore.tensor import Tensor


def _lstm(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b: Any, lengths: Any, *, reverse: bool = False
) -> Any:
    z, h0, c0 = rnn.projected(xp, x, w_ih, b), *(rnn.initial_state(xp, s, x, w_hh) for s in (h0, c0))

    def step(t: int, h: Any, c: Any) -> Any:
        i, f, g, o = rnn.parts(z[t, ...] + xp.matmul(h, xp.matrix_transpose(w_hh)), 4)
        i, f, g, o = rnn.sigmoid(xp, i), rnn.sigmoid(xp, f), xp.tanh(g), rnn.sigmoid(xp, o)
        c = f * c + i * g
        return (o * xp.tanh(c), c), (xp.concat([i, f, g, o], axis=1),)

    return tuple(rnn.unroll(xp, step, [h0, c0], lengths, x.shape[0], reverse)[1])


def _lstm_grad(
    xp: Any, dh: Any, dc: Any, dgates: Any, c0: Any, w_hh: Any, c: Any, gates: Any, lengths: Any, *,
    reverse: bool = False, initial: bool = True,
) -> Any:  # fmt: skip
    zeros = xp.zeros_like(c[0, ...])
    earlier = rnn.before(c, zeros if c0 is None else c0, reverse)

    def step(t: int, total_h: Any, total_c: Any) -> Any:
        more = None if dgates is None else dgates[t, ...]
        dz, new_c = _step_grad(xp, total_h, total_c, more, gates[t, ...], earlier[t], c[t, ...])
        return (xp.matmul(dz, w_hh), new_c), (dz,)

    last, (_, _, dz) = rnn.unroll(xp, step, [zeros, zeros], lengths, c.shape[0], not reverse, into=[dh, dc])
    return dz, *rnn.taken(initial, *last)


def _lstm_vjp(
    g_h: Tensor, x: Tensor, h0: Tensor | None, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor, h: Tensor, c: Tensor,
    gates: Tensor, lengths: Tensor | None, reverse: bool, needs: Sequence[bool], g_c: Tensor | None = None,
    g_gates: Tensor | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    operands = (g_h, g_c, g_gates, c0, w_hh, c, gates, lengths)
    dz, dh0, dc0 = _lstm_grad_op(*operands, reverse=reverse, initial=needs[1] or needs[2])
    dx, dw_ih, db = linear_gradients(dz, x, w_ih, (needs[0], needs[3], needs[5]))
    return dx, dh0, dc0, dw_ih, rnn.recurrent_gradient(dz, h, h0, reverse) if needs[4] else None, db


def _step_grad(xp: Any, dh: Any, dc: Any, dgates: Any, gates: Any, before: Any, after: Any) -> tuple[Any, Any]:
    """Gradients of one step for z and for the earlier c, from those of h_t, c_t and the gates."""
    i, f, g, o = rnn.parts(gates, 4)
    tanh_c = xp.tanh(after)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    into = [dc * g, dc * before, dc * i, dh * tanh_c]
    if dgates is not None:
        into = [a + b for a, b in zip(into, rnn.parts(dgates, 4), strict=True)]
    slopes = i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o)
    return xp.concat([a * s for a, s in zip(into, slopes, strict=True)], axis=1), dc * f


def _samples() -> Iterable[Sample]:
    for k, ((t, n, i, h), lengths, attrs) in enumerate(rnn.cases()):
        x, h0, c0, *weights = map(rnn.small, ((t, n, i), (n, h), (n, h), (4 * h, i), (4 * h, h)))
        b = rnn.small((4 * h,)) if k % 2 == 0 else None
        yield sample(x, h0 if k else None, c0 if k != 1 else None, *weights, b, lengths, **attrs)


def _grad_samples() -> Iterable[Sample]:
    for k, ((t, n, _, h), lengths, attrs) in enumerate(rnn.cases()):
        more = ((t, n, h), (t, n, 4 * h)) if k < 2 else (None, None)
        c0, *operands = map(rnn.small, ((n, h), (4 * h, h), (t, n, h), (t, n, 4 * h)))
        yield sample((t, n, h), *more, c0 if k else None, *operands, lengths, **attrs, initial=k != 2)


_lstm_op: Op = define(
    "lstm",
    "x[T,N,I]:float h0[N,H]:float? c0[N,H]:float? w_ih[4*H,I]:float w_hh[4*H,H]:float b[4*H]:float? lengths[N]:int? "
    "-> h[T,N,H] c[T,N,H] gates[T,N,4*H]",
    _lstm,
    vjp=_lstm_vjp,
    infer=rnn.check,
    check=rnn.check_lengths,
    flops=lambda d: 8 * d.T * d.N * d.H * (d.I + d.H),
    samples=_samples,
    doc="States h and c of every step of an LSTM and its gates (0 past the end of a sequence). See `dl.lstm`.",
)

_lstm_grad_op: Op = define_derived(
    "lstm_grad",
    "dh[T,N,H]:float dc[T,N,H]:float? dgates[T,N,4*H]:float? c0[N,H]:float? w_hh[4*H,H]:float c[T,N,H]:float "
    "gates[T,N,4*H]:float lengths[N]:int? -> dz[T,N,4*H] dh0[M,H] dc0[M,H]",
    _lstm_grad,
    infer=rnn.check_gradient,
    flops=lambda d: 8 * d.T * d.N * d.H * d.H,
    samples=_grad_samples,
    doc="Gradients of lstm for the sums before the gates and, if `initial`, for h0 and c0 (M is N or 0). dgates flows "
    "in second gradients only.",
)


def lstm(
    x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b: Any = None, lengths: Any = None, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """LSTM over sequences; returns `(y[T,N,H], hT[N,H], cT[N,H])`, the states h of all steps and the final h and c.

    x: `[T,N,I]`; h0, c0: `[N,H]`, or None for zeros; w_ih: `[4*H,I]`; w_hh: `[4*H,H]`; b: `[4*H]`, gates in the
    order i, f, g, o.
    lengths: `[N]` ints in [0, T], the steps of each sequence: past them y is 0 and the state stays (None: T for
    all).
    reverse: from the last step to the first. Raises ShapeError, IndexRangeError.

    >>> y, h, c = lstm(dl.ones((5, 2, 3)), *[dl.zeros((2, 4))] * 2, dl.ones((16, 3)), dl.ones((16, 4)))
    >>> y.shape, c.shape
    ((5, 2, 4), (2, 4))
    """
    lengths = rnn.on_device(lengths, x)
    h, c, _ = _lstm_op(x, h0, c0, w_ih, w_hh, b, lengths, reverse=reverse)
    last = 0 if reverse else -1
    return rnn.masked(h, lengths), h[last], c[last]


def lstm_cell(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b: Any = None) -> tuple[Tensor, Tensor]:
    """One step of `lstm`: the new states `(h[N,H], c[N,H])` for `x[N,I]`, `h[N,H]`, `c[N,H]`."""
    return lstm(rnn.as_sequence(x), h, c, w_ih, w_hh, b)[1:]
