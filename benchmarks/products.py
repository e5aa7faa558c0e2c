"""Matrix products, beside PyTorch's, NumPy's and JAX's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

import dlcore as dl
from benchmarks import libraries
from benchmarks.row import Case, Work, compared

SIZES = (512, 1024, 2048)


def cases(peers: tuple[str, ...]) -> Iterator[Case]:
    """Of square matrices. peers: libraries."""
    for n in SIZES:
        yield Case(f"sgemm {n}", partial(_work, n, peers))


def _work(n: int, peers: tuple[str, ...]) -> Work:
    rng = np.random.default_rng(n)
    a, b = (rng.normal(size=(n, n)).astype(np.float32) for _ in range(2))
    da, db = dl.asarray(a), dl.asarray(b)
    others = {name: libraries.run(name, lambda _, x, y: x @ y, a, b) for name in peers}
    return compared(lambda: [da @ db], others, [a.astype(np.float64) @ b])
