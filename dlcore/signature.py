"""Signature strings: the shapes and kinds of an op's operands and outputs.

Grammar, closed on purpose::

    signature := operand* "->" output+
    operand   := ["*"] NAME "[" [term ("," term)*] "]" [":" kind] ["?"]
    term      := DIM | INT "*" DIM | INT | DIMS "..." | "..."
    kind      := "float" | "wide" | "int" | "bool" | "any" (none: every number, promoted together)

A `DIM` stands for one size and must agree wherever it occurs. `S...` stands for any number of sizes and must agree
exactly; a bare `...` broadcasts. A `wide` operand has the promoted dtype of the others, but float32 where that has 16
bits. `?` marks an operand that may be None, `*` one that takes all remaining operands (their shapes are not unified),
or the only output of an op that gives several of it. Output dims that no operand binds, and the shapes of such an
output under its name, come from the op's `infer` function.

>>> sig = Signature.parse("x[N,I] w[4*H,I] b[4*H]? -> y[N,4*H]")
>>> sig.bind([(2, 3), (20, 3), None]).H
5
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from dlcore.errors import ShapeError

Shape = tuple[int, ...]
Term = str | int | tuple[int, str]  # "N", "S...", "...", 3, (4, "H")

_OPERAND = re.compile(r"(\*?)(\w+)\[([^\]]*)\](?::(float|wide|int|bool|any))?(\??)$")
_TERM = re.compile(r"(?:(\d+)\*)?(\w*\.\.\.|\w+)$")


class Dims(dict[str, Any]):
    """Sizes bound by a signature: `dims.N` is an int, `dims.S` (from `S...`) a tuple, `dims.ELL` the bare `...`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def size(self, name: str = "ELL") -> int:
        """Number of elements of a tuple of sizes."""
        return prod(self[name])


class MismatchError(Exception):
    """A shape does not fit; carries the reason in brackets of the final error."""


@dataclass(frozen=True)
class Operand:
    """One operand or output of a signature."""

    name: str
    terms: tuple[Term, ...]
    kind: str = ""
    optional: bool = False
    variadic: bool = False

    @staticmethod
    def parse(text: str) -> Operand:
        """Read one `name[terms]:kind?`."""
        match = _OPERAND.match(text)
        if not match:
            raise ValueError(f"bad operand {text!r} in a signature")
        star, name, terms, kind, optional = match.groups()
        parsed = tuple(_parse_term(t) for t in terms.split(",")) if terms else ()
        return Operand(name, parsed, kind or "", bool(optional), bool(star))

    @cached_property
    def splat(self) -> int:
        """Index of the term that stands for several sizes, or -1."""
        return next((i for i, t in enumerate(self.terms) if isinstance(t, str) and t.endswith("...")), -1)

    def bind(self, shape: Shape, dims: Dims) -> None:
        """Match `shape` against the terms, filling `dims`; raises MismatchError."""
        fixed = len(self.terms) - (self.splat >= 0)
        if len(shape) < fixed or (self.splat < 0 and len(shape) != fixed):
            least = "at least " if self.splat >= 0 else ""
            raise MismatchError(f"{self.name} has {len(shape)} dimensions, expected {least}{fixed}")
        if self.splat < 0:
            _bind_sizes(self.terms, shape, dims)
            return
        stop = len(shape) - (len(self.terms) - self.splat - 1)
        _bind_sizes(self.terms[: self.splat], shape[: self.splat], dims)
        _bind_splat(str(self.terms[self.splat]), shape[self.splat : stop], dims)
        _bind_sizes(self.terms[self.splat + 1 :], shape[stop:], dims)

    def shape(self, dims: Dims) -> Shape:
        """The shape that the terms stand for."""
        sizes: list[int] = []
        for term in self.terms:
            if isinstance(term, int):
                sizes.append(term)
            elif isinstance(term, tuple):
                sizes.append(term[0] * dims[term[1]])
            elif term.endswith("..."):
                sizes.extend(dims[_splat_name(term)])
            else:
                sizes.append(dims[term])
        return tuple(sizes)

    def __str__(self) -> str:
        terms = ",".join(f"{t[0]}*{t[1]}" if isinstance(t, tuple) else str(t) for t in self.terms)
        kind = f":{self.kind}" if self.kind else ""
        return f"{'*' * self.variadic}{self.name}[{terms}]{kind}{'?' * self.optional}"


@dataclass(frozen=True)
class Signature:
    """Operands and outputs of an op."""

    operands: tuple[Operand, ...]
    outputs: tuple[Operand, ...]

    @staticmethod
    def parse(text: str) -> Signature:
        """Read a signature string; raises ValueError where it breaks the grammar."""
        left, arrow, right = text.partition("->")
        if not arrow or not right.strip():
            raise ValueError(f"signature {text!r} names no output")
        found = Signature(tuple(map(Operand.parse, _split(left))), tuple(map(Operand.parse, _split(right))))
        found._check(text)
        return found

    def _check(self, text: str) -> None:
        parts = (*self.operands, *self.outputs)
        if len({p.name for p in parts}) < len(parts):
            raise ValueError(f"signature {text!r} uses a name twice")
        if any(p.variadic for p in (*self.operands[:-1], *self.outputs[1:])) or (self.splits and self.outputs[1:]):
            raise ValueError(f"signature {text!r}: only the last operand, or the only output, can be variadic")
        if any(sum(str(t).endswith("...") for t in p.terms) > 1 for p in parts):
            raise ValueError(f"signature {text!r} has more than one '...' in an operand")

    @cached_property
    def variadic(self) -> bool:
        """Whether the last operand takes all that remain."""
        return bool(self.operands) and self.operands[-1].variadic

    @cached_property
    def splits(self) -> bool:
        """Whether there are as many outputs as `infer` says."""
        return self.outputs[0].variadic

    def output_shapes(self, dims: Dims) -> list[Shape]:
        """The shapes of all outputs."""
        return list(dims[self.outputs[0].name]) if self.splits else [o.shape(dims) for o in self.outputs]

    def operand(self, index: int) -> Operand:
        """The operand that stands at position `index` of a call."""
        return self.operands[min(index, len(self.operands) - 1)] if self.variadic else self.operands[index]

    def bind(self, shapes: Sequence[Shape | None]) -> Dims:
        """Sizes of all dims for these operand shapes. Raises ShapeError without the op's name."""
        dims = Dims()
        try:
            self._bind(shapes, dims)
        except MismatchError as reason:
            raise ShapeError(f"expected {self.expected()}; got {self.got(shapes)} ({reason})") from None
        return dims

    def _bind(self, shapes: Sequence[Shape | None], dims: Dims) -> None:
        if self.variadic:
            first = len(self.operands) - 1
            dims[self.operands[-1].name] = tuple(shapes[first:])
            shapes = shapes[:first]
        for operand, shape in zip(self.operands, shapes, strict=False):
            if shape is not None:
                operand.bind(shape, dims)
            elif not operand.optional:
                raise MismatchError(f"{operand.name} is None")

    def expected(self) -> str:
        """The operands as an error message shows them."""
        return " ".join(str(o) for o in self.operands)

    def got(self, shapes: Sequence[Shape | None]) -> str:
        """Actual shapes in the style of the signature."""
        shown = []
        for i, shape in enumerate(shapes):
            sizes = "None" if shape is None else f"[{','.join(map(str, shape))}]"
            shown.append(self.operand(i).name + ("=" if shape is None else "") + sizes)
        return " ".join(shown)

    def __str__(self) -> str:
        return f"{self.expected()} -> {' '.join(str(o) for o in self.outputs)}"


def _split(text: str) -> list[str]:
    """The operands of one side; blanks inside brackets do not part them."""
    return re.split(r"\s+(?![^\[]*\])", text.strip()) if text.strip() else []


def _parse_term(text: str) -> Term:
    match = _TERM.match(text.strip())
    if not match:
        raise ValueError(f"bad dimension {text!r} in a signature")
    factor, name = match.groups()
    if factor:
        return int(factor), name
    return int(name) if name.isdigit() else name


def _splat_name(term: str) -> str:
    return term[:-3] or "ELL"


def _bind_sizes(terms: Sequence[Term], sizes: Shape, dims: Dims) -> None:
    for term, size in zip(terms, sizes, strict=True):
        if isinstance(term, int):
            if size != term:
                raise MismatchError(f"{term} vs {size}")
        elif isinstance(term, tuple):
            factor, name = term
            if size % factor:
                raise MismatchError(f"{factor}*{name}: {size} is not a multiple of {factor}")
            _bind_one(name, size // factor, dims)
        else:
            _bind_one(term, size, dims)


def _bind_one(name: str, size: Any, dims: Dims) -> None:
    if dims.setdefault(name, size) != size:
        raise MismatchError(f"{name}: {dims[name]} vs {size}")


def _bind_splat(term: str, sizes: Shape, dims: Dims) -> None:
    if term != "...":
        _bind_one(_splat_name(term), sizes, dims)
        return
    known = dims.get("ELL", ())
    joined = broadcast_shapes(known, sizes)
    if joined is None:
        raise MismatchError(f"{list(known)} and {list(sizes)} do not broadcast")
    dims["ELL"] = joined


def broadcast_shapes(a: Shape, b: Shape) -> Shape | None:
    """The shape to which `a` and `b` broadcast, or None."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(m != n and m != 1 and n != 1 for m, n in zip(a, b, strict=True)):
        return None
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))
