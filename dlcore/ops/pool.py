"""Pooling: the largest element or the mean of sliding windows.

The functions bring attributes into one form and call the records of `pool_records.py`; 1-d pooling is 2-d with a unit
axis.
"""

from __future__ import annotations

from typing import Any

from dlcore.ops import window
from dlcore.ops.pool_records import FAMILY
from dlcore.ops.window import Sizes
from dlcore.tensor import Tensor


def max_pool1d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Largest element of each window of `x[N,C,L]`; see `max_pool2d`."""
    return _max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Largest element of each window of `x[N,C,H,W]`; returns `y[N,C,P,Q]`.

    kernel_size, stride (None: the kernel's size), padding, dilation: an int or one per axis. Padding never wins.
    ceil_mode: also count a last window that hangs over the end.
    return_indices: return `(y, i)`, i the row-major positions of the winners within H x W (the first of equals).
    Raises ShapeError where no window fits or one lies wholly in the padding, ArgumentError for bad attributes.

    >>> max_pool2d(dl.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    return _max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Largest element of each window of `x[N,C,D,H,W]`; see `max_pool2d`."""
    return _max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max_pool(
    rank: int, x: Any, kernel: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{rank}d"
    given = {"kernel": kernel, "stride": kernel if stride is None else stride, "padding": padding}
    attrs = window.attrs(name, rank, **given, dilation=dilation)
    found = FAMILY[max(rank, 2)].max(window.images(x, "x", rank, name), **attrs, ceil_mode=bool(ceil_mode))
    y, i = (window.without_unit_axis(t, rank) for t in found)
    return (y, i) if return_indices else y


def avg_pool1d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Mean of each window of `x[N,C,L]`; see `avg_pool2d`."""
    return _avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Mean of each window of `x[N,C,H,W]`; returns `y[N,C,P,Q]`.

    kernel_size, stride (None: the kernel's size), padding: an int or one per axis. ceil_mode: see `max_pool2d`.
    count_include_pad: zeros of the padding count as elements. Raises as `max_pool2d` does.

    >>> avg_pool2d(dl.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    return _avg_pool(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool3d(
    x: Any, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Mean of each window of `x[N,C,D,H,W]`; see `avg_pool2d`."""
    return _avg_pool(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def _avg_pool(
    rank: int, x: Any, kernel: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    name = f"avg_pool{rank}d"
    given = {"kernel": kernel, "stride": kernel if stride is None else stride, "padding": padding}
    switches = {"ceil_mode": bool(ceil_mode), "count_include_pad": bool(count_include_pad)}
    images = window.images(x, "x", rank, name)
    return window.without_unit_axis(
        FAMILY[max(rank, 2)].avg(images, **window.attrs(name, rank, **given), **switches), rank
    )
