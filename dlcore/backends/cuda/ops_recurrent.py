"""Recurrent networks: one product for the inputs of all steps, then one launch a step, or one for all steps
(`recurrent.cuh`)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from dlcore import dtypes
from dlcore.backends.cuda.driver import Driver
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous, positions
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.backends.cuda.ops_matmul import product
from dlcore.dispatch import Call, implement

Array = Any

THREADS = 256
NARROW_ROWS, NARROW_UNITS = 16, 8  # of a block: NarrowStep of recurrent.cuh
WIDE_ROWS, WIDE_UNITS = 64, 16  # WideStep; four times the units where a lane takes units for gates
LARGE_ROWS, LARGE_UNITS = 128, 32  # LargeStep
LEAST_BUSY = 0.75  # of the multiprocessors, in all waves of large tiles
ACTIVATIONS = ("tanh", "relu")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}  # numbers of a unit that meet its weights


def refuse(call: Call) -> str | None:
    """Why no kernel takes a call."""
    return None if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


class Job(NamedTuple):
    """What is to be done over the steps of `states[T,N,H]`: the kernels' common name and what they multiply."""

    family: str  # lstm, gru or rnn
    grad: bool
    states: Array
    reverse: bool
    lines: tuple[Array, ...]  # contiguous arrays whose last axis is summed over
    units: int = 1  # of a lane in a wide or large tile

    def kernel(self, way: str, size: str = "") -> str:
        """The name of a kernel for these arrays."""
        return f"{self.family}.{self.family}_{way}{'_grad' * self.grad}{size}_{SUFFIXES[self.states.dtype]}"

    def sequence(self) -> bytes:
        """`Sequence` of recurrent.cuh."""
        steps, rows, hidden = self.states.shape
        address = driver_of(self.states).address
        vectors = all(x.shape[-1] * x.itemsize % 16 == 0 and address(x) % 16 == 0 for x in self.lines)
        return struct.pack("<5i", rows, hidden, steps, self.reverse, vectors)


Walk = Callable[..., None]
"""`walk(job, order, *arguments)` launches kernels for the steps `order`; arguments: theirs but for the last, which all
have in common; the first is an array."""


def step_by_step(job: Job, order: range, *arguments: Any) -> None:
    """A launch for each step."""
    _, rows, hidden = job.states.shape
    size, blocks = tiles(rows, hidden, job.units, job.states.dtype, driver_of(job.states).multiprocessors)
    kernel, sequence = job.kernel("step", f"_{size}"), job.sequence()
    for step in order:
        launch(kernel, (blocks,), (THREADS,), *arguments, sequence, step, like=arguments[0])


def tiles(rows: int, hidden: int, units: int, dtype: Any, multiprocessors: int) -> tuple[str, int]:
    """The largest tiles that keep most multiprocessors busy, of which each holds one large one; how many there are."""
    large = ceil(rows / LARGE_ROWS) * ceil(hidden / (LARGE_UNITS * units))
    busy = large / (ceil(large / multiprocessors) * multiprocessors or 1)
    if rows > WIDE_ROWS and dtype != dtypes.float64 and busy >= LEAST_BUSY:
        return "large", large
    wide = ceil(rows / WIDE_ROWS) * ceil(hidden / (WIDE_UNITS * units))
    if rows > 2 * NARROW_ROWS and wide >= multiprocessors:
        return "wide", wide
    return "narrow", ceil(rows / NARROW_ROWS) * ceil(hidden / NARROW_UNITS)


# ---- all steps in one launch


class Resident(NamedTuple):
    """How weights stay in shared memory: blocks of 8 units, several groups of them for groups of rows."""

    groups: int
    blocks: int
    shared: int  # bytes of a block

    @staticmethod
    def of(rows: int, hidden: int, gates: int, grad: bool, multiprocessors: int) -> Resident:
        """For a device. gates: numbers of a unit that meet its weights."""
        unit_blocks, (columns, inner) = ceil(hidden / NARROW_UNITS), (1, gates) if grad else (gates, 1)
        groups = max(1, min(ceil(rows / NARROW_ROWS), multiprocessors // max(unit_blocks, 1)))
        lines = columns * NARROW_UNITS * (ceil(inner * hidden / SLAB) * SLAB + 4)
        pitch = columns * NARROW_UNITS + 8 * (columns % 2 == 0)
        beside = max(NARROW_ROWS * (SLAB + 4), THREADS // 32 * NARROW_ROWS * pitch)
        return Resident(groups, groups * unit_blocks, 4 * (beside + lines))


SLAB = 128  # kSlab of NarrowStep
MAX_TURNS = 2  # row tiles of a block in a step, from which on more blocks are worth more than resident weights


def at_once(job: Job, order: range, *arguments: Any) -> None:
    """One cooperative launch for all steps."""
    _, rows, hidden = job.states.shape
    driver = driver_of(job.states)
    plan = Resident.of(rows, hidden, GATES[job.family], job.grad, driver.multiprocessors)
    if plan.blocks:
        barrier = _barrier(driver, driver.stream())
        launch(
            job.kernel("all"), (plan.blocks,), (THREADS,), *arguments, job.sequence(), order.start, order.stop, barrier,
            like=arguments[0], shared=plan.shared, cooperative=True,
        )  # fmt: skip


@cache
def _barrier(driver: Driver, stream: int) -> Array:
    """What `dl::grid_sync` counts in; launches on one stream follow each other."""
    return driver.xp.zeros(1, np.uint32)


def refuse_at_once(family: str, grad: bool, call: Call) -> str | None:
    """Why a call is not taken in one launch."""
    if call.dtype == dtypes.float64 or refuse(call):
        return f"no kernel for {call.dtype}"
    driver: Driver = call.backend.driver  # type: ignore[attr-defined]
    d = call.dims
    plan = Resident.of(d.N, d.H, GATES[family], grad, driver.multiprocessors)
    if d.T == 1:
        return "a single step"
    if plan.blocks > driver.multiprocessors:
        return f"{plan.blocks} blocks of {NARROW_UNITS} units on {driver.multiprocessors} multiprocessors"
    if plan.shared > driver.max_shared:
        return f"{plan.shared} bytes of weights a block, where {driver.max_shared} fit"
    if ceil(d.N / NARROW_ROWS) > MAX_TURNS * plan.groups:
        return f"{d.N} rows for {plan.groups} groups of blocks"
    return None


# ---- ops


def flat(x: Array) -> Array:
    """`x[T,N,K]` as contiguous `[T*N,K]`."""
    return contiguous(x).reshape(x.shape[0] * x.shape[1], x.shape[2])


def projected(x: Array, w: Array, b: Array | None) -> Array:
    """`x[T,N,I]` times `w[G,I]`, plus `b[G]`, as `[T,N,G]`."""
    y = product(flat(x), w.T, None if b is None else contiguous(b))
    return y.reshape(*x.shape[:2], w.shape[0])


def given(*arrays: Array | None) -> list[Array | None]:
    """Contiguous arrays; None stays None."""
    return [None if x is None else contiguous(x) for x in arrays]


def running(x: Array) -> Array:
    """A new array `[N,H]` for a state of `x[T,N,H]` or its gradient, in the type of arithmetic."""
    return empty(x.shape[1:], dtypes.wide(x.dtype), x)


def forward(count: int) -> range:
    """Steps in the order in which they are taken."""
    return range(count)


def backward(count: int, initial: bool) -> range:
    """Steps from the last taken to the first; initial: and then -1, after which the first is taken."""
    return range(count - 1, -2 if initial else -1, -1)


def initial_gradients(x: Array, initial: bool, count: int) -> list[Array]:
    """New arrays for gradients of the initial states of `x[T,N,H]`, without rows if they are not wanted."""
    return [empty((x.shape[1] if initial else 0, x.shape[2]), x.dtype, x) for _ in range(count)]


def lstm(
    walk: Walk, x: Array, h0: Array | None, c0: Array | None, w_ih: Array, w_hh: Array, b: Array | None,
    lengths: Array | None, *, reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """`-> h[T,N,H] c[T,N,H] gates[T,N,4*H]`; the gates replace the product in place."""
    gates, (w, h0, c0) = projected(x, w_ih, b), given(w_hh, h0, c0)
    h, c = (empty((*x.shape[:2], w_hh.shape[1]), x.dtype, x) for _ in range(2))
    job = Job("lstm", False, h, reverse, tuple(v for v in (w, h0, h) if v is not None))
    walk(job, forward(x.shape[0]), w, h0, c0, positions(lengths), h, c, gates, running(h))
    return h, c, gates


def lstm_grad(
    walk: Walk, dh: Array, dc: Array | None, dgates: Array | None, c0: Array | None, w_hh: Array, c: Array,
    gates: Array, lengths: Array | None, *, reverse: bool, initial: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dz[T,N,4*H] dh0[M,H] dc0[M,H]`."""
    dz, w, first = empty(gates.shape, gates.dtype, gates), contiguous(w_hh.T), initial_gradients(c, initial, 2)
    arguments = w, *given(dh, dc, dgates, c0, c, gates), positions(lengths), dz, running(c), running(c), *first
    walk(Job("lstm", True, c, reverse, (w, dz), 4), backward(c.shape[0], initial), *arguments)
    return dz, *first


def gru(
    walk: Walk, x: Array, h0: Array | None, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
    lengths: Array | None, *, reverse: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """`-> h[T,N,H] gates[T,N,4*H]`."""
    h, gates = (empty((*x.shape[:2], size * w_hh.shape[1]), x.dtype, x) for size in (1, 4))
    inputs, (w, h0, bias) = projected(x, w_ih, b_ih), given(w_hh, h0, b_hh)
    job = Job("gru", False, h, reverse, tuple(v for v in (w, h0, h) if v is not None))
    walk(job, forward(x.shape[0]), w, h0, bias, positions(lengths), inputs, h, gates, running(h))
    return h, gates


def gru_grad(
    walk: Walk, dh: Array, dgates: Array | None, h0: Array | None, w_hh: Array, h: Array, gates: Array,
    lengths: Array | None, *, reverse: bool, initial: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dinputs[T,N,3*H] dstates[T,N,3*H] dh0[M,H]`."""
    dinputs, dstates = (empty((*h.shape[:2], w_hh.shape[0]), h.dtype, h) for _ in range(2))
    w, first = contiguous(w_hh.T), initial_gradients(h, initial, 1)
    arguments = w, *given(dh, dgates, h0, h, gates), positions(lengths), dinputs, dstates, running(h), *first
    walk(Job("gru", True, h, reverse, (w, dstates), 4), backward(h.shape[0], initial), *arguments)
    return dinputs, dstates, *first


def rnn(
    walk: Walk, x: Array, h0: Array | None, w_ih: Array, w_hh: Array, b: Array | None, lengths: Array | None, *,
    activation: str, reverse: bool,
) -> Array:  # fmt: skip
    """`-> h[T,N,H]`; the states replace the product in place."""
    h, (w, h0) = projected(x, w_ih, b), given(w_hh, h0)
    job = Job("rnn", False, h, reverse, tuple(v for v in (w, h0, h) if v is not None), 4)
    walk(job, forward(x.shape[0]), w, h0, positions(lengths), h, ACTIVATIONS.index(activation))
    return h


def rnn_grad(
    walk: Walk, dh: Array, w_hh: Array, h: Array, lengths: Array | None, *, activation: str, reverse: bool,
    initial: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`-> dz[T,N,H] dh0[M,H]`."""
    dz, w, first = empty(h.shape, h.dtype, h), contiguous(w_hh.T), initial_gradients(h, initial, 1)
    arguments = w, *given(dh, h), positions(lengths), dz, running(h), *first, ACTIVATIONS.index(activation)
    walk(Job("rnn", True, h, reverse, (w, dz), 4), backward(h.shape[0], initial), *arguments)
    return dz, *first


for _run in (lstm, lstm_grad, gru, gru_grad, rnn, rnn_grad):
    _family, _, _grad = _run.__name__.partition("_")
    implement(_run.__name__, "cuda", refuse=refuse)(partial(_run, step_by_step))
    _refuse = partial(refuse_at_once, _family, bool(_grad))
    implement(_run.__name__, "cuda", "persistent", _refuse)(partial(_run, at_once))
