"""Attention, beside `torch.nn.functional.scaled_dot_product_attention`; heads lie as in a layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import dlcore as dl
from benchmarks import beside_torch
from benchmarks.beside_torch import Convert, Side
from benchmarks.row import Case, Work

SIZES = [(16, 8, 128, 32), (4, 8, 512, 64)]  # sequences, heads, positions, features of a head


def cases() -> Iterator[Case]:
    """The values alone; the values and the gradients of q, k and v."""
    for sizes in SIZES:
        for causal in (False, True):
            name = "attention B{} H{} T{} D{}".format(*sizes) + (" causal" if causal else "")
            for suffix, backward in (("f", False), ("f+b", True)):
                yield Case(f"{name} {suffix}", partial(_work, sizes, causal, backward))


def _work(sizes: tuple[int, ...], causal: bool, backward: bool) -> Work:
    b, h, t, d = sizes
    torch.manual_seed(0)
    arrays = [torch.randn(b, t, h, d).transpose(1, 2) for _ in range(4)]  # q, k, v, dy

    def theirs(convert: Convert) -> Side:
        q, k, v, dy = (convert(a).detach().requires_grad_(backward) for a in arrays)
        attend = partial(torch.nn.functional.scaled_dot_product_attention, q, k, v, is_causal=causal)
        return Side(attend, [q, k, v], dy.detach())

    q, k, v, dy = (dl.asarray(a.numpy()).detach(requires_grad=backward) for a in arrays)
    ours = Side(lambda: dl.scaled_dot_product_attention(q, k, v, causal=causal), [q, k, v], dy.detach())
    return beside_torch.work(ours, theirs, backward)
