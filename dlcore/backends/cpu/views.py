"""Views of arrays: other shapes of the same memory, without the checks that a reference's results go through."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C, indexing
from dlcore.backends.cpu.cast import FEW
from dlcore.dispatch import Call, implement
from dlcore.signature import Shape

Array = np.ndarray[Any, Any]

implement("broadcast_to", "cpu")(_C.broadcast_to)

REFUSES_COPIES = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


@implement("reshape", "cpu")
def reshape(x: Array, *, shape: Shape) -> Array:
    """A copy where the memory cannot be seen so."""
    if x.flags.c_contiguous or x.size <= FEW or not REFUSES_COPIES:
        return x.reshape(shape)
    try:
        return x.reshape(shape, copy=False)
    except ValueError:
        copy: Array = _C.contiguous(x)
        return copy.reshape(shape)


@implement("permute_dims", "cpu")
def permute_dims(x: Array, *, axes: tuple[int, ...]) -> Array:
    """Axes in another order."""
    return x.transpose(axes)


def refuse_arrays(call: Call) -> str | None:
    """Takes integers, slices and new axes."""
    return "no kernel for arrays" if any(map(indexing.is_array, call.attrs["index"])) else None


@implement("getitem", "cpu", refuse=refuse_arrays)
def getitem(x: Array, *, index: indexing.Key) -> Array:
    """A view."""
    view: Array = x[indexing.decode(index, ())]
    return view
