"""Other shapes of the same memory."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.backends.cuda.ops_elementwise import merged
from dlcore.dispatch import implement
from dlcore.signature import Shape

Array = Any


@implement("reshape", "cuda")
def reshape(x: Array, *, shape: Shape) -> Array:
    """A copy where the memory cannot be seen so."""
    return (x if x.size == 0 or _seen_as(shape, x.shape, x.strides) else contiguous(x)).reshape(shape)


def _seen_as(shape: Shape, old: Shape, strides: Shape) -> bool:
    """Whether elements of these strides can have this shape (-1: what is left): where they jump, an axis must end."""
    whole = [n if n > 0 else prod(old) // -prod(shape) for n in shape]
    pieces, _ = merged(old, [strides])
    return {*accumulate(pieces, mul)} <= {1, *accumulate(whole, mul)}
