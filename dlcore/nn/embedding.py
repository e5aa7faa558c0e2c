"""Embedding layer."""

from __future__ import annotations

from typing import Any

from dlcore.creation import zeros
from dlcore.nn import init
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter
from dlcore.ops import embed
from dlcore.tensor import Tensor


class Embedding(Module):
    """Rows of a learned table by id, `ids[...] -> y[..., D]`; the table `[V, D]` starts standard normal.

    padding_idx: a row that starts as zeros and is not trained. Raises IndexRangeError for ids outside the table.

    >>> Embedding(1000, 64)(dl.tensor([3, 7])).shape
    (2, 64)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        self.padding_idx = padding_idx
        self.weight = Parameter(zeros((num_embeddings, embedding_dim)))
        init.normal(self.weight)
        if padding_idx is not None:
            self.weight.storage()[padding_idx] = 0

    def forward(self, ids: Any) -> Tensor:
        """The rows."""
        return embed.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}{padding}"
