"""Recurrent layers: `dl.lstm`, `dl.gru`, `dl.rnn` beside PyTorch's modules with equal weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import dlcore as dl
from benchmarks import beside_torch
from benchmarks.beside_torch import Convert, Side
from benchmarks.row import Case, Work

LAYERS = [  # kind; steps, sequences, inputs, units
    ("lstm", (64, 32, 256, 256)),
    ("lstm", (128, 16, 64, 128)),
    ("lstm", (35, 20, 650, 650)),
    ("lstm", (100, 1, 128, 128)),
    ("gru", (64, 32, 256, 256)),
    ("rnn", (64, 32, 256, 256)),
]


def cases() -> Iterator[Case]:
    """The states alone; the states and the gradients of x and all weights."""
    for kind, sizes in LAYERS:
        name = "{} T{} B{} I{} H{}".format(kind, *sizes)
        for suffix, backward in (("forward", False), ("forward+backward", True)):
            yield Case(f"{name} {suffix}", partial(_work, kind, sizes, backward))


def _work(kind: str, sizes: tuple[int, ...], backward: bool) -> Work:
    t, n, i, h = sizes
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind.upper())(i, h)
    x, dy = torch.randn(t, n, i), torch.randn(t, n, h)

    def theirs(convert: Convert) -> Side:
        own, given = copy.deepcopy(layer), convert(x).detach().requires_grad_(backward)
        for parameter in own.parameters():
            parameter.data = convert(parameter.data)
        return Side(lambda: own(given)[0], [given, *own.parameters()], convert(dy))

    return beside_torch.work(_ours(kind, layer, x, dy, backward), theirs, backward)


def _ours(kind: str, layer: Any, x: Any, dy: Any, backward: bool) -> Side:
    """One bias where PyTorch has two that are only ever added; its gradient stands for either."""
    w_ih, w_hh, *biases = (p.detach() for p in layer.parameters())
    twice = kind != "gru"
    biases = [biases[0] + biases[1]] if twice else biases
    operands = [dl.tensor(a.numpy(), requires_grad=backward) for a in (x, w_ih, w_hh, *biases)]
    states, run = [None] * (2 if kind == "lstm" else 1), getattr(dl, kind)
    forward = lambda: run(operands[0], *states, *operands[1:])[0]  # noqa: E731
    return Side(forward, operands + operands[-1:] * twice, dl.asarray(dy.numpy()))
