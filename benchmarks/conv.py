"""Convolutions, beside PyTorch's in either layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import dlcore as dl
from benchmarks import beside_torch
from benchmarks.beside_torch import Convert, Side
from benchmarks.row import Case, Work

SIZES = [  # images, channels in and out, height and width; kernels are 3x3, padding 1
    (32, 64, 64, 56),
    (32, 256, 256, 14),
]
FIRST_LAYER = (128, 1, 32, 28)  # nobody asks for the gradient of the images


def cases() -> Iterator[Case]:
    """The values alone; the values and the gradients of x and w; of w only."""
    for sizes in SIZES:
        for suffix, backward in (("f", False), ("f+b", True)):
            yield Case(f"{_name(sizes)} {suffix}", partial(_work, sizes, backward))
    yield Case(f"{_name(FIRST_LAYER)} f+b, no dx", partial(_work, FIRST_LAYER, True, dx=False))


def _name(sizes: tuple[int, ...]) -> str:
    return "conv 3x3 {1}->{2} {3}x{3} b{0}".format(*sizes)


def _work(sizes: tuple[int, ...], backward: bool, dx: bool = True) -> Work:
    n, c, o, size = sizes
    torch.manual_seed(0)
    arrays = [torch.randn(n, c, size, size), torch.randn(o, c, 3, 3), torch.randn(n, o, size, size)]

    def theirs(convert: Convert) -> Side:
        x, w, dy = (convert(a).detach() for a in arrays)
        x, w = x.requires_grad_(backward and dx), w.requires_grad_(backward)
        return Side(lambda: torch.nn.functional.conv2d(x, w, padding=1), [x, w] if dx else [w], dy)

    x, w, dy = (dl.asarray(a.numpy()) for a in arrays)
    x, w = x.detach(requires_grad=backward and dx), w.detach(requires_grad=backward)
    ours = Side(lambda: dl.conv2d(x, w, padding=1), [x, w] if dx else [w], dy)
    return beside_torch.work(ours, theirs, backward, channels_last=True)
