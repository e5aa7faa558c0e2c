"""Map-style datasets: anything with a length and samples by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlcore.errors import ArgumentError, DataError, IndexRangeError

Indices = NDArray[np.int64]


class Dataset(Protocol):
    """What a loader asks of a dataset: `len(d)` and `d[i]` for `0 <= i < len(d)`.

    A sample is an array, a number, or a tuple, list or dict of them. A dataset that can fetch many samples at once
    also has `batch(indices)`, which gives the collated batch, or None where it must be read sample by sample.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def fetch_batch(dataset: Dataset, indices: Indices) -> Any:
    """Fetch the collated batch in one go, or give None when the dataset only gives single samples."""
    batch = getattr(dataset, "batch", None)
    return None if batch is None else batch(indices)


class ArrayDataset:
    """Arrays (or tensors) of equal first length; sample i is the tuple of their rows i.

    Example:
        >>> ArrayDataset(np.zeros((5, 3)), np.arange(5))[2]
        (array([0., 0., 0.]), np.int64(2))

    Raises:
        DataError: no array, a scalar, or arrays of different lengths.
    """

    def __init__(self, *arrays: ArrayLike) -> None:
        self.arrays = tuple(np.asarray(array) for array in arrays)
        shapes = [array.shape for array in self.arrays]
        if not shapes or any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            raise DataError(f"ArrayDataset: expected arrays of one first length; got shapes {shapes}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(array[index] for array in self.arrays)

    def batch(self, indices: Indices) -> tuple[Any, ...]:
        """Rows `indices` (shape [B]) of every array, each of shape [B, ...]."""
        return tuple(array[indices] for array in self.arrays)


TensorDataset = ArrayDataset


class ImageDataset(ArrayDataset):
    """Images `uint8[N, C, H, W]` with labels `int64[N]`, given out as float32 `(image / 255 - mean) / std`.

    The bytes are kept as they are (a quarter of the memory) and converted batch by batch.
    """

    def __init__(
        self, images: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], mean: float = 0.0, std: float = 1.0
    ) -> None:
        super().__init__(images, labels)
        self.classes = tuple(classes)
        self.mean, self.std = mean, std

    @property
    def images(self) -> NDArray[np.uint8]:
        """The raw bytes, `uint8[N, C, H, W]`."""
        return self.arrays[0]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class numbers, `int64[N]`."""
        return self.arrays[1]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._normalise(self.images[index]), self.labels[index]

    def batch(self, indices: Indices) -> tuple[Any, ...]:
        """Images float32 [B, C, H, W] and labels int64 [B]."""
        return self._normalise(self.images[indices]), self.labels[indices]

    def _normalise(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        scale, shift = 1 / (255 * self.std), self.mean / self.std
        return image * np.float32(scale) - np.float32(shift)


class Subset:
    """The samples of `dataset` at `indices`, in that order. Raises IndexRangeError for an index outside it."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | Indices) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)
        outside = (self.indices < 0) | (self.indices >= len(dataset))
        if outside.any():
            raise IndexRangeError(
                f"Subset: index {self.indices[outside][0]} is outside a dataset of {len(dataset)} samples"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def batch(self, indices: Indices) -> Any:
        """The batch at `indices` of this subset, or None where `dataset` only gives single samples."""
        return fetch_batch(self.dataset, self.indices[indices])


class ConcatDataset:
    """The samples of several datasets, one after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        if not datasets:
            raise ArgumentError("ConcatDataset: expected at least one dataset")
        self.datasets = tuple(datasets)
        self.ends = np.cumsum([len(dataset) for dataset in self.datasets])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a dataset of {len(self)} samples")
        index %= len(self)
        part = int(np.searchsorted(self.ends, index, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return self.datasets[part][index - start]


def random_split(dataset: Dataset, lengths: Sequence[int | float], seed: int = 0) -> list[Subset]:
    """Split a dataset at random into subsets of the given lengths, or fractions that sum to 1.

    Example:
        >>> train, val = random_split(dataset, [0.9, 0.1], seed=1)

    Raises:
        ArgumentError: the lengths do not add up to the dataset.
    """
    total = len(dataset)
    if all(isinstance(length, float) for length in lengths) and abs(sum(lengths) - 1) < 1e-9:
        ends = [round(total * share) for share in np.cumsum(lengths)]
    else:
        ends = [int(end) for end in np.cumsum(lengths)]
    if not ends or min(lengths) < 0 or ends[-1] != total:
        raise ArgumentError(
            f"random_split: lengths {list(lengths)} do not add up to {total} samples (or fractions to 1)"
        )
    order = np.random.default_rng(seed).permutation(total)
    return [Subset(dataset, order[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
