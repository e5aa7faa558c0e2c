"""Element-wise arithmetic, comparison and mathematical functions: about one line each.

Operands broadcast. Gradients at the points where a function has none: 0 for `sign`, rounding functions and `abs` at 0;
`maximum` and `minimum` of equal operands give half to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log as _ln
from math import pi
from math import sqrt as _root
from typing import Any

import numpy as np

from dlcore import dtypes
from dlcore.creation import full, zeros_like
from dlcore.errors import ArgumentError, DTypeError
from dlcore.op import OPS, Arr, Op, Sample, Vjp, define, sample
from dlcore.ops.shape import where
from dlcore.tensor import Tensor

Xp = Any
Vjps = Mapping[str, Vjp] | None
Reference = Callable[..., Any] | None


def elementwise(
    name: str,
    doc: str,
    vjp: Vjps = None,
    reference: Reference = None,
    *,
    operands: str = "x",
    kind: str = "",
    out: str = "",
    low: float | None = None,
    high: float | None = None,
    attrs: Sequence[Mapping[str, Any]] = (),
    **fields: Any,
) -> Op:
    """Define an op that maps each element (of broadcast operands) to one.

    reference: None takes the array-API function of the same name.
    kind: of the operands ("float" turns ints into float32). out: kind of the output ("bool" for comparisons).
    low, high: the domain from which samples are drawn. attrs: attributes of further samples.
    """
    suffix = f":{kind}" if kind else ""
    left = " ".join(f"{o}[...]{suffix}" for o in operands.split())
    signature = f"{left} -> y[...]{':' + out if out else ''}"
    count = len(operands.split())
    fields.setdefault("samples", lambda: _samples(count, low, high, attrs))
    fields.setdefault("flops", lambda d: d.size())
    return define(name, signature, reference or _same_name(name), vjp=vjp, doc=doc, **fields)


def _same_name(name: str) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays)


_SHAPES: dict[int, Any] = {
    1: [((2, 1, 33),), ((),), ((0, 3),)],
    2: [((3, 5), (3, 5)), ((), (2,)), ((0, 3), (3,)), ((2, 1, 33), (4, 1))],
    3: [((3, 5), (5,), (3, 1)), ((), (2,), (2,)), ((0, 3), (3,), ())],
}


def _samples(
    count: int, low: float | None, high: float | None, attrs: Sequence[Mapping[str, Any]] = ()
) -> Iterable[Sample]:
    def operands(shapes: Any) -> list[Arr]:
        return [Arr(s, low, high, distinct=count == 1) for s in shapes]

    plain = [sample(*operands(shapes)) for shapes in _SHAPES[count]]
    return plain + [sample(*operands(_SHAPES[count][0]), **more) for more in attrs]


def binary(name: str, doc: str, vjp: Vjps = None, reference: Reference = None, **fields: Any) -> Op:
    """Define an op of two broadcast operands x1 and x2."""
    return elementwise(name, doc, vjp, reference, operands="x1 x2", **fields)


def _predicate(name: str, doc: str, operands: str = "x", **fields: Any) -> Op:
    return elementwise(name, doc, operands=operands, out="bool", **fields)


def _refuse(name: str, refused: str) -> Callable[..., Any]:
    """A dtype rule that keeps the promoted dtype and refuses one kind."""

    def rule(promoted: Any, attrs: Mapping[str, Any]) -> Any:
        if dtypes.kind(promoted) == refused:
            raise DTypeError(f"{name}: takes no {refused} operands; got {promoted}")
        return promoted

    return rule


def like(value: Any, y: Tensor) -> Tensor:
    """A Python scalar as a tensor of y's dtype and device; a tensor as it is."""
    return value if isinstance(value, Tensor) else full((), value, y.dtype, y.device)


def _flat(g: Tensor) -> Tensor:
    """Gradient of a function that is constant between jumps."""
    return zeros_like(g)


def nonzero_or_one(x: Tensor) -> Tensor:
    """`x` with zeros replaced by ones: a safe divisor."""
    out: Tensor = where(x == 0, 1.0, x)
    return out


# fmt: off

# ---- arithmetic

add = binary("add", "x1 + x2.", {"x1": lambda g: g, "x2": lambda g: g})
subtract = binary("subtract", "x1 - x2.", {"x1": lambda g: g, "x2": lambda g: -g}, dtype=_refuse("subtract", "bool"))
multiply = binary("multiply", "x1 * x2.", {"x1": lambda g, x2: g * x2, "x2": lambda g, x1: g * x1})
divide = binary("divide", "x1 / x2; ints give floats.",
    {"x1": lambda g, x2: g / x2, "x2": lambda g, y, x2: -g * y / x2}, kind="float", low=0.5, high=2.0)
floor_divide: Op = binary("floor_divide", "Largest whole number not above x1 / x2; its gradient is 0.",
    {"x1": _flat, "x2": _flat}, low=0.5, high=4.0)
remainder = binary("remainder", "x1 - x2 * floor(x1 / x2): it has the sign of x2.",
    {"x1": lambda g: g, "x2": lambda g, x1, x2: -g * floor_divide(x1, x2)}, low=0.5, high=4.0)
negative = elementwise("negative", "-x.", {"x": lambda g: -g}, dtype=_refuse("negative", "bool"))
positive = elementwise("positive", "x.", {"x": lambda g: g}, dtype=_refuse("positive", "bool"))
abs = elementwise("abs", "Absolute value.", {"x": lambda g, x: g * sign(x)})
sign: Op = elementwise("sign", "-1, 0 or 1; NaN of NaN.", {"x": _flat}, dtype=_refuse("sign", "bool"))
copysign = binary("copysign", "Magnitude of x1 with the sign of x2 (a zero's sign counts).",
    {"x1": lambda g, x1, y: g * (sign(x1) * sign(y)), "x2": _flat}, kind="float")
reciprocal = elementwise("reciprocal", "1 / x.", {"x": lambda g, y: -g * y * y}, kind="float", low=0.5, high=2.0)
square = elementwise("square", "x * x.", {"x": lambda g, x: g * (2 * x)})
lerp = elementwise("lerp", "start + weight * (end - start).",
    {"start": lambda g, weight: g * (1 - weight), "end": lambda g, weight: g * weight,
     "weight": lambda g, start, end: g * (end - start)},
    lambda xp, start, end, weight: start + weight * (end - start), operands="start end weight", kind="float")

# ---- comparison and bounds


def _winner(g: Tensor, mine: Any, other: Any, wins: Tensor) -> Tensor:
    """Gradient of the operand `mine` of maximum or minimum."""
    out: Tensor = where(equal(mine, other), 0.5 * g, where(wins, g, 0.0))
    return out


equal = _predicate("equal", "x1 == x2.", "x1 x2")
not_equal = _predicate("not_equal", "x1 != x2.", "x1 x2")
less = _predicate("less", "x1 < x2.", "x1 x2")
less_equal = _predicate("less_equal", "x1 <= x2.", "x1 x2")
greater = _predicate("greater", "x1 > x2.", "x1 x2")
greater_equal = _predicate("greater_equal", "x1 >= x2.", "x1 x2")
isnan = _predicate("isnan", "Whether x is NaN.")
isinf = _predicate("isinf", "Whether x is infinite.")
isfinite = _predicate("isfinite", "Whether x is neither infinite nor NaN.")
signbit = _predicate("signbit", "Whether the sign bit is set (true for -0.0).", kind="float")
maximum = binary("maximum", "The larger of x1 and x2; NaN where either is.",
    {"x1": lambda g, x1, x2: _winner(g, x1, x2, greater(x1, x2)),
     "x2": lambda g, x1, x2: _winner(g, x2, x1, greater(x2, x1))})
minimum: Op = binary("minimum", "The smaller of x1 and x2; NaN where either is.",
    {"x1": lambda g, x1, x2: _winner(g, x1, x2, less(x1, x2)),
     "x2": lambda g, x1, x2: _winner(g, x2, x1, less(x2, x1))})


def _bounded(xp: Xp, x: Any, min: Any, max: Any) -> Any:
    raised = x if min is None else xp.where(x < min, min, x)
    return raised if max is None else xp.where(raised > max, max, raised)


_clip: Op = define(
    "clip", "x[...] min[...]? max[...]? -> y[...]", _bounded,
    vjp={
        "x": lambda g, x, y: where(equal(x, y), g, 0.0),
        "min": lambda g, x, min: where(less(x, min), g, 0.0),
        "max": lambda g, x, max: where(greater(x, max), g, 0.0),
    },
    flops=lambda d: 2 * d.size(),
    samples=lambda: [
        sample((3, 5), Arr((5,), -1.0, -0.5), Arr((), 0.5, 1.0)), sample((2, 1, 33), Arr((), -1.0, 1.0), None),
        sample((4,), None, Arr((2, 1), -1.0, 1.0)), sample((1,), None, None), sample((0, 3), (3,), None),
    ],
    doc="x bounded by min and max (either may be None); the gradient passes where x lies within, bounds included.",
)

# ---- rounding: the gradient is 0

floor = elementwise("floor", "Largest whole number not above x.", {"x": _flat})
ceil = elementwise("ceil", "Smallest whole number not below x.", {"x": _flat})
trunc = elementwise("trunc", "x without its fraction.", {"x": _flat})
round = elementwise("round", "Nearest whole number; halves go to the even one.", {"x": _flat})

# ---- exponentials and logarithms

exp: Op = elementwise("exp", "e**x.", {"x": lambda g, y: g * y}, kind="float")
expm1 = elementwise("expm1", "e**x - 1, accurate near 0.", {"x": lambda g, x: g * exp(x)}, kind="float")
log: Op = elementwise("log", "Natural logarithm.", {"x": lambda g, x: g / x}, kind="float", low=0.1, high=4.0)
log1p = elementwise("log1p", "log(1 + x), accurate near 0.",
    {"x": lambda g, x: g / (1 + x)}, kind="float", low=-0.5, high=4.0)
log2 = elementwise("log2", "Logarithm to base 2.",
    {"x": lambda g, x: g / (x * _ln(2))}, kind="float", low=0.1, high=4.0)
log10 = elementwise("log10", "Logarithm to base 10.",
    {"x": lambda g, x: g / (x * _ln(10))}, kind="float", low=0.1, high=4.0)


def _share(x1: Any, x2: Any) -> Tensor:
    """e**x1 / (e**x1 + e**x2), one half where both are the same infinity."""
    out: Tensor = OPS["sigmoid"](where(equal(x1, x2), 0.0, subtract(x1, x2)))
    return out


logaddexp = binary("logaddexp", "log(e**x1 + e**x2) without overflow.",
    {"x1": lambda g, x1, x2: g * _share(x1, x2), "x2": lambda g, x1, x2: g * _share(x2, x1)}, kind="float")

# ---- powers and roots

sqrt: Op = elementwise("sqrt", "Square root.", {"x": lambda g, y: 0.5 * g / y}, kind="float", low=0.1, high=4.0)
rsqrt: Op = elementwise("rsqrt", "1 / sqrt(x).", {"x": lambda g, y: -0.5 * g * (y * y * y)},
    lambda xp, x: 1 / xp.sqrt(x), kind="float", low=0.5, high=4.0)
hypot = binary("hypot", "sqrt(x1**2 + x2**2) without overflow; the gradient at (0, 0) is 0.",
    {"x1": lambda g, x1, y: g * (x1 / nonzero_or_one(y)), "x2": lambda g, x2, y: g * (x2 / nonzero_or_one(y))},
    kind="float")


def _pow_dx1(g: Tensor, x1: Any, x2: Any) -> Tensor:
    """x2 * x1**(x2 - 1), and 0 at 0**0."""
    if not isinstance(x2, Tensor):
        scaled: Tensor = g * (x2 * pow(x1, x2 - 1)) if x2 else zeros_like(g)
        return scaled
    both_zero = logical_and(equal(x1, 0), equal(x2, 0))
    out: Tensor = g * (x2 * _pow(where(both_zero, 1.0, like(x1, g)), x2 - 1))
    return out


def _pow_dx2(g: Tensor, x1: Any, y: Tensor) -> Tensor:
    """x1**x2 * log(x1), and 0 where x1 is 0."""
    out: Tensor = g * (y * log(nonzero_or_one(like(x1, y))))
    return out


_pow: Op = binary("pow", "x1 ** x2.", {"x1": _pow_dx1, "x2": _pow_dx2}, low=0.5, high=3.0)

# ---- trigonometric and hyperbolic functions and their inverses


def _atan2_part(g: Tensor, x1: Any, x2: Any, part: Any) -> Tensor:
    radius = nonzero_or_one(hypot(x1, x2))
    out: Tensor = g * (part / radius / radius)
    return out


sin: Op = elementwise("sin", "Sine of radians.", {"x": lambda g, x: g * cos(x)}, kind="float")
cos: Op = elementwise("cos", "Cosine of radians.", {"x": lambda g, x: -g * sin(x)}, kind="float")
tan = elementwise("tan", "Tangent of radians.", {"x": lambda g, y: g * (1 + y * y)}, kind="float", low=-1.0, high=1.0)
asin = elementwise("asin", "Inverse sine in [-pi/2, pi/2].",
    {"x": lambda g, x: g * rsqrt((1 - x) * (1 + x))}, kind="float", low=-0.8, high=0.8)
acos = elementwise("acos", "Inverse cosine in [0, pi].",
    {"x": lambda g, x: -g * rsqrt((1 - x) * (1 + x))}, kind="float", low=-0.8, high=0.8)
atan = elementwise("atan", "Inverse tangent in [-pi/2, pi/2].", {"x": lambda g, x: g / (1 + x * x)}, kind="float")
atan2 = binary("atan2", "Angle of the point (x2, x1) in [-pi, pi]; the gradient at (0, 0) is 0.",
    {"x1": lambda g, x1, x2: _atan2_part(g, x1, x2, x2), "x2": lambda g, x1, x2: -_atan2_part(g, x1, x2, x1)},
    kind="float", low=0.5, high=3.0)
sinh: Op = elementwise("sinh", "Hyperbolic sine.", {"x": lambda g, x: g * cosh(x)}, kind="float")
cosh: Op = elementwise("cosh", "Hyperbolic cosine.", {"x": lambda g, x: g * sinh(x)}, kind="float")
tanh = elementwise("tanh", "Hyperbolic tangent.", {"x": lambda g, y: OPS["tanh_grad"](g, y)}, kind="float")
asinh = elementwise("asinh", "Inverse hyperbolic sine.", {"x": lambda g, x: g / hypot(x, 1.0)}, kind="float")
acosh = elementwise("acosh", "Inverse hyperbolic cosine, at least 0.",
    {"x": lambda g, x: g * (rsqrt(x - 1) * rsqrt(x + 1))}, kind="float", low=1.5, high=4.0)
atanh = elementwise("atanh", "Inverse hyperbolic tangent.",
    {"x": lambda g, x: g / ((1 - x) * (1 + x))}, kind="float", low=-0.8, high=0.8)

# fmt: on

ERF_SPLIT = 2.0
"""Where `erf` goes over from its power series to a continued fraction."""


def _erf(xp: Xp, x: Any) -> Any:
    """Power series near 0 and continued fraction elsewhere: equations 7.6.2 and 7.9.2 of https://dlmf.nist.gov/7."""
    small, large = xp.clip(xp.abs(x), 0.0, ERF_SPLIT), xp.clip(xp.abs(x), ERF_SPLIT, 6.0)
    term = total = xp.ones_like(x)
    for n in range(1, 40):
        term = term * (2 * small * small / (2 * n + 1))
        total = total + term
    series = 2 / _root(pi) * small * xp.exp(-small * small) * total
    fraction = xp.zeros_like(x)
    for n in range(60, 0, -1):
        fraction = (n / 2) / (large + fraction)
    tail = xp.exp(-large * large) / (_root(pi) * (large + fraction))
    return xp.sign(x) * xp.where(xp.abs(x) > ERF_SPLIT, 1 - tail, series)


erf: Op = elementwise(
    "erf",
    "Error function 2/sqrt(pi) * integral of e**-t**2 from 0 to x.",
    {"x": lambda g, x: g * (2 / _root(pi) * exp(-x * x))},
    _erf,
    kind="float",
    low=-4.0,
    high=4.0,
)

# ---- logic and bits


def _bit_samples(count: int) -> Iterable[Sample]:
    shapes = [*_SHAPES[count][:2], *((s,) * count for s in [(), (0, 3)])]
    return [sample(*(Arr(s, 0, 100, dtype=d) for s in case)) for case in shapes for d in ("int64", "bool")]


def _shift_samples() -> Iterable[Sample]:
    return [sample(Arr(a, 0, 100, dtype="int64"), Arr(b, 0, 7, dtype="int64")) for a, b in _SHAPES[2]]


def _bitwise(name: str, doc: str, operands: str = "x1 x2", **fields: Any) -> Op:
    fields.setdefault("samples", lambda: _bit_samples(len(operands.split())))
    return elementwise(name, doc, operands=operands, dtype=_refuse(name, "float"), **fields)


def _logical(name: str, doc: str, operands: str = "x1 x2") -> Op:
    return elementwise(name, doc, operands=operands, kind="bool", out="bool", samples=None)


# fmt: off
bitwise_and = _bitwise("bitwise_and", "Bitwise and of ints or bools.")
bitwise_or = _bitwise("bitwise_or", "Bitwise or of ints or bools.")
bitwise_xor = _bitwise("bitwise_xor", "Bitwise exclusive or of ints or bools.")
bitwise_invert = _bitwise("bitwise_invert", "Bitwise not of ints or bools.", "x")
bitwise_left_shift = _bitwise("bitwise_left_shift", "x1 * 2**x2 of ints.", samples=_shift_samples)
bitwise_right_shift = _bitwise("bitwise_right_shift", "x1 // 2**x2 of ints.", samples=_shift_samples)
logical_and: Op = _logical("logical_and", "Whether both bools are true.")
logical_or = _logical("logical_or", "Whether either bool is true.")
logical_xor = _logical("logical_xor", "Whether the bools differ.")
logical_not = _logical("logical_not", "Whether the bool is false.", "x")
# fmt: on


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """`x` bounded by `min` and `max`, tensors that broadcast to it, scalars or None (no bound).

    The gradient passes where x lies within, bounds included, else it goes to the bound.

    >>> clip(dl.tensor([-2.0, 0.5]), min=0)
    tensor([0. , 0.5])
    """
    out: Tensor = _clip(x, min, max)
    return out


_SHORT_POWERS = {1: positive, 2: square, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}


def pow(x1: Any, x2: Any) -> Tensor:
    """x1 ** x2, element by element, with broadcasting. Exponents of a float tensor such as 2 and 0.5 take a shortcut.

    The gradient at a base of 0 is exact for exponents of 1 and more, and 0 for an exponent of 0.
    Raises ArgumentError for an int base with a negative int exponent.

    >>> pow(dl.tensor([2.0, 3.0]), 2)
    tensor([4., 9.])
    """
    plain = type(x2) in (int, float)
    if plain and isinstance(x1, Tensor) and dtypes.kind(x1.dtype) == "float" and x2 in _SHORT_POWERS:
        short: Tensor = _SHORT_POWERS[x2](x1)
        return short
    if _is_int(x1) and _is_int(x2) and np.any(np.asarray(x2) < 0):
        raise ArgumentError("pow: an int to a negative int power is no int; make the base a float")
    out: Tensor = _pow(x1, x2)
    return out


def _is_int(x: Any) -> bool:
    return type(x) is int or (hasattr(x, "dtype") and dtypes.kind(x.dtype) == "int")


Tensor.__pow__ = pow  # type: ignore[method-assign]
Tensor.__rpow__ = lambda x2, x1: pow(x1, x2)  # type: ignore[method-assign]
