"""Running sums and products along an axis, and the product of all elements.

The gradients of products are exact at zeros too: they multiply what stands before an element with what stands after it
instead of dividing by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod as _product
from typing import Any

from dlcore.op import Op, Sample, define, sample
from dlcore.ops.join import pad
from dlcore.ops.reduce import expand_reduced, reduction, summed_dtype
from dlcore.ops.shape import axis_index, axis_tuple, permute_dims, reshape
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

Xp = Any


def _check(d: Dims, *, axis: int, **_: Any) -> Mapping[str, Any]:
    axis_index(axis, len(d.S))
    return {}


def _samples(count: int) -> Iterable[Sample]:
    for shape, axis, reverse in [((3, 5), -1, False), ((2, 3, 4), 1, True), ((1,), 0, False), ((2, 0), 1, False)]:
        yield sample(*(shape,) * count, axis=axis, reverse=reverse)


def _along_last(xp: Xp, x: Any, axis: int, reverse: bool) -> Any:
    moved = xp.moveaxis(x, axis, -1)
    return xp.flip(moved, axis=-1) if reverse else moved


def _put_back(xp: Xp, y: Any, axis: int, reverse: bool) -> Any:
    return xp.moveaxis(xp.flip(y, axis=-1) if reverse else y, -1, axis)


def _accumulate(join: str) -> Callable[..., Any]:
    """Reference of a running sum or product: after the step k each element has joined the 2**k elements up to it."""

    def reference(xp: Xp, x: Any, *, axis: int = -1, reverse: bool = False) -> Any:
        y = _along_last(xp, x, axis, reverse)
        y = y if xp.isdtype(y.dtype, "real floating") else xp.astype(y, xp.int64)
        step = 1
        while step < y.shape[-1]:
            joined = getattr(xp, join)(y[..., :-step], y[..., step:])
            y = xp.concat([y[..., :step], joined], axis=-1)
            step *= 2
        return _put_back(xp, y, axis, reverse)

    return reference


def _linear_scan(xp: Xp, a: Any, b: Any, *, axis: int = -1, reverse: bool = False) -> Any:
    a, y = (_along_last(xp, v, axis, reverse) for v in (a, b))
    step = 1
    while step < y.shape[-1]:
        late = a[..., step:]
        y = xp.concat([y[..., :step], late * y[..., :-step] + y[..., step:]], axis=-1)
        a = xp.concat([a[..., :step], late * a[..., :-step]], axis=-1)
        step *= 2
    return _put_back(xp, y, axis, reverse)


def _previous(x: Tensor, axis: int, reverse: bool, fill: float) -> Tensor:
    """For each element the one that comes before it, counted backwards if `reverse`; `fill` for the first."""
    at, n = axis_index(axis, x.ndim), x.shape[axis]
    widths = [(int(not reverse), int(reverse)) if i == at else (0, 0) for i in range(x.ndim)]
    keep = slice(1, None) if reverse else slice(0, n)
    return pad(x, widths, value=fill)[(slice(None),) * at + (keep,)]


def _linear_scan_vjp(g: Tensor, a: Tensor, y: Tensor, axis: int, reverse: bool) -> tuple[Tensor, Tensor]:
    db = linear_scan(_previous(a, axis, not reverse, 1), g, axis=axis, reverse=not reverse)
    return db * _previous(y, axis, reverse, 0), db


linear_scan: Op = define(
    "linear_scan",
    "a[S...] b[S...] -> y[S...]",
    _linear_scan,
    vjp=_linear_scan_vjp,
    infer=_check,
    flops=lambda d: 2 * d.size("S"),
    samples=lambda: _samples(2),
    doc="y[t] = a[t] * y[t - 1] + b[t] along an axis, y[-1] being 0; `reverse` runs from the end.",
)

cumsum: Op = define(
    "cumsum",
    "x[S...] -> y[S...]",
    _accumulate("add"),
    vjp={"x": lambda g, axis, reverse: cumsum(g, axis=axis, reverse=not reverse)},
    infer=_check,
    dtype=summed_dtype,
    flops=lambda d: d.size("S"),
    samples=lambda: _samples(1),
    doc="Sum of the elements up to and with each one, along an axis; `reverse` starts at the end. Ints give int64.",
)


def _cumprod_dx(g: Tensor, x: Tensor, y: Tensor, axis: int, reverse: bool) -> Tensor:
    after = linear_scan(_previous(x, axis, not reverse, 1), g, axis=axis, reverse=not reverse)
    out: Tensor = _previous(y, axis, reverse, 1) * after
    return out


cumprod: Op = define(
    "cumprod",
    "x[S...] -> y[S...]",
    _accumulate("multiply"),
    vjp={"x": _cumprod_dx},
    infer=_check,
    dtype=summed_dtype,
    flops=lambda d: d.size("S"),
    samples=lambda: _samples(1),
    doc="Product of the elements up to and with each one, along an axis; `reverse` starts at the end. Ints give int64.",
)


def _others(rows: Tensor) -> Tensor:
    """For each element the product of the others of its row."""
    before = cumprod(_previous(rows, -1, False, 1))
    after = cumprod(_previous(rows, -1, True, 1), reverse=True)
    out: Tensor = before * after
    return out


def _prod_dx(g: Tensor, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes = axis_tuple(axis, x.ndim)
    order = (*(i for i in range(x.ndim) if i not in axes), *axes)
    sizes: Shape = tuple(x.shape[i] for i in order)
    kept = sizes[: x.ndim - len(axes)]
    rows = reshape(permute_dims(x, axes=order), shape=(*kept, _product(sizes[len(kept) :])))
    others = reshape(_others(rows), shape=sizes)
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    out: Tensor = permute_dims(others, axes=back) * expand_reduced(g, x.shape, axis, keepdims)
    return out


prod = reduction(
    "prod",
    "Product over axes; ints and bools give int64.",
    {"x": _prod_dx},
    lambda xp, x, *, axis=None, keepdims=False: xp.prod(x, axis=axis, keepdims=keepdims),
    dtype=summed_dtype,
)
