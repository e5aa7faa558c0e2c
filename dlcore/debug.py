"""The check of `DLCORE_DEBUG=1`: outputs have the shape and dtype of the record, and no NaN comes from nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.dispatch import Event
from dlcore.errors import ArgumentError, KernelError


def check_outputs(event: Event) -> None:
    """A listener of `dispatch.listening`.

    Raises KernelError for a wrong shape or dtype, ArgumentError for a NaN that no operand held.
    """
    what = f"{event.op.name} ({event.plan.variant} on {event.backend.name})"
    for array, meta in zip(event.outputs, event.plan.outputs, strict=True):
        if (array.shape, array.dtype) != (meta.shape, meta.dtype):
            raise KernelError(f"{what}: returned {array.dtype}{array.shape}, its record says {meta.dtype}{meta.shape}")
    if any(_has_nan(event, a) for a in event.outputs) and not any(_has_nan(event, a) for a in event.arrays):
        raise ArgumentError(f"{what}: NaN in the output, none in the operands {_shown(event.arrays)}")


def _has_nan(event: Event, array: Any) -> bool:
    if isinstance(array, float):
        return array != array
    if not hasattr(array, "dtype") or dtypes.kind(array.dtype) != "float":
        return False
    return bool(np.isnan(event.backend.to_numpy(array).astype(np.float32)).any())


def _shown(arrays: tuple[Any, ...]) -> str:
    return ", ".join(f"{a.dtype}{list(a.shape)}" if hasattr(a, "shape") else repr(a) for a in arrays)
