"""Transforms of a sample's input, `transform(sample, rng)`: random ones draw from the generator they are given.

A loader passes each sample its own generator, so augmentation does not depend on workers or on the order of work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlcore.errors import ArgumentError

Transform = Callable[[Any, np.random.Generator], Any]


class InputTransform:
    """Base of transforms that change the input: the sample itself, or its first field when it is a tuple."""

    def __call__(self, sample: Any, rng: np.random.Generator) -> Any:
        """Transform a sample."""
        if isinstance(sample, tuple):
            return (self.apply(sample[0], rng), *sample[1:])
        return self.apply(sample, rng)

    def apply(self, x: Any, rng: np.random.Generator) -> Any:
        """Give the changed input; `x` itself stays as it is."""
        raise NotImplementedError


class Compose:
    """Apply transforms one after the other.

    Example:
        >>> augment = Compose([RandomCrop(28, padding=2), RandomHorizontalFlip()])
        >>> loader = DataLoader(dataset, 128, shuffle=True, transform=augment)
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, sample: Any, rng: np.random.Generator) -> Any:
        """Transform a sample."""
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


class Normalize(InputTransform):
    """`(x - mean) / std` with one value or one per channel, for x[C, ...]."""

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if (self.std == 0).any():
            raise ArgumentError("Normalize: std must not be zero")

    def apply(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Normalise x[C, ...]."""
        per_channel = (-1,) + (1,) * (x.ndim - 1)
        mean, std = (v.reshape(per_channel) if v.ndim else v for v in (self.mean, self.std))
        return np.asarray((x - mean) / std)


class RandomCrop(InputTransform):
    """A random `size` x `size` window of x[C, H, W], after `padding` zeros on every side."""

    def __init__(self, size: int, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def apply(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Crop x[C, H, W] to [C, size, size]."""
        room = [side + 2 * self.padding - self.size for side in x.shape[-2:]]
        if min(room) < 0:
            raise ArgumentError(f"RandomCrop: no window of {self.size} in {x.shape} with padding {self.padding}")
        padded = np.pad(x, [(0, 0), *[(self.padding, self.padding)] * 2])
        top, left = (int(rng.integers(r + 1)) for r in room)
        return padded[:, top : top + self.size, left : left + self.size]


class RandomHorizontalFlip(InputTransform):
    """Mirror x[..., W] left to right with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def apply(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Flip x[..., W], or give it back."""
        return x[..., ::-1] if rng.random() < self.p else x
