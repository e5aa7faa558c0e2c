"""Softmax and its logarithm on `_C`, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import implement

Array = np.ndarray[Any, Any]


def _along(kernel: Callable[..., Array]) -> Callable[..., Array]:
    """A kernel for rows of the last axis as a function of any axis."""

    def call(*arrays: Array, axis: int) -> Array:
        if axis not in (-1, arrays[0].ndim - 1):
            return call(*[x.swapaxes(axis, -1) for x in arrays], axis=-1).swapaxes(axis, -1)
        return kernel(*[x if x.flags.c_contiguous else x.copy() for x in arrays])

    return call


for _name in ("softmax", "log_softmax", "softmax_grad", "log_softmax_grad"):
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64)(_along(getattr(_C, _name)))
