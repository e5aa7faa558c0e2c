"""From samples to a batch of arrays, and from arrays to tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlcore.creation import asarray
from dlcore.errors import DataError
from dlcore.tensor import Tensor


def collate(samples: Sequence[Any]) -> Any:
    """Stack samples field by field: arrays and tensors of one shape, numbers, and tuples, lists or dicts of them.

    Python floats become float32, integers int64; anything else (strings, say) stays a list.

    Raises:
        DataError: the samples' shapes, lengths or keys differ.
    """
    first = samples[0]
    if isinstance(first, dict):
        _same("keys", [list(sample) for sample in samples])
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        _same("numbers of fields", [len(sample) for sample in samples])
        return type(first)(collate(field) for field in zip(*samples, strict=True))
    if isinstance(first, float) and not isinstance(first, np.generic):
        return np.array(samples, dtype=np.float32)
    if isinstance(first, np.ndarray | np.generic | Tensor | int):
        arrays = [np.asarray(sample) for sample in samples]
        _same("shapes", [array.shape for array in arrays])
        return np.stack(arrays)
    return list(samples)


def _same(what: str, values: list[Any]) -> None:
    different = next((value for value in values if value != values[0]), None)
    if different is not None:
        raise DataError(
            f"collate: samples have different {what} {values[0]} and {different}; pass collate=... to join them"
        )


def map_arrays(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply `function` to every array in a batch of tuples, lists and dicts."""
    if isinstance(batch, dict):
        return {key: map_arrays(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(map_arrays(function, value) for value in batch)
    return function(batch) if isinstance(batch, np.ndarray | Tensor) else batch


def to_tensors(batch: Any, device: str | None = None) -> Any:
    """Make every array of a batch a tensor on `device` (None: the default device)."""
    return map_arrays(lambda array: asarray(array, device=device), batch)
