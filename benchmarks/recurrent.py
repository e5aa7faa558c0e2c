"""Rows of recurrent layers for `peers`: `dl.lstm`, `dl.gru`, `dl.rnn` against PyTorch's modules with equal weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

import dlcore as dl
from benchmarks import harness
from dlcore import autograd
from dlcore.profile import profile

LAYERS = [  # kind; steps, sequences, inputs, units
    ("lstm", (64, 32, 256, 256)),
    ("lstm", (128, 16, 64, 128)),
    ("lstm", (35, 20, 650, 650)),
    ("lstm", (100, 1, 128, 128)),
    ("gru", (64, 32, 256, 256)),
    ("rnn", (64, 32, 256, 256)),
]


def rows(only: str, peak: float) -> Iterator[harness.Row]:
    """Every row whose name contains `only`: the states alone; the states and the gradients of x and all weights."""
    for kind, sizes in LAYERS:
        name = "{} T{} B{} I{} H{}".format(kind, *sizes)
        for suffix, backward in (("forward", False), ("forward+backward", True)):
            if only in f"{name} {suffix}":
                yield _row(f"{name} {suffix}", kind, sizes, backward, peak)


def _row(name: str, kind: str, sizes: tuple[int, ...], backward: bool, peak: float) -> harness.Row:
    t, n, i, h = sizes
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind.upper())(i, h)
    x, dy = torch.randn(t, n, i), torch.randn(t, n, h)
    ours, peer = _dlcore(kind, layer, x, dy, backward), _torch(kind, layer, x, dy, backward)
    exact = _torch(kind, copy.deepcopy(layer).double(), x.double(), dy.double(), backward)()
    errors = harness.relative_error(ours(), exact), harness.relative_error(peer(), exact)
    with profile() as p:
        ours()
    return harness.compare(name, ours, peer, errors, p.flops, peak)


def _torch(kind: str, layer: Any, x: Any, dy: Any, backward: bool) -> Any:
    def forward() -> list[Any]:
        with torch.no_grad():
            return [layer(x)[0]]

    def both() -> list[Any]:
        y = layer(x)[0]
        grads = list(torch.autograd.grad(y, [x, *layer.parameters()], dy))
        return [y.detach(), *(grads if kind == "gru" else grads[:-1])]  # two biases that are only ever added

    x.requires_grad_(backward)
    return both if backward else forward


def _dlcore(kind: str, layer: Any, x: Any, dy: Any, backward: bool) -> Any:
    w_ih, w_hh, *biases = (p.detach() for p in layer.parameters())
    biases = biases if kind == "gru" else [biases[0] + biases[1]]
    operands = [dl.tensor(a.detach().numpy(), requires_grad=backward) for a in (x, w_ih, w_hh, *biases)]
    states, into, run = [None] * (2 if kind == "lstm" else 1), dl.asarray(dy.numpy()), getattr(dl, kind)

    def forward() -> list[Any]:
        return [run(operands[0], *states, *operands[1:])[0]]

    def both() -> list[Any]:
        (y,) = forward()
        return [y.detach(), *autograd.gradients(y, operands, [into])]

    return both if backward else forward
