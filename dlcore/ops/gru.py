"""Gated recurrent units (Cho et al., 2014) over whole sequences, in the variant of cuDNN and PyTorch.

The reset gate acts after the product with the state. With the gates r, z, n in this order along the first axis of the
weights::

    r, z = sigmoid(w_ih x_t + b_ih + w_hh h_(t-1) + b_hh)
    n    = tanh(w_ih x_t + b_ih + r m)   where m = w_hh h_(t-1) + b_hh
    h_t  = (1 - z) n + z h_(t-1)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dlcore.op import Op, Sample, define, sample
from dlcore.ops import rnn
from dlcore.ops.derive import define_derived
from dlcore.ops.matmul import linear_gradients, rows
from dlcore.ops.reduce import sum
from dlcore.tensor import Tensor


def _gru(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, lengths: Any, *, reverse: bool = False
) -> Any:
    inputs, h0 = rnn.projected(xp, x, w_ih, b_ih), rnn.initial_state(xp, h0, x, w_hh)

    def step(t: int, h: Any) -> Any:
        states = xp.matmul(h, xp.matrix_transpose(w_hh))
        states = states if b_hh is None else states + b_hh
        (r, z, n), (hr, hz, m) = rnn.parts(inputs[t, ...], 3), rnn.parts(states, 3)
        r, z = rnn.sigmoid(xp, r + hr), rnn.sigmoid(xp, z + hz)
        n = xp.tanh(n + r * m)
        return ((1 - z) * n + z * h,), (xp.concat([r, z, n, m], axis=1),)

    return tuple(rnn.unroll(xp, step, [h0], lengths, x.shape[0], reverse)[1])


def _gru_grad(
    xp: Any, dh: Any, dgates: Any, h0: Any, w_hh: Any, h: Any, gates: Any, lengths: Any, *, reverse: bool = False,
    initial: bool = True,
) -> Any:  # fmt: skip
    zeros = xp.zeros_like(h[0, ...])
    previous = rnn.before(h, zeros if h0 is None else h0, reverse)

    def step(t: int, total: Any) -> Any:
        more = None if dgates is None else dgates[t, ...]
        inputs, states, kept = _step_grad(xp, total, more, gates[t, ...], previous[t])
        return (kept + xp.matmul(states, w_hh),), (inputs, states)

    last, (_, inputs, states) = rnn.unroll(xp, step, [zeros], lengths, h.shape[0], not reverse, into=[dh])
    return inputs, states, *rnn.taken(initial, *last)


def _gru_vjp(
    g_h: Tensor, x: Tensor, h0: Tensor | None, w_ih: Tensor, w_hh: Tensor, h: Tensor, gates: Tensor,
    lengths: Tensor | None, reverse: bool, needs: Sequence[bool], g_gates: Tensor | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    operands = (g_h, g_gates, h0, w_hh, h, gates, lengths)
    inputs, states, dh0 = _gru_grad_op(*operands, reverse=reverse, initial=needs[1])
    dx, dw_ih, db_ih = linear_gradients(inputs, x, w_ih, (needs[0], needs[2], needs[4]))
    dw_hh = rnn.recurrent_gradient(states, h, h0, reverse) if needs[3] else None
    return dx, dh0, dw_ih, dw_hh, db_ih, sum(rows(states), axis=0) if needs[5] else None


def _step_grad(xp: Any, dh: Any, dgates: Any, gates: Any, before: Any) -> tuple[Any, Any, Any]:
    """Gradients of one step for the products with w_ih and with w_hh, and the part that z lets through to h_(t-1)."""
    r, z, n, m = rnn.parts(gates, 4)
    er, ez, en, em = (0, 0, 0, 0) if dgates is None else rnn.parts(dgates, 4)
    dn = (dh * (1 - z) + en) * (1 - n * n)
    dr = (dn * m + er) * r * (1 - r)
    dz = (dh * (before - n) + ez) * z * (1 - z)
    return xp.concat([dr, dz, dn], axis=1), xp.concat([dr, dz, dn * r + em], axis=1), dh * z


def _samples() -> Iterable[Sample]:
    for k, ((t, n, i, h), lengths, attrs) in enumerate(rnn.cases()):
        biases = ((3 * h,), (3 * h,) if k < 2 else None) if k % 2 == 0 else (None, None)
        x, h0, *weights = map(rnn.small, ((t, n, i), (n, h), (3 * h, i), (3 * h, h)))
        yield sample(x, h0 if k else None, *weights, *biases, lengths, **attrs)


def _grad_samples() -> Iterable[Sample]:
    for k, ((t, n, _, h), lengths, attrs) in enumerate(rnn.cases()):
        h0, *operands = map(rnn.small, ((n, h), (3 * h, h), (t, n, h), (t, n, 4 * h)))
        more = (t, n, 4 * h) if k < 2 else None
        yield sample((t, n, h), more, h0 if k else None, *operands, lengths, **attrs, initial=k != 2)


_gru_op: Op = define(
    "gru",
    "x[T,N,I]:float h0[N,H]:float? w_ih[3*H,I]:float w_hh[3*H,H]:float b_ih[3*H]:float? b_hh[3*H]:float? "
    "lengths[N]:int? -> h[T,N,H] gates[T,N,4*H]",
    _gru,
    vjp=_gru_vjp,
    infer=rnn.check,
    check=rnn.check_lengths,
    flops=lambda d: 6 * d.T * d.N * d.H * (d.I + d.H),
    samples=_samples,
    doc="States of every step of a GRU, and r, z, n, m of each (0 past the end of a sequence). See `dl.gru`.",
)

_gru_grad_op: Op = define_derived(
    "gru_grad",
    "dh[T,N,H]:float dgates[T,N,4*H]:float? h0[N,H]:float? w_hh[3*H,H]:float h[T,N,H]:float gates[T,N,4*H]:float "
    "lengths[N]:int? -> dinputs[T,N,3*H] dstates[T,N,3*H] dh0[M,H]",
    _gru_grad,
    infer=rnn.check_gradient,
    flops=lambda d: 6 * d.T * d.N * d.H * d.H,
    samples=_grad_samples,
    doc="Gradients of gru for the products with w_ih and w_hh and, if `initial`, for h0 (M is N or 0). dgates flows in "
    "second gradients only.",
)


def gru(
    x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, lengths: Any = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """GRU over sequences; returns `(y[T,N,H], hT[N,H])`, the states of all steps and the final one.

    x: `[T,N,I]`; h0: `[N,H]`, or None for zeros; w_ih: `[3*H,I]`; w_hh: `[3*H,H]`; b_ih, b_hh: `[3*H]`, gates in
    the order r, z, n.
    lengths: `[N]` ints in [0, T], the steps of each sequence: past them y is 0 and the state stays (None: T for
    all).
    reverse: from the last step to the first. Raises ShapeError, IndexRangeError.

    >>> y, h = gru(dl.ones((5, 2, 3)), dl.zeros((2, 4)), dl.ones((12, 3)), dl.ones((12, 4)))
    >>> y.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    lengths = rnn.on_device(lengths, x)
    h, _ = _gru_op(x, h0, w_ih, w_hh, b_ih, b_hh, lengths, reverse=reverse)
    return rnn.masked(h, lengths), h[0 if reverse else -1]


def gru_cell(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """One step of `gru`: the new state `[N,H]` for `x[N,I]` and `h[N,H]`."""
    return gru(rnn.as_sequence(x), h, w_ih, w_hh, b_ih, b_hh)[1]
