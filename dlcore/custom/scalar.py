"""Reads a Python function of numbers as an `Expression`: what it would return, with both sides of every branch."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import operator
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from dlcore.custom.expression import FUNCTIONS, Expression, Number, Variable, apply, is_truth, logical, power, select
from dlcore.errors import ArgumentError

BINARY: dict[type, Callable[[Expression, Expression], Expression]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: power,
}
COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "tau": math.tau}
ALIASES = {"abs": "fabs", "absolute": "fabs", "power": "pow", "arctan": "atan", "arcsin": "asin", "arccos": "acos"}
Env = dict[str, Expression]


def read(f: Callable[..., Any]) -> tuple[list[str], Expression]:
    """Parameters of a function, and what it returns. Raises ArgumentError for a line that has no such form."""
    tree = _tree(f)
    reader = _Reader(f)
    names = [a.arg for a in tree.args.args]
    if tree.args.vararg or tree.args.kwarg or tree.args.kwonlyargs or tree.args.defaults or not names:
        reader.refuse(tree, "it takes positional parameters without defaults, at least one")
    return names, reader.call(tree, [Variable(i) for i in range(len(names))])


def _tree(f: Callable[..., Any]) -> ast.FunctionDef | ast.Lambda:
    name = getattr(f, "__name__", repr(f))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(f)))
    except (OSError, TypeError, SyntaxError):
        raise ArgumentError(
            f"elementwise: {name} has no source that can be read; define it with def in a file"
        ) from None
    wanted = ast.Lambda if name == "<lambda>" else ast.FunctionDef
    found = [node for node in ast.walk(tree) if isinstance(node, wanted)]
    if len(found) != 1 and wanted is ast.Lambda:
        raise ArgumentError("elementwise: several lambdas on one line; define the function with def")
    return found[0]


class _Reader:
    """Walks one function. Free names are those of the function's module and closure."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f, self.name = f, f.__name__
        self.outside = inspect.getclosurevars(f)

    def refuse(self, node: Any, what: str) -> NoReturn:
        line = self.f.__code__.co_firstlineno + getattr(node, "lineno", 1) - 1
        raise ArgumentError(f"elementwise: {self.name}, line {line}: {what}")

    def call(self, tree: ast.FunctionDef | ast.Lambda, args: Sequence[Expression]) -> Expression:
        env = {a.arg: x for a, x in zip(tree.args.args, args, strict=True)}
        if isinstance(tree, ast.Lambda):
            return self.value(tree.body, env)
        found = self.block(tree.body, env)
        return found if found is not None else self.refuse(tree, "it does not return a number on every path")

    # ---- statements

    def block(self, body: Sequence[ast.stmt], env: Env) -> Expression | None:
        """What the statements return; None where they come to their end."""
        for i, node in enumerate(body):
            if isinstance(node, ast.Return):
                given = node.value
                return None if given is None or _is_none(given) else self.value(given, env)
            if isinstance(node, ast.If):
                condition, rest = self.value(node.test, env), list(body[i + 1 :])
                a, b = (self.block([*side, *rest], dict(env)) for side in (node.body, node.orelse))
                return None if a is None or b is None else select(condition, a, b)
            self.statement(node, env)
        return None

    def statement(self, node: ast.stmt, env: Env) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            env[node.targets[0].id] = self.value(node.value, env)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            env[node.target.id] = self.value(node.value, env)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            name = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
            env[node.target.id] = self.value(ast.copy_location(ast.BinOp(name, node.op, node.value), node), env)
        elif not (isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))):
            self.refuse(node, f"{type(node).__name__} has no element-wise form; it takes assignments, if and return")

    # ---- expressions

    def value(self, node: ast.expr, env: Env) -> Expression:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return Number(float(node.value))
        if isinstance(node, ast.Name) and node.id in env:
            return env[node.id]
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self.outer(node)
        if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            return BINARY[type(node.op)](*(self.number(x, env) for x in (node.left, node.right)))
        if isinstance(node, ast.UnaryOp):
            return self.unary(node, env)
        if isinstance(node, ast.Compare):
            return self.comparison(node, env)
        if isinstance(node, ast.BoolOp):
            name = "and" if isinstance(node.op, ast.And) else "or"
            first, *rest = (self.value(x, env) for x in node.values)
            for x in rest:
                first = logical(name, first, x)
            return first
        if isinstance(node, ast.IfExp):
            return select(*(self.value(x, env) for x in (node.test, node.body, node.orelse)))
        if isinstance(node, ast.Call):
            return self.function(node, env)
        return self.refuse(node, f"{type(node).__name__} has no element-wise form")

    def number(self, node: ast.expr, env: Env) -> Expression:
        """A value as a number: true counts as 1."""
        found = self.value(node, env)
        return select(found, Number(1.0), Number(0.0)) if is_truth(found) else found

    def unary(self, node: ast.UnaryOp, env: Env) -> Expression:
        if isinstance(node.op, ast.Not):
            return logical("not", self.value(node.operand, env))
        if isinstance(node.op, ast.USub):
            return -self.number(node.operand, env)
        return self.number(node.operand, env) if isinstance(node.op, ast.UAdd) else self.refuse(node, "~ of a number")

    def comparison(self, node: ast.Compare, env: Env) -> Expression:
        parts = [self.number(x, env) for x in (node.left, *node.comparators)]
        found: list[Expression] = []
        for a, sign, b in zip(parts, node.ops, parts[1:], strict=False):
            if type(sign) not in COMPARE:
                self.refuse(node, f"{type(sign).__name__} compares no numbers")
            found.append(apply(COMPARE[type(sign)], a, b))
        first, *rest = found
        for x in rest:
            first = logical("and", first, x)
        return first

    def outer(self, node: ast.Name | ast.Attribute) -> Expression:
        """A number of the function's module or closure, or of another module."""
        found = self.resolve(node)
        if not isinstance(found, (bool, int, float)):
            self.refuse(node, f"{ast.unparse(node)} is no number ({type(found).__name__})")
        return Number(float(found))

    def resolve(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            if not hasattr(owner, node.attr):
                self.refuse(node, f"{ast.unparse(node)} does not exist")
            return getattr(owner, node.attr)
        known: list[Mapping[str, Any]] = [self.outside.nonlocals, self.outside.globals, vars(builtins)]
        if isinstance(node, ast.Name):
            for names in known:
                if node.id in names:
                    return names[node.id]
        return self.refuse(node, f"{ast.unparse(node)} is not known here")

    def function(self, node: ast.Call, env: Env) -> Expression:
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            self.refuse(node, "calls take positional arguments only")
        called, args = self.resolve(node.func), [self.number(a, env) for a in node.args]
        if called in (min, max) and len(args) >= 2:
            return _extreme("lt" if called is min else "gt", args)
        inner = getattr(called, "scalar", called)
        if inspect.isfunction(inner):
            tree = _tree(inner)
            if len(tree.args.args) != len(args):
                self.refuse(node, f"{inner.__name__} takes {len(tree.args.args)} arguments; got {len(args)}")
            return _Reader(inner).call(tree, args)
        name = getattr(called, "__name__", type(called).__name__)
        name = ALIASES.get(name, name)
        known = FUNCTIONS.get(name)
        if known is None or known.truth or len(known.slopes) != len(args):
            self.refuse(node, f"{ast.unparse(node.func)} of {len(args)} numbers has no element-wise form")
        return power(*args) if name == "pow" else apply(name, *args)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _extreme(sign: str, args: Sequence[Expression]) -> Expression:
    """min or max as Python has it: the first of those that are equal."""
    first, *rest = args
    for x in rest:
        first = select(apply(sign, x, first), x, first)
    return first
