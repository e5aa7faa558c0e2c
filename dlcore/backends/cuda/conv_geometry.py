"""What kernels of convolutions share: attributes and windows in three dimensions, division by multiplication."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

from dlcore.ops import window
from dlcore.signature import Shape

Array = Any

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


class Digits(NamedTuple):
    """A number of four digits: their sizes, what each is worth in elements of memory, the last three in coordinates."""

    sizes: tuple[int, int, int, int]
    worth: tuple[int, int, int, int]
    steps: Triple = (0, 0, 0)

    def pack(self) -> bytes:
        """`Digits` of conv.cuh."""
        divisors = [n for size in self.sizes[1:] for n in divisor(size)]
        return struct.pack("<9I4i3i", *divisors, *self.worth, *self.steps)

    def total(self) -> int:
        """How many numbers there are."""
        return prod(self.sizes)


def times(a: Triple, b: Triple) -> Triple:
    """Products of neighbours."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def dot(a: Triple, b: Triple) -> int:
    """Their sum."""
    return sum(times(a, b))


def steps_of(images: Array) -> tuple[int, int, int, Triple]:
    """Elements from a group of `[G,N,C,S...]` to the next, an image, a channel, and along the three axes."""
    group, image, channel, *space = (s // images.itemsize for s in images.strides)
    return group, image, channel, (space[0], space[1], space[2])


def spans(kernel: Shape, dilation: Shape) -> Shape:
    """How many coordinates there are from the first tap to the last, both counted, along each axis."""
    return tuple(max(window.span(k, d), 0) for k, d in zip(kernel, dilation, strict=True))


class Windows(NamedTuple):
    """Windows of images `[G,N,C,S...]`, an array of any strides."""

    images: Array
    out: Triple  # how many there are along each axis
    kernel: Triple
    stride: Triple
    start: Triple  # coordinates that the first tap of the first one sees
    dilation: Triple
    channels_last: bool  # k's are taps and channels, not channels and taps

    def pack(self, of_all: bool = False) -> bytes:
        """`Windows` of conv.cuh. of_all: the taps of all channels, not of one."""
        _, image, channel, space = steps_of(self.images)
        pixels = Digits((self.images.shape[1], *self.out), (image, *times(self.stride, space)), self.stride)
        taps = Digits((1, *self.kernel), (channel, *times(self.dilation, space)), self.dilation)
        channels, count = self.images.shape[2], taps.total()
        inner = divisor(channels if self.channels_last else count)
        total = count * channels if of_all else count
        span, origin = spans(self.kernel, self.dilation), dot(self.start, space)
        return pixels.pack() + taps.pack() + struct.pack(
            "<3I15i", *inner, total, channel, origin, *self.start, *self.images.shape[3:],
            *span, 0, span[0], span[0] + span[1],
        )  # fmt: skip

    def pixels(self) -> int:
        """How many windows there are."""
        return int(self.images.shape[1]) * prod(self.out)
