"""Rows of attention for `peers`, beside `torch.nn.functional.scaled_dot_product_attention`; heads lie as in a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import dlcore as dl
from benchmarks import harness
from dlcore import autograd
from dlcore.profile import profile

SIZES = [(16, 8, 128, 32), (4, 8, 512, 64)]  # sequences, heads, positions, features of a head


def rows(only: str, peak: float) -> Iterator[harness.Row]:
    """Every row whose name contains `only`: the values alone; the values and the gradients of q, k and v."""
    for sizes in SIZES:
        for causal in (False, True):
            name = "attention B{} H{} T{} D{}".format(*sizes) + (" causal" if causal else "")
            for suffix, backward in (("f", False), ("f+b", True)):
                if only in f"{name} {suffix}":
                    yield _row(f"{name} {suffix}", sizes, causal, backward, peak)


def _row(name: str, sizes: tuple[int, ...], causal: bool, backward: bool, peak: float) -> harness.Row:
    b, h, t, d = sizes
    torch.manual_seed(0)
    arrays = [torch.randn(b, t, h, d).transpose(1, 2) for _ in range(4)]  # q, k, v, dy
    ours, peer = _dlcore(arrays, causal, backward), _torch(arrays, causal, backward)
    exact = _torch([a.double() for a in arrays], causal, backward)()
    errors = harness.relative_error(ours(), exact), harness.relative_error(peer(), exact)
    with profile() as p:
        ours()
    return harness.compare(name, ours, peer, errors, p.flops, peak)


def _torch(arrays: list[Any], causal: bool, backward: bool) -> Any:
    *operands, dy = [a.detach().requires_grad_(backward) for a in arrays]

    def forward() -> list[Any]:
        return [scaled_dot_product_attention(*operands, is_causal=causal)]

    def both() -> list[Any]:
        (y,) = forward()
        return [y.detach(), *torch.autograd.grad(y, operands, dy.detach())]

    return both if backward else forward


def _dlcore(arrays: list[Any], causal: bool, backward: bool) -> Any:
    *operands, dy = [dl.asarray(a.numpy()).detach(requires_grad=backward) for a in arrays]

    def forward() -> list[Any]:
        return [dl.scaled_dot_product_attention(*operands, causal=causal)]

    def both() -> list[Any]:
        (y,) = forward()
        return [y.detach(), *autograd.gradients(y, operands, [dy.detach()])]

    return both if backward else forward
