"""Normalisations: x less its mean, over its deviation, along some axes; then an optional scale and bias.

Variances are biased (divided by n) and computed in two passes. Each gradient is one op, so that one kernel can do it;
its formula is the same for all of them, see `_unnormalise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import Arr, Op, Sample, define, sample
from dlcore.ops.derive import define_derived
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor

Axes = tuple[int, ...]
TAME = {"eps": 0.5}
"""Keeps second gradients of samples in range, which grow with the third power of the deviation's inverse."""


def _mean(xp: Any, x: Any, axes: Axes) -> Any:
    return xp.sum(x, axis=axes, keepdims=True) / max(prod(x.shape[a] for a in axes), 1)


def _normalise(xp: Any, x: Any, axes: Axes, eps: float, centre: bool = True) -> tuple[Any, Any]:
    """Normalised x, and what it was multiplied with: 1 / sqrt(variance + eps)."""
    z = x - _mean(xp, x, axes) if centre else x
    rate = 1 / xp.sqrt(_mean(xp, z * z, axes) + eps)
    return z * rate, rate


def _unnormalise(xp: Any, dz: Any, z: Any, rate: Any, axes: Axes, centre: bool = True) -> Any:
    """Gradient of `_normalise` for x from that of its result z: dz less its components along 1 and z, times rate.

    Ioffe and Szegedy, "Batch Normalization" (2015), section 3.
    """
    along = dz - z * _mean(xp, dz * z, axes)
    return rate * (along - _mean(xp, dz, axes) if centre else along)


def _apply(y: Any, scale: Any, bias: Any) -> Any:
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def _gradients(
    xp: Any, dy: Any, z: Any, rate: Any, scale: Any, axes: Axes, others: Axes, centre: bool = True
) -> tuple[Any, Any, Any]:
    """Gradients of `z * scale + bias` for x, scale and bias.

    z: x normalised along `axes`. others: the axes over which scale and bias repeat.
    """
    dx = _unnormalise(xp, _apply(dy, scale, None), z, rate, axes, centre)
    return dx, xp.sum(dy * z, axis=others), xp.sum(dy, axis=others)


def _per_channel(xp: Any, v: Any, rank: int) -> Any:
    """`v[C]` in the shape that lines up with `x[N,C,...]`."""
    return None if v is None else xp.reshape(v, (v.shape[0], *(1,) * (rank - 2)))


def _but_channel(rank: int) -> Axes:
    return (0, *range(2, rank))


# ---- batch norm


def _batch_norm(xp: Any, x: Any, scale: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    axes, c = _but_channel(x.ndim), x.shape[1]
    mean = _mean(xp, x, axes)
    var = _mean(xp, (x - mean) * (x - mean), axes)
    y = (x - mean) / xp.sqrt(var + eps)
    scale, bias = _per_channel(xp, scale, x.ndim), _per_channel(xp, bias, x.ndim)
    return _apply(y, scale, bias), xp.reshape(mean, (c,)), xp.reshape(var, (c,))


def _batch_norm_grad(
    xp: Any, dy: Any, dmean: Any, dvar: Any, x: Any, scale: Any, mean: Any, var: Any, *, eps: float = 1e-5
) -> Any:
    axes, count = _but_channel(x.ndim), x.shape[0] * prod(x.shape[2:])
    scale, mean, var, dmean, dvar = (_per_channel(xp, v, x.ndim) for v in (scale, mean, var, dmean, dvar))
    rate = 1 / xp.sqrt(var + eps)
    z = (x - mean) * rate
    dx, dscale, dbias = _gradients(xp, dy, z, rate, scale, axes, axes)
    return dx + (dmean + 2 * dvar * (x - mean)) / max(count, 1), dscale, dbias


def _batch_norm_inference(xp: Any, x: Any, mean: Any, var: Any, scale: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    mean, var, scale, bias = (_per_channel(xp, v, x.ndim) for v in (mean, var, scale, bias))
    return _apply((x - mean) / xp.sqrt(var + eps), scale, bias)


def _batch_norm_samples() -> Iterable[Sample]:
    yield sample((4, 3, 2), (3,), (3,))
    yield sample((3, 2, 2, 3), None, (2,), eps=0.1)
    yield sample((5, 2), (2,), None, eps=0.5)
    yield sample((2, 0, 3), (0,), (0,))


def _batch_norm_grad_samples() -> Iterable[Sample]:
    for s in _batch_norm_samples():
        x = s.operands[0]
        c = (x[1],)
        yield sample(x, c, c, x, None if len(x) == 4 else c, c, _variance(c), **TAME)


def _variance(shape: Shape) -> Any:
    return Arr(shape, 0.5, 2.0)


batch_norm: Op = define(
    "batch_norm",
    "x[N,C,S...]:float scale[C]:float? bias[C]:float? -> y[N,C,S...] mean[C] var[C]",
    _batch_norm,
    vjp=lambda g_y, g_mean, g_var, x, scale, mean, var, eps: batch_norm_grad(
        g_y, g_mean, g_var, x, scale, mean, var, eps=eps
    ),
    flops=lambda d: 8 * d.N * d.C * d.size("S"),
    samples=_batch_norm_samples,
    doc="Each channel of a batch to mean 0 and variance 1; also returns its mean and biased variance.",
)

batch_norm_grad: Op = define_derived(
    "batch_norm_grad",
    "dy[N,C,S...]:float dmean[C]:float dvar[C]:float x[N,C,S...]:float scale[C]:float? mean[C]:float var[C]:float "
    "-> dx[N,C,S...] dscale[C] dbias[C]",
    _batch_norm_grad,
    flops=lambda d: 12 * d.N * d.C * d.size("S"),
    samples=_batch_norm_grad_samples,
    doc="Gradient of batch_norm for x, scale and bias, from those of its three outputs.",
)

batch_norm_inference: Op = define_derived(
    "batch_norm_inference",
    "x[N,C,S...]:float mean[C]:float var[C]:float scale[C]:float? bias[C]:float? -> y[N,C,S...]",
    _batch_norm_inference,
    flops=lambda d: 2 * d.N * d.C * d.size("S"),
    samples=lambda: [
        sample((2, 3, 4), (3,), _variance((3,)), (3,), (3,)),
        sample((2, 1, 2, 2), (1,), _variance((1,)), None, (1,), eps=0.1),
        sample((0, 2), (2,), _variance((2,)), (2,), None),
    ],
    doc="batch_norm with given (running) statistics.",
)


# ---- layer norm and RMS norm: over the last axis


def _layer_norm(xp: Any, x: Any, scale: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    return _apply(_normalise(xp, x, (x.ndim - 1,), eps)[0], scale, bias)


def _layer_norm_grad(xp: Any, dy: Any, x: Any, scale: Any, *, eps: float = 1e-5) -> Any:
    axes, rows = (x.ndim - 1,), tuple(range(x.ndim - 1))
    return _gradients(xp, dy, *_normalise(xp, x, axes, eps), scale, axes, rows)


def _rms_norm(xp: Any, x: Any, scale: Any, *, eps: float = 1e-5) -> Any:
    return _apply(_normalise(xp, x, (x.ndim - 1,), eps, centre=False)[0], scale, None)


def _rms_norm_grad(xp: Any, dy: Any, x: Any, scale: Any, *, eps: float = 1e-5) -> Any:
    axes, rows = (x.ndim - 1,), tuple(range(x.ndim - 1))
    return _gradients(xp, dy, *_normalise(xp, x, axes, eps, centre=False), scale, axes, rows, centre=False)[:2]


_ROWS: list[tuple[Shape, bool, dict[str, Any]]] = [
    ((3, 5), True, {}), ((2, 1, 7), False, {"eps": 0.1}), ((4,), True, {}), ((1, 1), True, {"eps": 0.5}),
    ((0, 3), True, {}),
]  # fmt: skip

_layer_norm_op: Op = define(
    "layer_norm",
    "x[S...,D]:float scale[D]:float? bias[D]:float? -> y[S...,D]",
    _layer_norm,
    vjp=lambda g, x, scale, eps: layer_norm_grad(g, x, scale, eps=eps),
    flops=lambda d: 8 * d.size("S") * d.D,
    samples=lambda: [sample(x, x[-1:] if full else None, x[-1:], **a) for x, full, a in _ROWS],
    doc="Each row of the last axis to mean 0 and variance 1, then scale and bias. See `dl.layer_norm`.",
)

layer_norm_grad: Op = define_derived(
    "layer_norm_grad",
    "dy[S...,D]:float x[S...,D]:float scale[D]:float? -> dx[S...,D] dscale[D] dbias[D]",
    _layer_norm_grad,
    flops=lambda d: 14 * d.size("S") * d.D,
    samples=lambda: [sample(x, x, x[-1:] if full else None, **{**a, **TAME}) for x, full, a in _ROWS],
    doc="Gradient of layer_norm for x, scale and bias; computes the statistics again.",
)

_rms_norm_op: Op = define(
    "rms_norm",
    "x[S...,D]:float scale[D]:float? -> y[S...,D]",
    _rms_norm,
    vjp=lambda g, x, scale, eps: rms_norm_grad(g, x, scale, eps=eps),
    flops=lambda d: 5 * d.size("S") * d.D,
    samples=lambda: [sample(x, x[-1:] if full else None, **a) for x, full, a in _ROWS],
    doc="Each row of the last axis over its root mean square, then scale. See `dl.rms_norm`.",
)

rms_norm_grad: Op = define_derived(
    "rms_norm_grad",
    "dy[S...,D]:float x[S...,D]:float scale[D]:float? -> dx[S...,D] dscale[D]",
    _rms_norm_grad,
    flops=lambda d: 10 * d.size("S") * d.D,
    samples=lambda: [sample(x, x, x[-1:] if full else None, **{**a, **TAME}) for x, full, a in _ROWS],
    doc="Gradient of rms_norm for x and scale.",
)


def layer_norm(
    x: Tensor, scale: Any = None, bias: Any = None, *, normalized_shape: int | Sequence[int] | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise over the last axes to mean 0 and variance 1, then multiply by `scale` and add `bias`.

    normalized_shape: sizes of those axes, which scale and bias have too; None means scale's shape, or the last axis.
    Raises ShapeError where they are not the last sizes of x. Ba et al., "Layer Normalization" (2016).

    >>> layer_norm(dl.tensor([[1.0, 3.0]]), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    shape = _trailing("layer_norm", x, scale, normalized_shape)
    y: Tensor = _layer_norm_op(_flat(x, shape), _row(scale, shape), _row(bias, shape), eps=eps)
    return y.reshape(x.shape)


def rms_norm(
    x: Tensor, scale: Any = None, *, normalized_shape: int | Sequence[int] | None = None, eps: float = 1e-5
) -> Tensor:
    """Divide by the root mean square over the last axes, then multiply by `scale`; attributes as for `layer_norm`.

    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

    >>> rms_norm(dl.tensor([[3.0, 3.0]]), eps=0.0).tolist()
    [[1.0, 1.0]]
    """
    shape = _trailing("rms_norm", x, scale, normalized_shape)
    y: Tensor = _rms_norm_op(_flat(x, shape), _row(scale, shape), eps=eps)
    return y.reshape(x.shape)


def _trailing(name: str, x: Tensor, scale: Any, normalized_shape: int | Sequence[int] | None) -> Shape:
    if normalized_shape is None:
        shape: Shape = x.shape[-1:] if scale is None else scale.shape
    else:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name}: normalized shape {shape} is not the end of x's shape {x.shape}")
    return shape


def _flat(x: Tensor, shape: Shape) -> Tensor:
    return x if len(shape) == 1 else x.reshape(*x.shape[: -len(shape)], prod(shape))


def _row(v: Tensor | None, shape: Shape) -> Tensor | None:
    if v is None or len(shape) == 1:
        return v
    if v.shape != shape:
        raise ShapeError(f"layer_norm: scale and bias must have the normalized shape {shape}; got {v.shape}")
    return v.reshape(prod(shape))


# ---- group norm


def _in_groups(xp: Any, x: Any, groups: int) -> Any:
    """`x[N,C,S...]` as `[N,G,C/G*S]`."""
    n, c = x.shape[:2]
    return xp.reshape(x, (n, groups, c // groups * prod(x.shape[2:])))


def _group_norm(xp: Any, x: Any, scale: Any, bias: Any, *, groups: int = 1, eps: float = 1e-5) -> Any:
    z = xp.reshape(_normalise(xp, _in_groups(xp, x, groups), (2,), eps)[0], x.shape)
    return _apply(z, _per_channel(xp, scale, x.ndim), _per_channel(xp, bias, x.ndim))


def _group_norm_grad(xp: Any, dy: Any, x: Any, scale: Any, *, groups: int = 1, eps: float = 1e-5) -> Any:
    z, rate = _normalise(xp, _in_groups(xp, x, groups), (2,), eps)
    dz = _in_groups(xp, _apply(dy, _per_channel(xp, scale, x.ndim), None), groups)
    dx = xp.reshape(_unnormalise(xp, dz, z, rate, (2,)), x.shape)
    axes = _but_channel(x.ndim)
    return dx, xp.sum(dy * xp.reshape(z, x.shape), axis=axes), xp.sum(dy, axis=axes)


def _check_groups(d: Dims, *, groups: int, **_: Any) -> dict[str, Any]:
    if groups < 1 or d.C % groups:
        raise ArgumentError(f"{d.C} channels do not split into {groups} groups")
    return {}


_GROUPS: list[tuple[Shape, bool, dict[str, Any]]] = [
    ((2, 4, 3), True, {"groups": 2}), ((1, 6, 2, 2), False, {"groups": 3, "eps": 0.1}),
    ((2, 3, 4), True, {"groups": 3}), ((2, 1, 2), True, {"eps": 0.5}), ((0, 2, 3), True, {}),
]  # fmt: skip

group_norm: Op = define(
    "group_norm",
    "x[N,C,S...]:float scale[C]:float? bias[C]:float? -> y[N,C,S...]",
    _group_norm,
    vjp=lambda g, x, scale, attrs: group_norm_grad(g, x, scale, **attrs),
    infer=_check_groups,
    flops=lambda d: 8 * d.N * d.C * d.size("S"),
    samples=lambda: [sample(x, x[1:2] if full else None, x[1:2], **a) for x, full, a in _GROUPS],
    doc="Each of `groups` groups of channels of each example to mean 0 and variance 1, then scale and bias by channel. "
    'Wu and He, "Group Normalization" (2018).',
)

group_norm_grad: Op = define_derived(
    "group_norm_grad",
    "dy[N,C,S...]:float x[N,C,S...]:float scale[C]:float? -> dx[N,C,S...] dscale[C] dbias[C]",
    _group_norm_grad,
    infer=_check_groups,
    flops=lambda d: 14 * d.N * d.C * d.size("S"),
    samples=lambda: [sample(x, x, x[1:2] if full else None, **{**a, **TAME}) for x, full, a in _GROUPS],
    doc="Gradient of group_norm for x, scale and bias; computes the statistics again.",
)


def instance_norm(x: Tensor, scale: Any = None, bias: Any = None, *, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each example of `x[N,C,...]`: `group_norm` with as many groups as channels.

    >>> instance_norm(dl.ones((2, 3, 4))).shape
    (2, 3, 4)
    """
    y: Tensor = group_norm(x, scale, bias, groups=x.shape[1], eps=eps)
    return y
