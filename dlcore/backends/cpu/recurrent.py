"""Recurrent networks on `_C`: one matrix product for the inputs of all steps, then all steps in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.backends.cpu.gather import embedding
from dlcore.dispatch import implement

Array = np.ndarray[Any, Any]


class Embedded(NamedTuple):
    """`table[V,I]` at `ids[T,N]`, in the place of x[T,N,I]."""

    ids: Array
    table: Array

    @staticmethod
    def rows(size: int) -> int:
        """How many rows of a table of that size are multiplied: more than `kFewRows` of csrc, with which a product
        adds its terms in another order."""
        return max(size, 257)

    def times(self, w: Array) -> Array:
        """x times `w[G,I]`, bit for bit."""
        size = len(self.table)
        table = self.table if size == self.rows(size) else np.resize(self.table, (self.rows(size), w.shape[1]))
        products: Array = _C.matmul(table, w.T, None, None, "none")
        looked_up: Array = embedding(self.ids, products[:size], padding_idx=None)
        return looked_up


def _projected(x: Array | Embedded, w: Array) -> Array:
    """`x[T,N,I]` times `w[G,I]` as a new array `[T,N,G]`."""
    if isinstance(x, Embedded):
        return x.times(w)
    t, n, i = x.shape
    y: Array = _C.empty((t, n, w.shape[0]), x.dtype)
    _C.matmul(x.reshape(t * n, i), w.T, y.reshape(t * n, w.shape[0]))
    return y


def _dense(x: Array | None) -> Array | None:
    return x if x is None or x.flags.c_contiguous else x.copy()


def _positions(lengths: Array | None) -> Array | None:
    return None if lengths is None else np.ascontiguousarray(lengths, np.int64)


def _new(like: Array, *shape: int) -> Array:
    out: Array = _C.empty(shape, like.dtype)
    return out


def _initial(states: Array, wanted: bool, count: int) -> tuple[list[Array], list[Array | None]]:
    """New arrays for gradients of initial states of `states[T,N,H]`, and what a kernel is to be given for them."""
    _, n, h = states.shape
    arrays = [_new(states, n if wanted else 0, h) for _ in range(count)]
    return arrays, [a if wanted else None for a in arrays]


@implement("lstm", "cpu", refuse=refuse_all_but_f32_f64)
def lstm(
    x: Array | Embedded, h0: Array | None, c0: Array | None, w_ih: Array, w_hh: Array, b: Array | None,
    lengths: Array | None, *, reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """`-> h[T,N,H] c[T,N,H] gates[T,N,4*H]`; the gates replace the product in place."""
    gates = _projected(x, w_ih)
    h, c = (_new(gates, *gates.shape[:2], w_hh.shape[1]) for _ in range(2))
    _C.lstm(_dense(h0), _dense(c0), w_hh, _dense(b), _positions(lengths), h, c, gates, reverse)
    return h, c, gates


@implement("lstm_grad", "cpu", refuse=refuse_all_but_f32_f64)
def lstm_grad(
    dh: Array, dc: Array | None, dgates: Array | None, c0: Array | None, w_hh: Array, c: Array, gates: Array,
    lengths: Array | None, *, reverse: bool, initial: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dz[T,N,4*H] dh0[M,H] dc0[M,H]`."""
    dz, (first, wanted) = _new(gates, *gates.shape), _initial(c, initial, 2)
    operands = map(_dense, (dh, dc, dgates, c0))
    _C.lstm_grad(*operands, w_hh, _dense(c), _dense(gates), _positions(lengths), dz, *wanted, reverse)
    return dz, *first


@implement("gru", "cpu", refuse=refuse_all_but_f32_f64)
def gru(
    x: Array | Embedded, h0: Array | None, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
    lengths: Array | None, *, reverse: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """`-> h[T,N,H] gates[T,N,4*H]`."""
    products, biases = _projected(x, w_ih), (_dense(b_ih), _dense(b_hh))
    h, gates = (_new(products, *products.shape[:2], size * w_hh.shape[1]) for size in (1, 4))
    _C.gru(_dense(h0), w_hh, *biases, _positions(lengths), products, h, gates, reverse)
    return h, gates


@implement("gru_grad", "cpu", refuse=refuse_all_but_f32_f64)
def gru_grad(
    dh: Array, dgates: Array | None, h0: Array | None, w_hh: Array, h: Array, gates: Array, lengths: Array | None, *,
    reverse: bool, initial: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dinputs[T,N,3*H] dstates[T,N,3*H] dh0[M,H]`."""
    made, (first, wanted) = [_new(h, *h.shape[:2], w_hh.shape[0]) for _ in range(2)], _initial(h, initial, 1)
    operands = map(_dense, (dh, dgates, h0))
    _C.gru_grad(*operands, w_hh, _dense(h), _dense(gates), _positions(lengths), *made, *wanted, reverse)
    return *made, *first


@implement("rnn", "cpu", refuse=refuse_all_but_f32_f64)
def rnn(
    x: Array | Embedded, h0: Array | None, w_ih: Array, w_hh: Array, b: Array | None, lengths: Array | None, *,
    activation: str, reverse: bool,
) -> Array:  # fmt: skip
    """`-> h[T,N,H]`; the states replace the product in place."""
    h = _projected(x, w_ih)
    _C.rnn(_dense(h0), w_hh, _dense(b), _positions(lengths), h, activation == "relu", reverse)
    return h


@implement("rnn_grad", "cpu", refuse=refuse_all_but_f32_f64)
def rnn_grad(
    dh: Array, w_hh: Array, h: Array, lengths: Array | None, *, activation: str, reverse: bool, initial: bool
) -> tuple[Array, ...]:
    """`-> dz[T,N,H] dh0[M,H]`."""
    dz, (first, wanted) = _new(h, *h.shape), _initial(h, initial, 1)
    _C.rnn_grad(_dense(dh), w_hh, _dense(h), _positions(lengths), dz, *wanted, activation == "relu", reverse)
    return dz, *first
