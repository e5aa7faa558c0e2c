"""Expressions of numbers: read from a Python function, differentiated, and written as Python, CUDA C or array code.

An expression is a tree whose equal parts are one object, so that each is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Expression:
    """A number, a variable, or a function of expressions. Arithmetic gives the simplest form."""

    def __add__(self, other: Expression) -> Expression:
        return other if self == ZERO else self if other == ZERO else apply("add", self, other)

    def __sub__(self, other: Expression) -> Expression:
        return self if other == ZERO else -other if self == ZERO else apply("subtract", self, other)

    def __mul__(self, other: Expression) -> Expression:
        if ZERO in (self, other):
            return ZERO
        return other if self == ONE else self if other == ONE else apply("multiply", self, other)

    def __truediv__(self, other: Expression) -> Expression:
        return self if other == ONE else apply("divide", self, other)

    def __neg__(self) -> Expression:
        return Number(-self.value) if isinstance(self, Number) else apply("negative", self)


@dataclass(frozen=True)
class Number(Expression):
    """A constant."""

    value: float


@dataclass(frozen=True)
class Variable(Expression):
    """The operand of that index."""

    index: int


@dataclass(frozen=True, eq=False)
class Apply(Expression):
    """A function of FUNCTIONS of expressions; made by `_shared`, so that equal ones are one object."""

    name: str
    args: tuple[Expression, ...]


Slope = Callable[..., Expression]


@dataclass(frozen=True)
class Function:
    """How a function is written, with `{0}`, `{1}` for its arguments, and its partial derivatives.

    python: for numba, with `math`. cuda: of the type R. array: with an array library `xp`. slopes: for each argument,
    the derivative as a function of all arguments.
    """

    python: str
    cuda: str
    array: str
    slopes: tuple[Slope, ...] = ()
    truth: bool = False  # whether it gives true or false


def _math(name: str, slope: Slope, array: str | None = None) -> Function:
    return Function(f"math.{name}({{0}})", f"{name}({{0}})", f"xp.{array or name}({{0}})", (slope,))


def _infix(sign: str, *slopes: Slope) -> Function:
    return Function(*(f"({{0}} {sign} {{1}})",) * 3, slopes)


def _comparison(sign: str) -> Function:
    return Function(*(f"({{0}} {sign} {{1}})",) * 3, truth=True)


ZERO, ONE, TWO = Number(0.0), Number(1.0), Number(2.0)

FUNCTIONS: dict[str, Function] = {
    "add": _infix("+", lambda a, b: ONE, lambda a, b: ONE),
    "subtract": _infix("-", lambda a, b: ONE, lambda a, b: Number(-1.0)),
    "multiply": _infix("*", lambda a, b: b, lambda a, b: a),
    "divide": _infix("/", lambda a, b: ONE / b, lambda a, b: -a / (b * b)),
    "negative": Function(*("(-{0})",) * 3, (lambda a: Number(-1.0),)),
    "pow": Function(
        "{0} ** {1}", "pow({0}, {1})", "xp.pow({0}, {1})",
        (lambda a, b: b * power(a, b - ONE), lambda a, b: apply("log", a) * power(a, b)),
    ),
    "fabs": Function(
        "math.fabs({0})", "fabs({0})", "xp.abs({0})",
        (lambda a: select(apply("gt", a, ZERO), ONE, select(apply("lt", a, ZERO), Number(-1.0), ZERO)),),
    ),
    "exp": _math("exp", lambda a: apply("exp", a)),
    "expm1": _math("expm1", lambda a: apply("exp", a)),
    "log": _math("log", lambda a: ONE / a),
    "log1p": _math("log1p", lambda a: ONE / (ONE + a)),
    "sqrt": _math("sqrt", lambda a: Number(0.5) / apply("sqrt", a)),
    "sin": _math("sin", lambda a: apply("cos", a)),
    "cos": _math("cos", lambda a: -apply("sin", a)),
    "tan": _math("tan", lambda a: ONE + apply("tan", a) * apply("tan", a)),
    "sinh": _math("sinh", lambda a: apply("cosh", a)),
    "cosh": _math("cosh", lambda a: apply("sinh", a)),
    "tanh": _math("tanh", lambda a: ONE - apply("tanh", a) * apply("tanh", a)),
    "asin": _math("asin", lambda a: ONE / apply("sqrt", ONE - a * a)),
    "acos": _math("acos", lambda a: Number(-1.0) / apply("sqrt", ONE - a * a)),
    "atan": _math("atan", lambda a: ONE / (ONE + a * a)),
    "floor": _math("floor", lambda a: ZERO),
    "ceil": _math("ceil", lambda a: ZERO),
    "lt": _comparison("<"),
    "le": _comparison("<="),
    "gt": _comparison(">"),
    "ge": _comparison(">="),
    "eq": _comparison("=="),
    "ne": _comparison("!="),
    "and": Function("({0} and {1})", "({0} && {1})", "({0} & {1})", truth=True),
    "or": Function("({0} or {1})", "({0} || {1})", "({0} | {1})", truth=True),
    "not": Function("(not {0})", "(!{0})", "(~{0})", truth=True),
    "select": Function("({1} if {0} else {2})", "({0} ? {1} : {2})", "xp.where({0}, {1}, {2})"),
}  # fmt: skip


# ---- making them: arguments of the right kind, and the simplest form


def is_truth(x: Expression) -> bool:
    """Whether an expression is true or false rather than a number."""
    return isinstance(x, Apply) and FUNCTIONS[x.name].truth


_made: dict[tuple[str, tuple[Expression, ...]], Apply] = {}


def _shared(name: str, *args: Expression) -> Apply:
    return _made.setdefault((name, args), Apply(name, args))


def apply(name: str, *args: Expression) -> Expression:
    """A function of numbers; true counts as 1."""
    return _shared(name, *(select(x, ONE, ZERO) if is_truth(x) else x for x in args))


def truth(x: Expression) -> Expression:
    """An expression as a condition: a number other than 0 is true."""
    return x if is_truth(x) else apply("ne", x, ZERO)


def logical(name: str, *args: Expression) -> Expression:
    """`and`, `or`, `not` of conditions."""
    return _shared(name, *map(truth, args))


def select(condition: Expression, a: Expression, b: Expression) -> Expression:
    """a where the condition holds, else b."""
    return a if a == b else _shared("select", truth(condition), a, b)


def power(a: Expression, b: Expression) -> Expression:
    """a to the power of b."""
    if b == ZERO:
        return ONE
    return a if b == ONE else a * a if b == TWO else apply("pow", a, b)


# ---- derivatives


def derivative(x: Expression, index: int) -> Expression:
    """d x / d variable `index`, by the chain rule; at a jump the derivative of the side that counts."""
    return _derivative(x, index, {})


def _derivative(x: Expression, index: int, known: dict[Expression, Expression]) -> Expression:
    if not isinstance(x, Apply):
        return ONE if x == Variable(index) else ZERO
    if x not in known:
        if x.name == "select":
            condition, *sides = x.args
            known[x] = select(condition, *(_derivative(side, index, known) for side in sides))
        else:
            total: Expression = ZERO
            for arg, slope in zip(x.args, FUNCTIONS[x.name].slopes, strict=False):
                inner = _derivative(arg, index, known)
                total = total if inner == ZERO else total + slope(*x.args) * inner
            known[x] = total
    return known[x]


def shifted(x: Expression, by: int) -> Expression:
    """The expression with every variable's index greater by so much."""
    return _shifted(x, by, {})


def _shifted(x: Expression, by: int, known: dict[Expression, Expression]) -> Expression:
    if not isinstance(x, Apply):
        return Variable(x.index + by) if isinstance(x, Variable) else x
    if x not in known:
        known[x] = _shared(x.name, *(_shifted(a, by, known) for a in x.args))
    return known[x]


# ---- writing


def written(
    x: Expression, kind: str, variable: str, number: Callable[[float], str]
) -> tuple[list[tuple[str, str, bool]], str]:
    """Statements `(name, text, whether it is a condition)` that compute the parts of an expression, and its own text.

    kind: "python", "cuda" or "array". variable: the name of an operand, with `{}` for its index.
    """
    names: dict[Expression, str] = {}
    found: list[tuple[str, str, bool]] = []

    def text(part: Expression) -> str:
        if isinstance(part, Number):
            return number(part.value)
        if isinstance(part, Variable):
            return variable.format(part.index)
        assert isinstance(part, Apply)
        if part not in names:
            pattern = getattr(FUNCTIONS[part.name], kind)
            value = pattern.format(*map(text, part.args))
            names[part] = f"t{len(names)}"
            found.append((names[part], value, is_truth(part)))
        return names[part]

    result = text(x)
    return found, result
