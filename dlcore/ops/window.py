"""Sliding windows: the sizes, slices and checks that convolutions and pooling share.

Along one axis, output `o` sees the inputs `o * stride - padding + k * dilation` for each tap `k` of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from dlcore.creation import asarray
from dlcore.errors import ArgumentError, ShapeError
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

Sizes = int | Sequence[int]


def sizes(value: Any, rank: int, name: str, op: str) -> Shape:
    """An int repeated for every axis, or the given sizes. Raises ArgumentError for another number of them."""
    found = (value,) * rank if isinstance(value, int) else value
    if not isinstance(found, (tuple, list)) or len(found) != rank or not all(isinstance(n, int) for n in found):
        raise ArgumentError(f"{op}: {name} must be an int or {rank} of them; got {value!r}")
    return tuple(found)


def check(rank: int, least: int, **attrs: Shape) -> None:
    """Raise ArgumentError unless each attribute is a tuple of `rank` ints, none below `least`."""
    for name, value in attrs.items():
        if not isinstance(value, tuple) or len(value) != rank or any(n < least for n in value):
            raise ArgumentError(f"{name} must be {rank} ints of at least {least}; got {value!r}")


def span(kernel: int, dilation: int) -> int:
    """Inputs from a kernel's first tap to its last."""
    return dilation * (kernel - 1) + 1


def output_sizes(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool = False
) -> Shape:
    """Number of windows along each axis: whole ones, or (ceil_mode) all that start inside the input or its front pad.

    Raises ShapeError where not one fits.
    """
    found = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        count = (n + 2 * p - span(k, d) + ceil_mode * (s - 1)) // s + 1
        if count < 1:
            raise ShapeError(f"a kernel of {k} (dilation {d}) is longer than an axis of {n} padded by {p}")
        found.append(count - (ceil_mode and (count - 1) * s >= n + p))
    return tuple(found)


def padded(size: Shape, padding: Shape) -> Shape:
    """Sizes with padding on both sides."""
    return tuple(n + 2 * p for n, p in zip(size, padding, strict=True))


def covered(size: Shape, out: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """Padded sizes that hold the input and every window, one that a ceil_mode lets hang over included."""
    axes = zip(size, out, kernel, stride, padding, dilation, strict=True)
    return tuple(max(n + p, (o - 1) * s + span(k, d)) for n, o, k, s, p, d in axes)


def views(kernel: Shape, out: Shape, stride: Shape, dilation: Shape) -> Iterator[tuple[Any, ...]]:
    """Per tap, in row-major order: the index that picks what it sees, one element per output, of the padded input."""
    for tap in product(*map(range, kernel)):
        axes = zip(tap, out, stride, dilation, strict=True)
        yield ..., *(slice(t * d, t * d + s * (o - 1) + 1, s) for t, o, s, d in axes)


def pad(xp: Any, x: Any, before: Shape, total: Shape, value: Any = 0) -> Any:
    """`x` inside an array of `total` sizes over the last axes, `before` elements after its start."""
    lead = x.shape[: x.ndim - len(total)]
    out = xp.full((*lead, *total), value, dtype=x.dtype)
    out[inner(before, x.shape[len(lead) :])] = x
    return out


def inner(before: Shape, size: Shape) -> tuple[Any, ...]:
    """Index of the part that `pad` filled."""
    return ..., *(slice(p, p + n) for p, n in zip(before, size, strict=True))


def pick(d: Dims, names: str) -> Shape:
    """The sizes of some dims, written `"H,W"`."""
    return tuple(d[n] for n in names.split(","))


def attrs(op: str, rank: int, **given: Any) -> dict[str, Shape]:
    """Attributes as one int per spatial axis; a 1-d op runs as a 2-d one with a unit axis in front."""
    found = {n: sizes(v, rank, n, op) for n, v in given.items()}
    return {n: (int("padding" not in n), *v) if rank == 1 else v for n, v in found.items()}


def images(x: Any, operand: str, rank: int, op: str, like: Any = None) -> Tensor:
    """Check the number of dimensions; `x[A,B,L]` of a 1-d op becomes `x[A,B,1,L]`."""
    found = as_tensor(x, like)
    if found.ndim != rank + 2:
        raise ShapeError(f"{op}: {operand} must have {rank + 2} dimensions; got shape {found.shape}")
    return found.reshape(*found.shape[:2], 1, *found.shape[2:]) if rank == 1 else found


def without_unit_axis(y: Tensor, rank: int) -> Tensor:
    """The result of a 1-d op without the axis that `images` put in."""
    return y.reshape(*y.shape[:2], *y.shape[3:]) if rank == 1 else y


def as_tensor(x: Any, like: Any = None) -> Tensor:
    """`x` itself where it is a tensor, so that its graph stays; else a new one, on the device of the tensor `like`."""
    return x if isinstance(x, Tensor) else asarray(x, device=like.device if isinstance(like, Tensor) else None)
