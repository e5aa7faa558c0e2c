"""Arrays joined along an axis, on `_C`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import _C
from dlcore.dispatch import implement

Array = np.ndarray[Any, Any]


@implement("concat", "cpu")
def concat(*xs: Array, axis: int = 0) -> Array:
    """`xs[...]... -> y[R...]`, by copying bytes."""
    at = axis % xs[0].ndim
    shape = xs[0].shape
    out: Array = _C.empty((*shape[:at], sum(x.shape[at] for x in xs), *shape[at + 1 :]), xs[0].dtype)
    _C.concat(out, at, *map(_C.contiguous, xs))
    return out
