"""Convolutions in 1, 2 and 3 dimensions, plain and transposed.

They bring attributes into one form and call the records of `conv_records.py`: a 1-d convolution is a 2-d one with a
unit axis, a transposed one is the gradient `conv_dx`.
"""

from __future__ import annotations

from typing import Any

from dlcore.errors import ArgumentError
from dlcore.ops import window
from dlcore.ops.conv_records import FAMILY
from dlcore.ops.window import Sizes, as_tensor
from dlcore.signature import Shape
from dlcore.tensor import Tensor


def conv1d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """1-d convolution: `x[N,C,L] w[O,C/groups,K] b[O]? -> y[N,O,M]`; attributes as for `conv2d`."""
    return _run(1, x, w, b, stride, padding, dilation, groups)


def conv2d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """2-d convolution (cross-correlation, as is usual): `x[N,C,H,W] w[O,C/groups,KH,KW] b[O]? -> y[N,O,P,Q]`.

    stride, padding, dilation: an int or one per axis; padding may be "valid" (none) or "same" (stride 1: y has the
    spatial sizes of x; where the two sides differ, the end gets one more zero).
    groups: input and output channels split into this many independent convolutions (C of them: depthwise).
    Raises ShapeError or ArgumentError.

    >>> conv2d(dl.ones((1, 3, 8, 8)), dl.ones((4, 3, 3, 3)), padding="same").shape
    (1, 4, 8, 8)
    """
    return _run(2, x, w, b, stride, padding, dilation, groups)


def conv3d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """3-d convolution: `x[N,C,D,H,W] w[O,C/groups,KD,KH,KW] b[O]? -> y[N,O,R,P,Q]`; attributes as for `conv2d`."""
    return _run(3, x, w, b, stride, padding, dilation, groups)


def _run(
    rank: int, x: Any, w: Any, b: Any, stride: Sizes, padding: Sizes | str, dilation: Sizes, groups: int
) -> Tensor:
    name = f"conv{rank}d"
    x, w = window.images(x, "x", rank, name), window.images(w, "w", rank, name, x)
    attrs = window.attrs(name, rank, stride=stride, dilation=dilation)
    extra = [0] * len(attrs["stride"])
    if padding == "same":
        attrs["padding"], extra = _same(name, w.shape[2:], **attrs)
    else:
        attrs |= window.attrs(name, rank, padding=0 if padding == "valid" else padding)
    y: Tensor = FAMILY[max(rank, 2)].conv(x, w, b, **attrs, groups=groups)
    return window.without_unit_axis(y[..., *(slice(e, None) for e in extra)] if any(extra) else y, rank)


def _same(name: str, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[Shape, list[int]]:
    """Padding of both ends that keeps sizes, and how many outputs at the start it then gives too many (0 or 1)."""
    if any(s != 1 for s in stride):
        raise ArgumentError(f'{name}: padding="same" needs stride 1; got {stride}')
    missing = [window.span(k, d) - 1 for k, d in zip(kernel, dilation, strict=True)]
    return tuple((m + 1) // 2 for m in missing), [m % 2 for m in missing]


def conv_transpose1d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """1-d transposed convolution: `x[N,I,L] w[I,O/groups,K] b[O]? -> y[N,O,M]`; see `conv_transpose2d`."""
    return _transposed(1, x, w, b, stride, padding, output_padding, dilation, groups)


def conv_transpose2d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """2-d transposed convolution: `x[N,I,H,W] w[I,O/groups,KH,KW] b[O]? -> y[N,O,P,Q]`.

    The adjoint of the `conv2d` that maps y to x with the same attributes. Several sizes of y would give that x;
    P is (H - 1) * stride - 2 * padding + dilation * (KH - 1) + 1 + output_padding. Raises ShapeError or ArgumentError.

    >>> conv_transpose2d(dl.ones((1, 4, 5, 5)), dl.ones((4, 3, 2, 2)), stride=2).shape
    (1, 3, 10, 10)
    """
    return _transposed(2, x, w, b, stride, padding, output_padding, dilation, groups)


def conv_transpose3d(
    x: Any, w: Any, b: Any = None, *, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """3-d transposed convolution: `x[N,I,D,H,W] w[I,O/groups,KD,KH,KW] b[O]? -> y[N,O,R,P,Q]`; see the 2-d one."""
    return _transposed(3, x, w, b, stride, padding, output_padding, dilation, groups)


def _transposed(
    rank: int, x: Any, w: Any, b: Any, stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes,
    groups: int,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{rank}d"
    x, w = window.images(x, "x", rank, name), window.images(w, "w", rank, name, x)
    attrs = window.attrs(name, rank, stride=stride, padding=padding, dilation=dilation)
    extra = window.attrs(name, rank, output_padding=output_padding)["output_padding"]
    if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, attrs["stride"], attrs["dilation"], strict=True)):
        raise ArgumentError(f"{name}: output_padding must be less than stride or dilation; got {output_padding!r}")
    axes = zip(x.shape[2:], w.shape[2:], *attrs.values(), extra, strict=True)
    size = tuple((n - 1) * s - 2 * p + window.span(k, d) + e for n, k, s, p, d, e in axes)
    y: Tensor = FAMILY[max(rank, 2)].dx(x, w, size=size, **attrs, groups=groups)
    return window.without_unit_axis(y if b is None else y + as_tensor(b, x).reshape(-1, *(1 for _ in size)), rank)
