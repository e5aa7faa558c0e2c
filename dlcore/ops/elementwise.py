"""Element-wise ops: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dlcore.op import Arr, Op, Sample, Vjp, define, sample
from dlcore.ops.shape import where

Xp = Any


def elementwise(
    name: str,
    reference: Callable[..., Any],
    vjp: Mapping[str, Vjp] | None = None,
    *,
    operands: str = "x",
    kind: str = "",
    out: str = "",
    low: float | None = None,
    high: float | None = None,
    doc: str = "",
    **fields: Any,
) -> Op:
    """Define an op that maps each element (of broadcast operands) to one.

    kind: of the operands ("float" turns ints into float32). out: kind of the output ("bool" for comparisons).
    low, high: the domain from which samples are drawn.
    """
    suffix = f":{kind}" if kind else ""
    left = " ".join(f"{o}[...]{suffix}" for o in operands.split())
    signature = f"{left} -> y[...]{':' + out if out else ''}"
    count = len(operands.split())
    fields.setdefault("samples", lambda: _samples(count, low, high))
    fields.setdefault("flops", lambda d: d.size())
    return define(name, signature, reference, vjp=vjp, doc=doc, **fields)


_SHAPES: dict[int, Any] = {
    1: [((3, 5),), ((),), ((0, 3),), ((1,),), ((2, 1, 33),)],
    2: [((3, 5), (3, 5)), ((3, 5), (5,)), ((3, 1), (1, 4)), ((), (2,)), ((0, 3), (3,)), ((2, 1, 33), (4, 1))],
}


def _samples(count: int, low: float | None, high: float | None) -> Iterable[Sample]:
    return [sample(*(Arr(s, low, high, distinct=count == 1) for s in shapes)) for shapes in _SHAPES[count]]


def _binary(name: str, reference: Callable[..., Any], vjp: Mapping[str, Vjp] | None = None, **fields: Any) -> Op:
    return elementwise(name, reference, vjp, operands="x1 x2", **fields)


def _compare(name: str, reference: Callable[..., Any], doc: str) -> Op:
    return _binary(name, reference, out="bool", doc=doc)


# fmt: off
add      = _binary("add", lambda xp, x1, x2: xp.add(x1, x2), {"x1": lambda g: g, "x2": lambda g: g}, doc="x1 + x2.")
subtract = _binary("subtract", lambda xp, x1, x2: xp.subtract(x1, x2), {"x1": lambda g: g, "x2": lambda g: -g}, doc="x1 - x2.")  # noqa: E501
multiply = _binary("multiply", lambda xp, x1, x2: xp.multiply(x1, x2), {"x1": lambda g, x2: g * x2, "x2": lambda g, x1: g * x1}, doc="x1 * x2.")  # noqa: E501
divide   = _binary("divide", lambda xp, x1, x2: xp.divide(x1, x2), {"x1": lambda g, x2: g / x2, "x2": lambda g, y, x2: -g * y / x2}, kind="float", low=0.5, high=2.0, doc="x1 / x2.")  # noqa: E501

less     = _compare("less", lambda xp, x1, x2: xp.less(x1, x2), doc="x1 < x2.")
greater  = _compare("greater", lambda xp, x1, x2: xp.greater(x1, x2), doc="x1 > x2.")
equal    = _compare("equal", lambda xp, x1, x2: xp.equal(x1, x2), doc="x1 == x2.")

negative = elementwise("negative", lambda xp, x: xp.negative(x), {"x": lambda g: -g}, doc="-x.")
exp      = elementwise("exp", lambda xp, x: xp.exp(x), {"x": lambda g, y: g * y}, kind="float", doc="e**x.")
log      = elementwise("log", lambda xp, x: xp.log(x), {"x": lambda g, x: g / x}, kind="float", low=0.1, high=4.0, doc="Natural logarithm.")  # noqa: E501
tanh     = elementwise("tanh", lambda xp, x: xp.tanh(x), {"x": lambda g, y: g * (1 - y * y)}, kind="float", doc="Hyperbolic tangent.")  # noqa: E501
relu     = elementwise("relu", lambda xp, x: xp.where(x > 0, x, xp.zeros_like(x)), {"x": lambda g, y: where(y > 0, g, 0.0)}, doc="max(x, 0); the derivative at 0 is 0.")  # noqa: E501
# fmt: on
