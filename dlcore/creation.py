"""Functions that make tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlcore import dispatch, dtypes, recording
from dlcore.errors import DlcoreError, ShapeError
from dlcore.tensor import Tensor


def asarray(data: Any, dtype: Any = None, device: str | None = None, *, copy: bool | None = None) -> Tensor:
    """Tensor from data, sharing memory where it can (a NumPy array on a host device, any DLPack exporter).

    dtype: None keeps an array's dtype; Python floats give float32, ints int64.
    Raises DTypeError for objects that are no numbers.
    """
    if recording.now.recorder is not None:
        recording.now.recorder.data(data)
    return constant(data, dtype, device, copy=copy)


def constant(data: Any, dtype: Any = None, device: str | None = None, *, copy: bool | None = None) -> Tensor:
    """As `asarray`, of data that are the same each time: what `dl.capture` records may hold it."""
    backend = dispatch.get_backend(device) if device else dispatch.default_backend()
    wanted = None if dtype is None else dtypes.dtype(dtype)
    if isinstance(data, Tensor):
        data = data._array if data._backend is backend else data.numpy()
    try:
        made = Tensor._wrap(backend.asarray(data, wanted, copy=copy), backend)
    except DlcoreError as error:
        error.args = (f"asarray: {error.args[0]}",)
        raise
    return _noted(made)


def _noted(made: Tensor) -> Tensor:
    if recording.now.recorder is not None:
        recording.now.recorder.made(made)
    return made


def tensor(data: Any, dtype: Any = None, device: str | None = None, *, requires_grad: bool = False) -> Tensor:
    """Tensor with a copy of `data` (nested lists, scalars, arrays, tensors).

    >>> tensor([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    out = asarray(data, dtype, device, copy=True)
    return out.detach(requires_grad=True) if requires_grad else out


def full(shape: int | Sequence[int], value: Any, dtype: Any = None, device: str | None = None) -> Tensor:
    """Tensor filled with one value; dtype None takes the value's own (floats give float32)."""
    backend = dispatch.get_backend(device) if device else dispatch.default_backend()
    wanted = dtypes.scalar_dtype(value, ()) if dtype is None else dtypes.dtype(dtype)
    try:
        sizes = tuple(operator.index(n) for n in (shape if isinstance(shape, Sequence) else (shape,)))
    except TypeError:
        raise ShapeError(f"full: sizes must be ints; got {shape!r}") from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"full: negative size in shape {sizes}")
    return _noted(Tensor._wrap(backend.full(sizes, value, wanted), backend))


def zeros(shape: int | Sequence[int], dtype: Any = float, device: str | None = None) -> Tensor:
    """Tensor of zeros (float32 unless told)."""
    return full(shape, 0, dtype, device)


def ones(shape: int | Sequence[int], dtype: Any = float, device: str | None = None) -> Tensor:
    """Tensor of ones (float32 unless told)."""
    return full(shape, 1, dtype, device)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of `x`."""
    return full(x.shape, 0, x.dtype, x.device)


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape, dtype and device of `x`."""
    return full(x.shape, 1, x.dtype, x.device)


def arange(
    start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str | None = None
) -> Tensor:
    """Evenly spaced values in [start, stop); one argument means [0, start)."""
    first, last = (0, start) if stop is None else (start, stop)
    values = np.arange(first, last, step)
    found = dtypes.DEFAULT_FLOAT if values.dtype.kind == "f" else dtypes.DEFAULT_INT
    return constant(values, dtype or found, device)


def linspace(start: float, stop: float, num: int, dtype: Any = float, device: str | None = None) -> Tensor:
    """`num` evenly spaced values from start to stop, both included."""
    return constant(np.linspace(start, stop, num), dtype, device)


def eye(rows: int, columns: int | None = None, dtype: Any = float, device: str | None = None) -> Tensor:
    """Identity matrix."""
    return constant(np.eye(rows, columns), dtype, device)
