"""Captured functions beside themselves, eager: how much of a step is Python, and what a replay itself costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import dlcore as dl
from benchmarks import harness, models, steps
from benchmarks.row import Case, Run, Work, compared
from benchmarks.steps import STEPS, Spec
from dlcore import nn
from dlcore.profile import profile


def cases() -> Iterator[Case]:
    """Training steps; four ops on four numbers, beside eager ones and beside the one native call that they become."""
    for name, spec in STEPS.items():
        yield Case(f"{name}, captured", partial(_step, spec))
    yield Case("4 ops on 4 numbers", partial(_four_ops, native=False))
    yield Case("4 ops on 4 numbers: replay overhead", partial(_four_ops, native=True))


def _step(spec: Spec) -> Work:
    """Losses of the second step, which a captured one replays, are compared."""
    wide, ours, peer = (
        _step_of(spec, captured, dtype)
        for captured, dtype in ((False, "float64"), (True, "float32"), (False, "float32"))
    )
    wide(), ours()
    with profile() as p:
        peer()
    exact = wide()
    error, peer_error = harness.relative_error(ours(), exact), harness.relative_error(peer(), exact)
    return Work(ours, {"eager": peer}, error, {"eager": peer_error}, p.flops)


def _step_of(spec: Spec, captured: bool, dtype: str) -> Run:
    dl.manual_seed(0)
    return steps.ours(spec, models.layers(nn, spec.model).astype(dtype), captured)


def _four_ops(native: bool) -> Work:
    def f(x: Any) -> Any:
        return (x * 2 + 1).tanh() * x

    x = np.asarray([0.5, -1, 2, 3], np.float32)
    own, recorded = dl.asarray(x), dl.capture(f)
    ours: Run = lambda: [recorded(own)]  # noqa: E731
    ours()
    peers: dict[str, Run] = {"native call": _native(recorded, x)} if native else {"eager": lambda: [f(own)]}
    return compared(ours, peers, [np.tanh(x.astype(np.float64) * 2 + 1) * x], 2 * x.nbytes)


def _native(recorded: Any, x: Any) -> Run:
    (line,) = recorded.programs[0].lines
    operands = [x if isinstance(operand, int) else operand.value for operand in line.operands]
    return lambda: [line.call(*operands)]
