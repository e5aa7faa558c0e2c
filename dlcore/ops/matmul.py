"""Matrix products."""

from __future__ import annotations

from typing import Any

from dlcore.op import Op, define, sample
from dlcore.tensor import Tensor

_matmul: Op = define(
    "matmul",
    "a[...,M,K] b[...,K,N] -> y[...,M,N]",
    lambda xp, a, b: xp.matmul(a, b),
    vjp={"a": lambda g, b: _matmul(g, b.mT), "b": lambda g, a: _matmul(a.mT, g)},
    flops=lambda d: 2 * d.size() * d.M * d.K * d.N,
    samples=lambda: [
        sample((3, 5), (5, 4)), sample((2, 1, 3, 5), (4, 5, 2)), sample((1, 1), (1, 1)), sample((0, 3), (3, 2)),
        sample((3, 0), (0, 2)), sample((33, 17), (17, 65)),
    ],
    doc="Matrix product over the last two axes; the others broadcast.",
)  # fmt: skip


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product of `a[..., M, K]` and `b[..., K, N]`; a vector counts as a row (left) or a column (right).

    >>> matmul(dl.ones((2, 3)), dl.ones((3, 4))).shape
    (2, 4)
    """
    out: Tensor = _matmul(a, b)
    return out
