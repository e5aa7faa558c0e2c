"""Update rules of the optimizers on `kernels/optim.cu`: one launch for up to 64 parameters."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import sqrt
from typing import Any, NamedTuple

from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
from dlcore.dispatch import implement, variants

Array = Any
Arrays = list[Array]
States = dict[str, Arrays]
Betas = tuple[float, float]

TENSORS, STATES = 64, 3  # kTensors, kStates
BLOCK = 256
BYTES_PER_BLOCK = 4 * BLOCK * 16  # of each array
LIMIT = 2**31  # elements of a parameter that one launch counts
SETTINGS = ("lr", "weight_decay", "shrink", "beta1", "beta2", "eps", "gain", "root", "next", "mu")


class _Chunk(NamedTuple):
    """At most TENSORS parameters with what belongs to each: param, grad, states (None where a rule has none)."""

    rows: list[tuple[Any, ...]]

    @property
    def touched(self) -> Arrays:
        """All arrays."""
        return [x for row in self.rows for x in row if x is not None]

    def packed(self) -> tuple[bytes, int]:
        """`Tensors` of optim.cu, and the number of blocks."""
        address = driver_of(self.touched[0]).address
        padding = (0,) * (TENSORS - len(self.rows))
        columns = [[0 if x is None else address(x) for x in column] for column in zip(*self.rows, strict=True)]
        first, blocks = [], 0
        for param, *_ in self.rows:
            first.append(blocks)
            blocks += -(-param.nbytes // BYTES_PER_BLOCK)
        numbers = [n for column in columns for n in (*column, *padding)]
        sizes = [*(row[0].size for row in self.rows), *padding, *first, *padding, len(self.rows)]
        return struct.pack(f"<{(2 + STATES) * TENSORS}Q{TENSORS}Q{TENSORS}Ii4x", *numbers, *sizes), blocks


def _rows(params: Arrays, grads: Arrays, states: list[Arrays | None]) -> list[tuple[Any, ...]]:
    """Each parameter with its gradient and states, whole."""
    columns = [params, [contiguous(g) for g in grads], *[s or [None] * len(params) for s in states]]
    columns += [[None] * len(params)] * (STATES - len(states))
    return list(zip(*columns, strict=True))


def _pieces(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with parameters of more elements than a kernel counts cut in parts."""
    found = []
    for row in rows:
        size = row[0].size
        parts = [slice(start, start + LIMIT) for start in range(0, size, LIMIT)] if size > LIMIT else []
        found += [tuple(x if x is None or x.size != size else x.reshape(-1)[s] for x in row) for s in parts] or [row]
    return found


def _chunks(rows: list[tuple[Any, ...]]) -> Iterator[_Chunk]:
    for start in range(0, len(rows), TENSORS):
        yield _Chunk(rows[start : start + TENSORS])


def _settings(*, nesterov: Any = False, **settings: float) -> bytes:
    """`Settings` of optim.cu."""
    values = [float(settings.get(name, 1.0 if name == "shrink" else 0.0)) for name in SETTINGS]
    return struct.pack("<10di4x", *values, nesterov)


def _launch(kernel: str, chunk: _Chunk, grid: int, block: int, *arguments: Any) -> None:
    like = chunk.rows[0][0]
    launch(f"optim.optim_{kernel}_{SUFFIXES[like.dtype]}", (grid,), (block,), *arguments, like=like,
           touched=chunk.touched)  # fmt: skip


def _update(
    rule: str, params: Arrays, grads: Arrays, states: list[Arrays | None], *, multiply: float | None = None,
    **settings: Any,
) -> None:  # fmt: skip
    """Run a rule with its `Settings`. multiply: a factor for the last state, a number, beforehand."""
    rows = _rows(params, grads, states)
    if multiply is not None:
        for chunk in _chunks(rows):
            _launch("multiply", chunk, 1, TENSORS, chunk.packed()[0], multiply)
    for chunk in _chunks(_pieces(rows)):
        tensors, blocks = chunk.packed()
        _launch(rule, chunk, blocks, BLOCK, tensors, _settings(**settings))


@implement("optim.sgd", "cuda")
def sgd(
    params: Arrays, grads: Arrays, states: States, *, step: int, momentum: float, dampening: float, **settings: Any
) -> None:
    """Stochastic gradient descent with momentum."""
    gain = 1.0 if step == 1 else 1 - dampening
    buffers = states.get("momentum_buffer") if momentum else None
    _update("sgd", params, grads, [buffers], beta1=momentum, gain=gain, **settings)


@implement("optim.adam", "cuda")
def adam(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: Betas, amsgrad: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Adam."""
    arrays = [states["exp_avg"], states["exp_avg_sq"], states["max_exp_avg_sq"] if amsgrad else None]
    rate, root = lr / (1 - betas[0] ** step), sqrt(1 - betas[1] ** step)
    _update("adam", params, grads, arrays, lr=rate, beta1=betas[0], beta2=betas[1], root=root, **settings)


@implement("optim.adamw", "cuda")
def adamw(params: Arrays, grads: Arrays, states: States, *, lr: float, weight_decay: float, **settings: Any) -> None:
    """Adam with decoupled weight decay."""
    adam(params, grads, states, lr=lr, weight_decay=0.0, shrink=1 - lr * weight_decay, **settings)


@implement("optim.adamax", "cuda")
def adamax(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: Betas, **settings: Any
) -> None:
    """Adam with the infinity norm."""
    arrays: list[Arrays | None] = [states["exp_avg"], states["exp_inf"]]
    rate = lr / (1 - betas[0] ** step)
    _update("adamax", params, grads, arrays, lr=rate, beta1=betas[0], beta2=betas[1], **settings)


@implement("optim.nadam", "cuda")
def nadam(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: Betas, momentum_decay: float,
    **settings: Any,
) -> None:  # fmt: skip
    """Adam with Nesterov momentum."""
    mu, mu_next = (betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
    rates = {"lr": lr * (1 - mu), "next": lr * mu_next, "mu": mu_next, "root": 1 - betas[1] ** step}
    arrays: list[Arrays | None] = [states["exp_avg"], states["exp_avg_sq"], states["mu_product"]]
    _update("nadam", params, grads, arrays, multiply=mu, beta1=betas[0], beta2=betas[1], **rates, **settings)


@implement("optim.rmsprop", "cuda")
def rmsprop(
    params: Arrays, grads: Arrays, states: States, *, step: int, alpha: float, momentum: float, centered: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Gradient over its running root mean square."""
    centres, buffers = states["grad_avg"] if centered else None, states["momentum_buffer"] if momentum else None
    arrays = [states["square_avg"], centres, buffers]
    _update("rmsprop", params, grads, arrays, beta1=momentum, beta2=alpha, **settings)


@implement("optim.adagrad", "cuda")
def adagrad(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, lr_decay: float,
    initial_accumulator_value: float, **settings: Any,
) -> None:  # fmt: skip
    """Gradient over the root of the sum of its squares."""
    _update("adagrad", params, grads, [states["square_sum"]], lr=lr / (1 + (step - 1) * lr_decay), **settings)


@implement("optim.adadelta", "cuda")
def adadelta(params: Arrays, grads: Arrays, states: States, *, step: int, rho: float, **settings: Any) -> None:
    """Step size from the ratio of running mean squares of updates and gradients."""
    _update("adadelta", params, grads, [states["square_avg"], states["delta_avg"]], beta2=rho, **settings)


@implement("optim.lion", "cuda")
def lion(
    params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: Betas, weight_decay: float
) -> None:
    """Sign of an interpolated momentum."""
    shrink = 1 - lr * weight_decay
    _update("lion", params, grads, [states["exp_avg"]], lr=lr, beta1=betas[0], beta2=betas[1], shrink=shrink)


@implement("optim.lamb", "cuda")
def lamb(params: Arrays, grads: Arrays, states: States, *, lr: float, step: int, betas: Betas, **settings: Any) -> None:
    """Adam whose step of each parameter is scaled to its norm: norms of blocks, of tensors, the step.

    With a parameter of more than 2**31 elements, the rule of the numpy backend runs on the arrays instead.
    """
    if any(p.size > LIMIT for p in params):
        variants("optim.lamb", "numpy")[0].fn(params, grads, states, lr=lr, step=step, betas=betas, **settings)
        return
    trust = empty((len(params),), params[0].dtype, params[0])
    rates = {"gain": 1 - betas[0] ** step, "root": 1 - betas[1] ** step, "beta1": betas[0], "beta2": betas[1]}
    packed = _settings(lr=lr, **rates, **settings)
    numbers = [trust[i : i + 1] for i in range(len(params))]
    for chunk in _chunks(_rows(params, grads, [states["exp_avg"], states["exp_avg_sq"], numbers])):
        tensors, blocks = chunk.packed()
        partial = empty((blocks, 2), trust.dtype, trust)
        _launch("norms", chunk, blocks, BLOCK, tensors, packed, partial)
        _launch("trust", chunk, len(chunk.rows), BLOCK, tensors, partial, blocks)
        _launch("lamb", chunk, blocks, BLOCK, tensors, packed)
