"""What kernels of convolutions share: attributes in three dimensions, and division by multiplication."""

from __future__ import annotations

from typing import NamedTuple

from dlcore.signature import Shape

Triple = tuple[int, int, int]


def divisor(size: int) -> Triple:
    """`Divisor` of conv.cuh: division by multiplication, exact below 2^31 (Granlund and Montgomery 1994)."""
    size = max(size, 1)
    shift = (size - 1).bit_length()
    return size, -(-(1 << (31 + shift)) // size), shift


class Geometry(NamedTuple):
    """Attributes of a convolution, in three dimensions."""

    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int


def geometry(stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Geometry:
    """Attributes of a lower rank with unit axes in front."""
    return Geometry(triple(stride, 1), triple(padding, 0), triple(dilation, 1), groups)


def triple(values: Shape, fill: int) -> Triple:
    """Three numbers, of which those in front may be missing."""
    a, b, c = (fill,) * (3 - len(values)) + tuple(values)
    return a, b, c
