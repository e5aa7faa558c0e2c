"""The `numpy` backend: NumPy arrays and the ops' references. Needs no compiler; the definition of every op."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.dispatch import Backend
from dlcore.errors import DTypeError, ShapeError
from dlcore.op import Op
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]


class NumpyBackend(Backend):
    """Arrays in host memory, computed by NumPy."""

    name = "numpy"
    kernels = "numpy"
    array_type = np.ndarray
    xp: Any = np  # the array library of references

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        """NumPy array of `data`; Python floats become float32."""
        if hasattr(data, "__dlpack__") and not isinstance(data, (np.ndarray, np.generic)):
            data = _from_dlpack(data)
        try:
            array = np.asarray(data)
        except ValueError:
            raise ShapeError("nested lists have unequal lengths") from None
        if not isinstance(data, (np.ndarray, np.generic)) and array.dtype == np.float64:
            dtype = dtype or dtypes.DEFAULT_FLOAT
        if array.dtype.kind in "OUSmMc":
            raise DTypeError(f"cannot make a tensor of {array.dtype} data")
        wanted = dtypes.dtype(array.dtype.newbyteorder("=")) if dtype is None else dtype
        return np.array(array, dtype=wanted, copy=copy)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return array

    def full(self, shape: Shape, value: Any, dtype: Any) -> Array:
        """New filled array."""
        return np.zeros(shape, dtype) if value == 0 else np.full(shape, value, dtype)

    def cast(self, array: Any, dtype: Any) -> Array:
        """Array or Python scalar in `dtype`; what is too large for a 16-bit float becomes infinite."""
        if dtype.itemsize == 2 and hasattr(array, "dtype"):
            with np.errstate(over="ignore"):
                return np.asarray(array, dtype)
        return np.asarray(array, dtype)

    def reference(self, op: Op) -> Callable[..., Any]:
        """The reference, with 16-bit floats widened to float32 while it computes."""
        run, xp, operand = op.reference, self.xp, self.operand
        if op.view and op.dtype is None:  # moves no numbers
            return functools.partial(run, xp)

        def call(*arrays: Any, **attrs: Any) -> Any:
            with np.errstate(all="ignore"):
                return run(xp, *map(operand, arrays), **attrs)

        return call

    def operand(self, array: Any) -> Any:
        """An operand as references take it."""
        if type(array) is self.array_type and dtypes.is_half(array.dtype):
            return self.cast(array, dtypes.float32)
        return array


def _from_dlpack(data: Any) -> Array:
    try:
        return np.from_dlpack(data)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DTypeError(f"cannot take a {type(data).__module__}.{type(data).__qualname__}: {error}") from None


def load() -> NumpyBackend:
    """The backend; always available."""
    return NumpyBackend()
