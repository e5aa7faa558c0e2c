"""Recurrent networks: one product for the inputs of all steps, then one launch a step (`recurrent.cuh`)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous, positions, rounded, wide_copy
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.backends.cuda.ops_matmul import product
from dlcore.backends.cuda.ops_reduce import reduce
from dlcore.dispatch import Call, implement
from dlcore.ops.rnn import steps

Array = Any

THREADS = 256
NARROW_ROWS, NARROW_UNITS = 16, 8  # of a block: NarrowStep of recurrent.cuh
WIDE_ROWS, WIDE_UNITS = 64, 16  # WideStep; four times the units where a lane takes units for gates
ACTIVATIONS = ("tanh", "relu")


def refuse(call: Call) -> str | None:
    """Why these kernels do not take a call."""
    return None if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


class Walk(NamedTuple):
    """The launches of one kernel over the steps of `states[T,N,H]`."""

    kernel: str
    blocks: int
    rows: int
    hidden: int
    vectors: bool

    def run(self, now: int, before: int, after: int, *arguments: Any) -> None:
        """One step; arguments: those of the kernel but the last, the first of them an array."""
        step = struct.pack("<6i", self.rows, self.hidden, now, before, after, self.vectors)
        launch(self.kernel, (self.blocks,), (THREADS,), *arguments, step, like=arguments[0])


def walk(kernel: str, states: Array, lines: tuple[Array, ...], units: int = 1) -> Walk:
    """How to launch a step kernel, given what it multiplies.

    lines: contiguous arrays whose last axis is summed over. units: of a lane in a wide tile.
    """
    _, rows, hidden = states.shape
    driver = driver_of(states)
    vectors = all(x.shape[-1] * x.itemsize % 16 == 0 and driver.address(x) % 16 == 0 for x in lines)
    size, blocks = "wide", -(-rows // WIDE_ROWS) * -(-hidden // (WIDE_UNITS * units))
    if rows <= 2 * NARROW_ROWS or blocks < driver.multiprocessors:
        size, blocks = "narrow", -(-rows // NARROW_ROWS) * -(-hidden // NARROW_UNITS)
    return Walk(f"{kernel}_{size}_{SUFFIXES[states.dtype]}", blocks, rows, hidden, vectors)


def times(count: int, reverse: bool) -> list[tuple[int, int, int]]:
    """Each step in the order taken, with those taken before and after it (-1: none)."""
    order = steps(count, reverse)
    return list(zip(order, [-1, *order[:-1]], [*order[1:], -1], strict=True))


def back(count: int, reverse: bool) -> Iterator[tuple[int, int, int]]:
    """The steps from the last taken to the first, and then -1, after which the first is taken."""
    taken = times(count, reverse)
    yield from reversed(taken)
    yield -1, -1, taken[0][0]


def flat(x: Array) -> Array:
    """`x[T,N,K]` as contiguous `[T*N,K]`."""
    return contiguous(x).reshape(x.shape[0] * x.shape[1], x.shape[2])


def projected(x: Array, w: Array, b: Array | None) -> Array:
    """`x[T,N,I]` times `w[G,I]`, plus `b[G]`, as `[T,N,G]`."""
    y = product(flat(x), w.T, None if b is None else contiguous(b))
    return y.reshape(*x.shape[:2], w.shape[0])


def zero_state(x: Array) -> Array:
    """Zeros of the shape of a state in the type of arithmetic."""
    dtype = dtypes.float32 if dtypes.is_half(x.dtype) else x.dtype
    return driver_of(x).xp.zeros(x.shape, dtype)


def previous(states: Array, first: Array, reverse: bool) -> Array:
    """The state `[T,N,H]` that each step starts from."""
    parts = [states[1:], first[None]] if reverse else [first[None], states[:-1]]
    return driver_of(states).xp.concatenate(parts)


def weight_gradients(dz: Array, x: Array) -> tuple[Array, Array]:
    """Gradients of `projected` for w and b."""
    return product(flat(dz).T, flat(x)), reduce(flat(dz), "sum", (0,), dz.shape[2:], dz.dtype)


@implement("lstm", "cuda", refuse=refuse)
def lstm(
    x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b: Array | None, lengths: Array | None, *, reverse: bool
) -> tuple[Array, Array, Array]:
    """`-> h[T,N,H] c[T,N,H] gates[T,N,4*H]`; the gates replace the product in place."""
    gates, lengths = projected(x, w_ih, b), positions(lengths)
    h, c = (empty((*x.shape[:2], h0.shape[1]), x.dtype, x) for _ in range(2))
    w, h0, cell = contiguous(w_hh), contiguous(h0), wide_copy(c0)
    plan = walk("lstm.lstm_step", h, (w, h0, h))
    for step in times(x.shape[0], reverse):
        plan.run(*step, w, h0, lengths, h, c, gates, cell)
    return h, c, gates


@implement("lstm_grad", "cuda", refuse=refuse)
def lstm_grad(
    dh: Array, dc: Array | None, dgates: Array | None, x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array,
    h: Array, c: Array, gates: Array, lengths: Array | None, *, reverse: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dx[T,N,I] dh0[N,H] dc0[N,H] dw_ih[4*H,I] dw_hh[4*H,H] db[4*H]`."""
    given = [None if v is None else contiguous(v) for v in (dh, dc, dgates, c0, c, gates)]
    dz, w, lengths = empty(gates.shape, gates.dtype, gates), contiguous(w_hh.T), positions(lengths)
    kept, dcell = zero_state(h0), zero_state(c0)
    plan = walk("lstm.lstm_step_grad", dh, (w, dz), 4)
    for step in back(x.shape[0], reverse):
        plan.run(*step, w, *given, lengths, dz, kept, dcell)
    dw_ih, db = weight_gradients(dz, x)
    dw_hh = product(flat(dz).T, flat(previous(h, h0, reverse)))
    dx = product(flat(dz), w_ih).reshape(x.shape)
    return dx, rounded(kept, h0.dtype), rounded(dcell, c0.dtype), dw_ih, dw_hh, db


@implement("gru", "cuda", refuse=refuse)
def gru(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None, lengths: Array | None, *,
    reverse: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """`-> h[T,N,H] gates[T,N,4*H]`."""
    h, gates = (empty((*x.shape[:2], size * h0.shape[1]), x.dtype, x) for size in (1, 4))
    w, first, bias = contiguous(w_hh), contiguous(h0), None if b_hh is None else contiguous(b_hh)
    inputs, lengths, state = projected(x, w_ih, b_ih), positions(lengths), wide_copy(h0)
    plan = walk("gru.gru_step", h, (w, first, h))
    for step in times(x.shape[0], reverse):
        plan.run(*step, w, first, bias, lengths, inputs, h, gates, state)
    return h, gates


@implement("gru_grad", "cuda", refuse=refuse)
def gru_grad(
    dh: Array, dgates: Array | None, x: Array, h0: Array, w_ih: Array, w_hh: Array, h: Array, gates: Array,
    lengths: Array | None, *, reverse: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dx[T,N,I] dh0[N,H] dw_ih[3*H,I] dw_hh[3*H,H] db_ih[3*H] db_hh[3*H]`."""
    given = [None if v is None else contiguous(v) for v in (dh, dgates, h0, h, gates)]
    dinputs, dstates = (empty((*h.shape[:2], w_hh.shape[0]), h.dtype, h) for _ in range(2))
    w, lengths, kept = contiguous(w_hh.T), positions(lengths), zero_state(h0)
    plan = walk("gru.gru_step_grad", dh, (w, dstates), 4)
    for step in back(x.shape[0], reverse):
        plan.run(*step, w, *given, lengths, dinputs, dstates, kept)
    dw_ih, db_ih = weight_gradients(dinputs, x)
    dw_hh, db_hh = weight_gradients(dstates, previous(h, h0, reverse))
    dx = product(flat(dinputs), w_ih).reshape(x.shape)
    return dx, rounded(kept, h0.dtype), dw_ih, dw_hh, db_ih, db_hh


@implement("rnn", "cuda", refuse=refuse)
def rnn(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b: Array | None, lengths: Array | None, *, activation: str,
    reverse: bool,
) -> Array:  # fmt: skip
    """`-> h[T,N,H]`; the states replace the product in place."""
    h, lengths = projected(x, w_ih, b), positions(lengths)
    w, first = contiguous(w_hh), contiguous(h0)
    plan = walk("rnn.rnn_step", h, (w, first, h), 4)
    for step in times(x.shape[0], reverse):
        plan.run(*step, w, first, lengths, h, ACTIVATIONS.index(activation))
    return h


@implement("rnn_grad", "cuda", refuse=refuse)
def rnn_grad(
    dh: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, h: Array, lengths: Array | None, *, activation: str,
    reverse: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dx[T,N,I] dh0[N,H] dw_ih[H,I] dw_hh[H,H] db[H]`."""
    dz, w, lengths = empty(h.shape, h.dtype, h), contiguous(w_hh.T), positions(lengths)
    into, after, kept = contiguous(dh), contiguous(h), zero_state(h0)
    plan = walk("rnn.rnn_step_grad", dh, (w, dz), 4)
    for step in back(x.shape[0], reverse):
        plan.run(*step, w, into, after, lengths, dz, kept, ACTIVATIONS.index(activation))
    dw_ih, db = weight_gradients(dz, x)
    dw_hh = product(flat(dz).T, flat(previous(h, h0, reverse)))
    return product(flat(dz), w_ih).reshape(x.shape), rounded(kept, h0.dtype), dw_ih, dw_hh, db
