"""Other shapes of the same memory."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

from dlcore.backends.cuda.ops_copy import contiguous
from dlcore.dispatch import implement
from dlcore.signature import Shape

Array = Any


@implement("reshape", "cuda")
def reshape(x: Array, *, shape: Shape) -> Array:
    """A copy where the memory cannot be seen so."""
    return (x if _seen_as(shape, x.shape, x.strides) else contiguous(x)).reshape(shape)


def _seen_as(shape: Shape, old: Shape, strides: Shape) -> bool:
    """Whether elements of these strides can have this shape, of which a -1 stands for what is left.

    Where axes of `old` become one, or are divided otherwise, each has to go on where the one after it ends.
    """
    axes = [(n, stride) for n, stride in zip(old, strides, strict=True) if n != 1]
    if 0 in old:
        return True
    wanted = [n if n > 0 else prod(old) // -prod(shape) for n in shape if n != 1]
    while axes:
        group, size = [axes.pop()], wanted.pop()
        while (have := prod(n for n, _ in group)) != size:
            if have < size:
                group.append(axes.pop())
            else:
                size *= wanted.pop()
        if any(inner[1] * inner[0] != outer[1] for inner, outer in pairwise(group)):
            return False
    return True
