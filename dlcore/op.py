"""The op record: everything that is known about an op stands in one `Op`.

Shape and dtype checks, error text, dispatch, gradients, tests, benchmarks and the op table of the docs derive from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlcore import dtypes
from dlcore.errors import ArgumentError, named
from dlcore.signature import Dims, Shape, Signature

if TYPE_CHECKING:
    from dlcore.tensor import Tensor

OPS: dict[str, Op] = {}
"""Every op by name, in order of definition."""


@dataclass(frozen=True)
class Arr:
    """A random operand of a sample: uniform in [low, high), or normal where no bounds are given."""

    shape: Shape
    low: float | None = None
    high: float | None = None
    dtype: str | None = None  # None: the dtype under test
    distinct: bool = False  # no two elements closer than the finite-difference step (max, sort)


@dataclass(frozen=True)
class Sample:
    """One example call of an op: operands (an `Arr`, a shape, a Python scalar, an array or None) and attributes."""

    operands: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


def sample(*operands: Any, **attrs: Any) -> Sample:
    """Shorthand for a `Sample`; a plain tuple of ints is the shape of a normal random operand."""
    return Sample(operands, attrs)


Vjp = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Op:
    """Record of an op; calling it runs it.

    name: unique name, also the key of its implementations.
    spec: the signature as text; see `dlcore.signature`. It is parsed, like the vjps' parameters, when first needed.
    reference: `reference(xp, *arrays, **attrs)`, the definition in array-API functions; its keyword defaults are the
        op's attributes. It sees arrays of one promoted dtype (16-bit floats already widened to float32).
    vjp: `{operand: function}` or one function that returns a tuple with an entry per operand. A vjp is written with
        ops. Its parameter names say what it needs: `g` (gradient of the first output), `g_<output>` (where none arrived
        zeros, or None if that is the parameter's default; of a variadic output a tuple), an operand or output by name
        (kept alive until backward), `<operand>_shape`, `<operand>_dtype`, `needs` (which operands want a gradient), an
        attribute, or `attrs` (all of them). A gradient may have the broadcast shape: the engine sums it down.
    infer: `infer(dims, **attrs)` returns the output dims that no operand binds; raises DlcoreError for bad attributes.
    dtype: None (outputs take the promoted dtype), or a function `(promoted, attrs) -> dtype` of the first output, or
        a tuple with the dtype of each.
    flops: floating point operations of a call as a function of its dims.
    samples: calls for tests and benchmarks; None derives them from the signature.
    check: `check(read, *arrays, **attrs)` raises DlcoreError for values that are not legal (an index out of range);
        `read` brings an array to the host. Called before the op runs, unless its implementation checks for itself.
    unused: `unused(**attrs)` names the outputs that the vjp asks for but does not look at with these attributes; they
        are not kept, and it gets None.
    view: the output may share the memory of the first operand.
    exempt: `{check: reason}`, checks of the generated test-suite that cannot apply, each with its reason.
    """

    name: str
    spec: str
    reference: Callable[..., Any]
    vjp: Mapping[str, Vjp] | Vjp | None = None
    infer: Callable[..., Mapping[str, Any]] | None = None
    dtype: Callable[..., Any] | None = None
    flops: Callable[[Dims], int] | None = None
    samples: Callable[[], Iterable[Sample]] | None = None
    check: Callable[..., None] | None = None
    unused: Callable[..., Collection[str]] | None = None
    view: bool = False
    exempt: Mapping[str, str] = field(default_factory=dict)
    doc: str = ""

    if TYPE_CHECKING:  # dispatch.apply takes this place

        def __call__(self, *operands: Any, **attrs: Any) -> Any:
            """Run the op; see `dlcore.dispatch.apply`."""

    @cached_property
    def signature(self) -> Signature:
        """Operands and outputs."""
        return Signature.parse(self.spec)

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Attributes and their defaults, read off the reference's keywords."""
        parameters = inspect.signature(self.reference).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def arity(self) -> int:
        """Number of operands, a variadic one not counted."""
        return len(self.signature.operands) - self.signature.variadic

    def only_views(self, operands: int) -> bool:
        """Whether a call with that many operands moves no numbers: its result is the first one, seen otherwise."""
        return self.view and self.dtype is None and operands == 1

    @cached_property
    def gradient_rules(self) -> list[GradientRule]:
        """The vjp functions with what each needs, in the order of the operands."""
        if self.vjp is None:
            return []
        if callable(self.vjp):
            return [GradientRule(self, self.vjp, None)]
        return [GradientRule(self, fn, name) for name, fn in self.vjp.items()]

    @cached_property
    def differentiable(self) -> tuple[bool, ...]:
        """Per operand of the signature: whether a gradient can flow to it."""
        if self.vjp is None:
            return tuple(False for _ in self.signature.operands)
        allowed = None if callable(self.vjp) else set(self.vjp)
        return tuple(
            o.kind not in ("int", "bool") and (allowed is None or o.name in allowed) for o in self.signature.operands
        )

    def resolve(self, shapes: list[Shape | None], attrs: Mapping[str, Any]) -> tuple[Dims, list[Shape]]:
        """Check shapes and attributes; return the bound dims and the output shapes."""
        with named(self.name):
            self._check_attrs(attrs)
            dims = self.signature.bind(shapes)
            if self.infer:
                dims.update(self.infer(dims, **attrs))
        return dims, self.signature.output_shapes(dims)

    def unused_outputs(self, attrs: Mapping[str, Any]) -> list[int]:
        """Indices of the outputs that the vjp does not look at with these attributes."""
        names = self.unused(**attrs) if self.unused else ()
        return [i for i, o in enumerate(self.signature.outputs) if o.name in names]

    def check_values(self, read: Callable[[Any], Any], arrays: Iterable[Any], attrs: Mapping[str, Any]) -> None:
        """Refuse operands by their values."""
        if self.check:
            with named(self.name):
                self.check(read, *arrays, **attrs)

    def _check_attrs(self, attrs: Mapping[str, Any]) -> None:
        for name in attrs.keys() - self.attrs.keys():
            raise ArgumentError(f"unknown attribute {name!r}; it takes {', '.join(self.attrs) or 'none'}")
        for name, value in attrs.items():
            if value is inspect.Parameter.empty:
                raise ArgumentError(f"attribute {name!r} is missing")

    def output_dtypes(self, promoted: Any, attrs: Mapping[str, Any], count: int) -> list[Any]:
        """The dtype of each of `count` outputs for operands of the promoted dtype."""
        fixed = {"bool": dtypes.bool_, "int": dtypes.DEFAULT_INT}
        found = [fixed.get(o.kind, promoted) for o in self.signature.outputs]
        found += found[-1:] * (count - len(found))
        if self.dtype:
            own = self.dtype(promoted, attrs)
            found = list(own) if isinstance(own, tuple) else [own, *found[1:]]
        return found


class GradientRule:
    """One vjp function and the values it asks for, as (source, index or name) pairs."""

    def __init__(self, op: Op, fn: Vjp, operand: str | None) -> None:
        self.fn = fn
        names = [o.name for o in op.signature.operands]
        outputs = [o.name for o in op.signature.outputs]
        if operand is not None and operand not in names:
            raise ValueError(f"vjp of {op.name} is for {operand!r}, which is no operand")
        self.operand = None if operand is None else names.index(operand)
        parameters = [p for p in inspect.signature(fn).parameters.values() if p.kind is not p.VAR_KEYWORD]
        self.needs = [self._source(op, p, names, outputs) for p in parameters]
        self.inputs = [int(key) for source, key in self.needs if source in ("input", "inputs")]
        self.outputs = [int(key) for source, key in self.needs if source == "output"]

    @staticmethod
    def _source(op: Op, parameter: inspect.Parameter, names: list[str], outputs: list[str]) -> tuple[str, int | str]:
        name = parameter.name
        grad = "grad" if parameter.default is parameter.empty else "grad or None"
        if name == "g":
            return grad, 0
        if name.startswith("g_") and name[2:] in outputs:
            return ("grads" if op.signature.splits else grad), outputs.index(name[2:])
        for suffix in ("", "_shape", "_dtype"):
            operand = name.removesuffix(suffix)
            if name.endswith(suffix) and operand in names:
                index = names.index(operand)
                return (suffix or "input") + ("s" if op.signature.variadic and index == op.arity else ""), index
        if name in outputs:
            return "output", outputs.index(name)
        if name in ("needs", "attrs"):
            return name, 0
        if name in op.attrs:
            return "attr", name
        raise ValueError(f"vjp of {op.name} asks for {name!r}, which is no operand, output or attribute")


def define(name: str, signature: str, reference: Callable[..., Any], **fields: Any) -> Op:
    """Make an op and enter it in the table. Raises ValueError when the name is taken."""
    if name in OPS:
        raise ValueError(f"op {name!r} is already defined")
    doc = fields.pop("doc", None) or inspect.getdoc(reference) or ""
    OPS[name] = record = Op(name, signature, reference, doc=doc, **fields)
    return record


def op(signature: str, *, name: str | None = None, **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """Decorator that turns an array function into an op with a gradient.

    Raises ValueError when the name is taken, the signature breaks the grammar, or a vjp asks for what there is not.

    >>> @op("x[...] -> y[...]", vjp={"x": lambda g, x: g * 3 * x * x})
    ... def cube(xp, x):
    ...     return x * x * x
    """

    def wrap(reference: Callable[..., Any]) -> Op:
        record = define(name or reference.__name__, signature, reference, **fields)
        try:
            _ = record.signature, record.gradient_rules, record.attrs
        except ValueError:
            del OPS[record.name]
            raise
        return record

    return wrap


def flat_gradients(result: Any, count: int) -> tuple[Tensor | None, ...]:
    """A joint vjp's result as one gradient per operand."""
    grads = result if isinstance(result, tuple) else (result,)
    return tuple(grads) + (None,) * (count - len(grads))
