"""Reductions. Axes are an int, a tuple or None (all); `keepdims` leaves size-1 axes.

Equal largest (or smallest) elements share the gradient of `max` (`min`) in equal parts. Where there is nothing to
reduce, `sum` is 0, `prod` 1, `mean` and `var` NaN, and a `max` raises ShapeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dlcore import dtypes
from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.elementwise import abs, equal, exp, nonzero_or_one, not_equal, pow, sign
from dlcore.ops.shape import astype, axis_tuple, broadcast_to, expand_reduced, where
from dlcore.signature import Dims, Shape, broadcast_shapes
from dlcore.tensor import Tensor

Xp = Any


def reduced(d: Dims, *, axis: Any, keepdims: bool, **_: Any) -> Mapping[str, Any]:
    """Output sizes of a reduction over `S...`."""
    axes = axis_tuple(axis, len(d.S))
    kept = [1 if i in axes else n for i, n in enumerate(d.S)]
    return {"R": tuple(n for i, n in enumerate(kept) if keepdims or i not in axes)}


def _nonempty(d: Dims, **attrs: Any) -> Mapping[str, Any]:
    """Output sizes of a reduction that has no value for nothing."""
    sizes = reduced(d, **attrs)
    if math.prod(d.S) == 0 and math.prod(sizes["R"]) > 0:
        raise ShapeError(f"there is no element to choose from over axis {attrs['axis']} of x{list(d.S)}")
    return sizes


def _one_axis(d: Dims, **attrs: Any) -> Mapping[str, Any]:
    if isinstance(attrs["axis"], tuple):
        raise ArgumentError(f"axis must be an int or None; got {attrs['axis']}")
    return _nonempty(d, **attrs)


def summed_dtype(promoted: Any, attrs: Mapping[str, Any]) -> Any:
    """Sums of ints and bools are int64."""
    return promoted if dtypes.kind(promoted) == "float" else dtypes.DEFAULT_INT


def _samples() -> Iterable[Sample]:
    for axis, keepdims in [(None, False), (0, True), (-1, False), ((0, 2), True)]:
        yield sample(Arr((2, 3, 5), distinct=True), axis=axis, keepdims=keepdims)
    yield sample(Arr((1, 4), distinct=True), axis=1)
    yield sample(Arr((3, 0), distinct=True), axis=0)


def _index_samples() -> Iterable[Sample]:
    return [s for s in _samples() if not isinstance(s.attrs["axis"], tuple)]


def _truth_samples() -> Iterable[Sample]:
    for axis, keepdims in [(None, False), (0, True), ((0, 2), False)]:
        yield sample(Arr((2, 3, 2), dtype="bool"), axis=axis, keepdims=keepdims)
    yield sample(Arr((1, 4), 0, 2, dtype="int64"), axis=1)
    yield sample(Arr((3, 0)), axis=1)


def reduction(
    name: str, doc: str, vjp: Any, reference: Callable[..., Any], *, kind: str = "", out: str = "", **fields: Any
) -> Op:
    """Define an op that reduces over axes. kind, out: kinds of the operand and of the output."""
    signature = f"x[S...]{':' + kind if kind else ''} -> y[R...]{':' + out if out else ''}"
    fields = {"samples": _samples, "infer": reduced, "flops": lambda d: d.size("S"), **fields}
    return define(name, signature, reference, vjp=vjp, doc=doc, **fields)


def _count(shape: Shape, axis: Any) -> int:
    """How many elements fall together."""
    return math.prod(shape[a] for a in axis_tuple(axis, len(shape)))


def _spread(g: Tensor, x_shape: Shape, axis: Any, keepdims: bool) -> Tensor:
    """A gradient of a result given to each of the elements that it came from."""
    out: Tensor = broadcast_to(expand_reduced(g, x_shape, axis, keepdims), shape=x_shape)
    return out


# ---- sums and moments


def _mean(xp: Xp, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return xp.sum(x, axis=axis, keepdims=keepdims) / _count(x.shape, axis)


def _var(xp: Xp, x: Any, *, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Any:
    off = x - _mean(xp, x, axis=axis, keepdims=True)
    return xp.sum(off * off, axis=axis, keepdims=keepdims) / _divisor(x.shape, axis, correction)


def _std(xp: Xp, x: Any, *, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Any:
    return xp.sqrt(_var(xp, x, axis=axis, keepdims=keepdims, correction=correction))


def _divisor(shape: Shape, axis: Any, correction: float) -> float:
    left = _count(shape, axis) - correction
    return left if left > 0 else 0


def _deviation(x: Tensor, axis: Any, correction: float) -> Tensor:
    """(x - mean) / (n - correction), of 16-bit floats in float32: the difference would lose their few digits."""
    wide = astype(x, dtype=dtypes.float32) if dtypes.is_half(x.dtype) else x
    off: Tensor = (wide - mean(wide, axis=axis, keepdims=True)) / _divisor(x.shape, axis, correction)
    return off


def _var_dx(g: Tensor, x: Tensor, axis: Any, keepdims: bool, correction: float) -> Tensor:
    return expand_reduced(2 * g, x.shape, axis, keepdims) * _deviation(x, axis, correction)


def _std_dx(g: Tensor, x: Tensor, y: Tensor, axis: Any, keepdims: bool, correction: float) -> Tensor:
    return _var_dx(0.5 * g / nonzero_or_one(y), x, axis, keepdims, correction)


def _moment_samples() -> Iterable[Sample]:
    return [*_samples(), sample((3, 4), axis=1, correction=1), sample((3, 4), correction=0.5)]


# fmt: off
sum = reduction("sum", "Sum over axes; ints and bools give int64.", {"x": _spread},
    lambda xp, x, *, axis=None, keepdims=False: xp.sum(x, axis=axis, keepdims=keepdims), dtype=summed_dtype)
mean: Op = reduction("mean", "Arithmetic mean over axes.",
    {"x": lambda g, x_shape, axis, keepdims: _spread(g / _count(x_shape, axis), x_shape, axis, keepdims)},
    _mean, kind="float")
var = reduction("var", "Variance over axes: squared distance from the mean, summed, over n - correction.",
    {"x": _var_dx}, _var, kind="float", flops=lambda d: 4 * d.size("S"), samples=_moment_samples)
std = reduction("std", "Standard deviation over axes, the root of `var`; the gradient of equal elements is 0.",
    {"x": _std_dx}, _std, kind="float", flops=lambda d: 4 * d.size("S"), samples=_moment_samples)
# fmt: on

# ---- largest, smallest


def _shared(g: Tensor, x: Tensor, y: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """The gradient in equal parts to the elements that equal the result."""
    chosen = astype(equal(x, expand_reduced(y, x.shape, axis, keepdims)), dtype=x.dtype)
    ties = nonzero_or_one(sum(chosen, axis=axis, keepdims=keepdims))
    out: Tensor = chosen * expand_reduced(g / ties, x.shape, axis, keepdims)
    return out


def _logsumexp(xp: Xp, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    total = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis=axis_tuple(axis, x.ndim))


def _logsumexp_dx(g: Tensor, x: Tensor, y: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """The softmax of x; 0 where everything is -inf, 1 at elements that are +inf."""
    total = expand_reduced(where(y == -math.inf, 0.0, y), x.shape, axis, keepdims)
    weight: Tensor = exp(where(equal(x, total), 0.0, x - total))
    return weight * expand_reduced(g, x.shape, axis, keepdims)


# fmt: off
max = reduction("max", "Largest element over axes; NaN where there is one.", {"x": _shared},
    lambda xp, x, *, axis=None, keepdims=False: xp.max(x, axis=axis, keepdims=keepdims), infer=_nonempty)
min = reduction("min", "Smallest element over axes; NaN where there is one.", {"x": _shared},
    lambda xp, x, *, axis=None, keepdims=False: xp.min(x, axis=axis, keepdims=keepdims), infer=_nonempty)
argmax = reduction("argmax", "Index of the first largest element along one axis (None: of all, in row-major order).",
    None, lambda xp, x, *, axis=None, keepdims=False: xp.argmax(x, axis=axis, keepdims=keepdims),
    out="int", infer=_one_axis, samples=_index_samples)
argmin = reduction("argmin", "Index of the first smallest element along one axis (None: of all, in row-major order).",
    None, lambda xp, x, *, axis=None, keepdims=False: xp.argmin(x, axis=axis, keepdims=keepdims),
    out="int", infer=_one_axis, samples=_index_samples)
logsumexp = reduction("logsumexp", "log(sum(e**x)) over axes, without overflow.", {"x": _logsumexp_dx},
    _logsumexp, kind="float", infer=_nonempty, flops=lambda d: 3 * d.size("S"))

# ---- truth

all = reduction("all", "Whether every element is true (not 0).", None,
    lambda xp, x, *, axis=None, keepdims=False: xp.all(x, axis=axis, keepdims=keepdims),
    kind="any", out="bool", samples=_truth_samples)
any = reduction("any", "Whether an element is true (not 0).", None,
    lambda xp, x, *, axis=None, keepdims=False: xp.any(x, axis=axis, keepdims=keepdims),
    kind="any", out="bool", samples=_truth_samples)
# fmt: on


def count_nonzero(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """How many elements are not 0, over axes, as int64.

    >>> count_nonzero(dl.tensor([0, 3, 5]))
    tensor(2)
    """
    out: Tensor = sum(not_equal(x, 0), axis=axis, keepdims=keepdims)
    return out


# ---- vector norms


def _power_norm(xp: Xp, x: Any, *, ord: float = 2, axis: Any = None, keepdims: bool = False) -> Any:
    return xp.sum(xp.abs(x) ** ord, axis=axis, keepdims=keepdims) ** (1 / ord)


def _norm_dx(g: Tensor, x: Tensor, y: Tensor, ord: float, axis: Any, keepdims: bool) -> Tensor:
    shape = x.shape
    share = abs(x) / expand_reduced(nonzero_or_one(y), shape, axis, keepdims)
    slope: Tensor = sign(x) * pow(share, ord - 1)
    return slope * expand_reduced(g, shape, axis, keepdims)


def _norm_sizes(d: Dims, *, ord: float, **attrs: Any) -> Mapping[str, Any]:
    if not 0 < ord < math.inf:
        raise ArgumentError(f"ord must be positive; got {ord}")
    return reduced(d, **attrs)


def _norm_samples() -> Iterable[Sample]:
    return [*_samples(), *(sample(Arr((3, 4), distinct=True), ord=p, axis=1) for p in (1, 3, 2.5))]


_norm: Op = reduction(
    "norm",
    "(sum of |x|**ord) ** (1 / ord) over axes; the gradient of a vector of zeros is 0.",
    {"x": _norm_dx},
    _power_norm,
    kind="float",
    infer=_norm_sizes,
    flops=lambda d: 3 * d.size("S"),
    samples=_norm_samples,
)


def norm(x: Tensor, ord: float = 2, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Vector norm over axes: (sum of |x|**ord) ** (1 / ord), or the largest |x| for `ord=math.inf`.

    The gradient of a vector of zeros is 0. Raises ArgumentError unless ord is positive.

    >>> norm(dl.tensor([3.0, 4.0]))
    tensor(5.)
    """
    out: Tensor
    if ord == math.inf:
        out = max(abs(x), axis=axis, keepdims=keepdims)
    else:
        out = _norm(x, ord=ord, axis=axis, keepdims=keepdims)
    return out


# ---- the adjoint of broadcasting


def _summed_to(d: Dims, *, shape: Shape) -> Mapping[str, Any]:
    if broadcast_shapes(shape, d.S) != d.S:
        raise ShapeError(f"shape {shape} does not broadcast to {d.S}")
    return {"R": tuple(shape)}


def _sum_to(xp: Any, x: Any, *, shape: Shape = ()) -> Any:
    lead = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))
    return xp.reshape(xp.sum(x, axis=axes, keepdims=True), shape) if axes else xp.reshape(x, shape)


sum_to = define(
    "sum_to",
    "x[S...] -> y[R...]",
    _sum_to,
    vjp={"x": lambda g, x_shape: broadcast_to(g, shape=x_shape)},
    infer=_summed_to,
    flops=lambda d: d.size("S"),
    samples=lambda: [sample((2, 3, 5), shape=(3, 1)), sample((4,), shape=()), sample((2, 0), shape=(1, 0))],
    doc="Sum over the axes that broadcasting `shape` to x's shape repeats: the adjoint of broadcast_to.",
)
