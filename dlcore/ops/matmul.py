"""Matrix products: `matmul`, `linear` and what reduces to them (`einsum` has its own file)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import OPS, Op, Sample, define, sample
from dlcore.ops.reduce import sum
from dlcore.ops.shape import axis_tuple
from dlcore.signature import Dims
from dlcore.tensor import Tensor

ACTIVATIONS = ("none", "relu", "gelu", "tanh", "sigmoid")


def rows(x: Tensor) -> Tensor:
    """All leading axes of `x[..., K]` as one."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _matmul_da(g: Tensor, b: Tensor) -> Tensor:
    if b.ndim > 2 or g.ndim == 2:
        return g @ b.mT
    return (rows(g) @ b.mT).reshape(*g.shape[:-1], b.shape[0])


def _matmul_db(g: Tensor, a: Tensor, b_shape: tuple[int, ...]) -> Tensor:
    shared = len(b_shape) == 2 and g.ndim > 2 and a.ndim == g.ndim  # one matrix for the whole batch: a single product
    return rows(a).mT @ rows(g) if shared else a.mT @ g


_matmul: Op = define(
    "matmul",
    "a[...,M,K] b[...,K,N] -> y[...,M,N]",
    lambda xp, a, b: xp.matmul(a, b),
    vjp={"a": _matmul_da, "b": _matmul_db},
    flops=lambda d: 2 * d.size() * d.M * d.K * d.N,
    samples=lambda: [
        sample((3, 5), (5, 4)), sample((2, 1, 3, 5), (4, 5, 2)), sample((1, 1), (1, 1)), sample((0, 3), (3, 2)),
        sample((3, 0), (0, 2)), sample((33, 17), (17, 65)), sample((2, 3, 4), (4, 5)), sample((3, 4), (2, 4, 1)),
        sample((2, 3, 0), (0, 5)),
    ],
    doc="Matrix product over the last two axes; the others broadcast.",
)  # fmt: skip


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product of `a[..., M, K]` and `b[..., K, N]`; a vector counts as a row (left) or a column (right).

    Leading axes broadcast. Raises ShapeError for scalars and for inner sizes that differ.

    >>> matmul(dl.ones((2, 3)), dl.ones((3, 4))).shape
    (2, 4)
    """
    left, right = (x.ndim if isinstance(x, Tensor) else np.ndim(x) for x in (a, b))
    if left == 0 or right == 0:
        raise ShapeError("matmul: a scalar is no matrix; use a * b")
    y: Tensor = _matmul(_reshaped(a, (1, -1)) if left == 1 else a, _reshaped(b, (-1, 1)) if right == 1 else b)
    if left > 1 and right > 1:
        return y
    kept = y.shape[:-2] + (() if left == 1 else y.shape[-2:-1]) + (() if right == 1 else y.shape[-1:])
    return y.reshape(kept)


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape) if isinstance(x, Tensor) else np.reshape(x, shape)


Tensor.__matmul__ = matmul  # type: ignore[method-assign]
Tensor.__rmatmul__ = lambda b, a: matmul(a, b)  # type: ignore[method-assign]


def _linear(xp: Any, x: Any, w: Any, b: Any = None, *, activation: str = "none") -> Any:
    y = xp.matmul(x, xp.permute_dims(w, (1, 0)))
    y = y if b is None else y + b
    return y if activation == "none" else OPS[activation].reference(xp, y, **OPS[activation].attrs)


def _known_activation(d: Dims, *, activation: str) -> Dims:
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"unknown activation {activation!r}; expected one of {', '.join(ACTIVATIONS)}")
    return Dims()


def _before_activation(g: Tensor, x: Tensor, w: Tensor, b: Tensor | None, y: Tensor | None, activation: str) -> Tensor:
    """Gradient of the activation's operand, by the activation's own rule; recomputes that operand if the rule asks."""
    record = OPS[activation]
    rule = record.gradient_rules[0]
    sources: dict[str, Any] = {"grad": lambda _: g, "output": lambda _: y, "attr": lambda name: record.attrs[name]}
    sources["input"] = lambda _: linear(x, w, b)
    found: Tensor = rule.fn(*[sources[source](key) for source, key in rule.needs])
    return found


def _unused(*, activation: str) -> tuple[str, ...]:
    """The result is looked at only by the rule of an activation that asks for it."""
    return () if activation != "none" and OPS[activation].gradient_rules[0].outputs else ("y",)


def _linear_vjp(
    g: Tensor, x: Tensor, w: Tensor, b: Tensor | None, y: Tensor | None, activation: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    if activation != "none":
        g = _before_activation(g, x, w, b, y, activation)
    return linear_gradients(g, x, w, needs)


def linear_gradients(g: Tensor, x: Tensor, w: Tensor, needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Those of `x @ w.T + b` for x, w and b, as far as they are needed, from that of the result."""
    flat = rows(g)
    dx = (flat @ w).reshape(x.shape) if needs[0] else None
    dw = flat.mT @ rows(x) if needs[1] else None
    db = sum(flat, axis=0) if needs[2] else None
    return dx, dw, db


def _linear_samples() -> list[Sample]:
    plain = [sample((3, 5), (4, 5), (4,)), sample((2, 3, 5), (4, 5)), sample((5,), (2, 5), (2,))]
    edge = [sample((1, 1), (1, 1), (1,)), sample((0, 3), (2, 3)), sample((2, 0), (3, 0), (3,))]
    fused = [sample((2, 5), (3, 5), (3,), activation=a) for a in ACTIVATIONS[1:] if a in OPS]
    return plain + edge + fused


linear: Op = define(
    "linear",
    "x[...,I] w[O,I] b[O]? -> y[...,O]",
    _linear,
    vjp=_linear_vjp,
    infer=_known_activation,
    unused=_unused,
    flops=lambda d: 2 * d.size() * d.I * d.O,
    samples=_linear_samples,
    doc="x @ w.T + b, then an activation: none, relu, gelu, tanh or sigmoid.",
)


def tensordot(a: Tensor, b: Tensor, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Sum of products over pairs of axes, as one matrix product.

    axes: how many last axes of `a` meet first axes of `b`, or the two lists of axes. The result has the remaining
    axes of `a`, then those of `b`. Raises ShapeError where paired sizes differ.

    >>> tensordot(dl.ones((2, 3, 4)), dl.ones((3, 4, 5))).shape
    (2, 5)
    """
    if isinstance(axes, int):
        axes = range(a.ndim - axes, a.ndim), range(axes)
    left, right = axis_tuple(tuple(axes[0]), a.ndim), axis_tuple(tuple(axes[1]), b.ndim)
    if [a.shape[i] for i in left] != [b.shape[i] for i in right]:
        raise ShapeError(f"tensordot: axes {left} of a{list(a.shape)} do not fit axes {right} of b{list(b.shape)}")
    rest_a = [i for i in range(a.ndim) if i not in left]
    rest_b = [i for i in range(b.ndim) if i not in right]
    inner = prod(a.shape[i] for i in left)
    shape_a, shape_b = tuple(a.shape[i] for i in rest_a), tuple(b.shape[i] for i in rest_b)
    flat_a = a.permute(*rest_a, *left).reshape(prod(shape_a), inner)
    flat_b = b.permute(*right, *rest_b).reshape(inner, prod(shape_b))
    return (flat_a @ flat_b).reshape(shape_a + shape_b)


def vecdot(a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
    """Sum of the products along one axis; the others broadcast.

    >>> vecdot(dl.ones((2, 3)), dl.ones(3))
    tensor([3., 3.])
    """
    return (a * b).sum(axis=axis)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """Products of all pairs of elements of two vectors, `[M]` and `[N]` giving `[M, N]`."""
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"outer: expected a[M] b[N]; got a{list(a.shape)} b{list(b.shape)}")
    return a.reshape(-1, 1) * b
