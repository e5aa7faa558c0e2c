"""Samplers: which sample comes when, as a pure function of the epoch, so that a loader can resume anywhere."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from dlcore.data.dataset import Dataset, Indices
from dlcore.errors import ArgumentError


def generator(seed: int, epoch: int, index: int | None = None) -> np.random.Generator:
    """Random numbers of one sample in one epoch, or with `index=None` of the epoch's order.

    Philox is keyed by (seed, epoch); the index selects a distant part of its 256-bit counter (Salmon et al. 2011,
    "Parallel Random Numbers: As Easy as 1, 2, 3"), so no two of these streams overlap.
    """
    counter = [0, 0, 0, 0] if index is None else [0, 0, 1, index]
    words = np.array([[seed, epoch, 0, 0], counter], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words[0, :2], counter=words[1]))


class Sampler(Protocol):
    """Gives the indices of one epoch, `int64[len(sampler)]`: the same for the same epoch."""

    def __len__(self) -> int: ...

    def indices(self, epoch: int) -> Indices:
        """The epoch's indices in order."""
        ...


class SequentialSampler:
    """Every sample once, in the dataset's order."""

    def __init__(self, dataset: Dataset) -> None:
        self.size = len(dataset)

    def __len__(self) -> int:
        return self.size

    def indices(self, epoch: int) -> Indices:
        """0, 1, ..., len-1."""
        return np.arange(self.size)


class RandomSampler:
    """Every sample once, in a new random order each epoch."""

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        self.size, self.seed = len(dataset), seed

    def __len__(self) -> int:
        return self.size

    def indices(self, epoch: int) -> Indices:
        """A permutation that depends on (seed, epoch) only."""
        return generator(self.seed, epoch).permutation(self.size)


class WeightedSampler:
    """Draws `size` samples with replacement, sample i with probability `weights[i] / sum(weights)`.

    Raises:
        ArgumentError: weights that are negative, not finite, or all zero.
    """

    def __init__(self, weights: ArrayLike, size: int, seed: int = 0) -> None:
        values = np.asarray(weights, dtype=np.float64)
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ArgumentError("WeightedSampler: expected a vector of finite weights >= 0 with a positive sum")
        self.probabilities, self.size, self.seed = values / values.sum(), size, seed

    def __len__(self) -> int:
        return self.size

    def indices(self, epoch: int) -> Indices:
        """`size` draws that depend on (seed, epoch) only."""
        return generator(self.seed, epoch).choice(len(self.probabilities), self.size, p=self.probabilities)
