"""Looking inside a model while it runs: recorded outputs and the summary table."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlcore import dispatch, dtypes
from dlcore.autograd import no_grad
from dlcore.creation import zeros
from dlcore.errors import ArgumentError
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter

Forward = Callable[..., Any]
Taps = dict[str, list[Any]]
"""Outputs of each tapped module by its path, one entry per call."""


@contextmanager
def wrapped(modules: Mapping[str, Module], wrap: Callable[[str, Forward], Forward]) -> Iterator[None]:
    """Replace `forward` of modules by `wrap(path, forward)` inside a `with` block."""
    before = {path: vars(module).get("forward") for path, module in modules.items()}
    try:
        for path, module in modules.items():
            module.forward = wrap(path, module.forward)
        yield
    finally:
        for path, module in modules.items():
            _restore(module, before[path])


def _restore(module: Module, forward: Forward | None) -> None:
    if forward is not None:
        module.forward = forward
    else:
        vars(module).pop("forward", None)


@contextmanager
def tap(model: Module, patterns: Sequence[str]) -> Iterator[Taps]:
    """Record the outputs of modules inside a `with` block, as `{path: [output of each call]}`.

    patterns: globs over module paths. Raises ArgumentError for one that matches nothing.

    >>> with tap(model, ["features.*"]) as t:
    ...     model(x)
    >>> t["features.3"][0].shape
    """
    modules = dict(model.named_modules())
    for pattern in patterns:
        if not fnmatch.filter(modules, pattern):
            raise ArgumentError(f"tap: no module matches {pattern!r}; modules are {', '.join(filter(None, modules))}")
    chosen = {path: m for path, m in modules.items() if any(fnmatch.fnmatchcase(path, p) for p in patterns)}
    taps: Taps = {path: [] for path in chosen}

    def wrap(path: str, forward: Forward) -> Forward:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            taps[path].append(out)
            return out

        return recorded

    with wrapped(chosen, wrap):
        yield taps


@dataclass
class Row:
    """One module in a summary. flops: of the ops run in it directly, not in its children."""

    path: str
    kind: str
    parameters: int
    output: str = ""
    flops: int = 0


class Summary(list[Row]):
    """Rows in order of registration; prints as a table."""

    @property
    def parameters(self) -> int:
        """Number of parameter elements of the model, shared ones counted once."""
        return sum(row.parameters for row in self)

    @property
    def flops(self) -> int:
        """Floating point operations of one forward pass."""
        return sum(row.flops for row in self)

    def __str__(self) -> str:
        cells = [("layer", "kind", "output", "parameters", "FLOPs")]
        cells += [(r.path or "(model)", r.kind, r.output, f"{r.parameters:,}", f"{r.flops:,}") for r in self]
        cells.append(("total", "", "", f"{self.parameters:,}", f"{self.flops:,}"))
        widths = [max(len(row[i]) for row in cells) for i in range(5)]
        layout = "  ".join(f"{{:{'<' if i < 3 else '>'}{width}}}" for i, width in enumerate(widths))
        return "\n".join(layout.format(*row) for row in cells)

    __repr__ = __str__


def summarise(model: Module, input_shapes: Sequence[tuple[int, ...]], dtype: Any = float) -> Summary:
    """Run the model once on zeros (in evaluation mode, nothing recorded) and tabulate its modules.

    dtype: of the inputs; use int for a model that starts with an embedding.

    >>> print(summarise(model, [(1, 3, 32, 32)]))
    """
    counted: set[int] = set()
    modules = dict(model.named_modules())
    rows = {path: Row(path, type(m).__name__, _own_parameters(m, counted)) for path, m in modules.items()}
    running: list[Row] = [Row("", "", 0)]

    def wrap(path: str, forward: Forward) -> Forward:
        def measured(*args: Any, **kwargs: Any) -> Any:
            running.append(rows[path])
            try:
                out = forward(*args, **kwargs)
            finally:
                running.pop()
            rows[path].output = _shape(out)
            return out

        return measured

    def count(event: dispatch.Event) -> None:
        running[-1].flops += event.op.flops(event.plan.dims) if event.op.flops else 0

    device = next((p.device for p in model.parameters()), None)
    with _evaluating(modules), no_grad(), wrapped(modules, wrap), dispatch.listening(count):
        model(*[zeros(shape, dtypes.dtype(dtype), device) for shape in input_shapes])
    return Summary(rows.values())


@contextmanager
def _evaluating(modules: Mapping[str, Module]) -> Iterator[None]:
    before = {path: m.training for path, m in modules.items()}
    try:
        for module in modules.values():
            module.training = False
        yield
    finally:
        for path, module in modules.items():
            module.training = before[path]


def _own_parameters(module: Module, counted: set[int]) -> int:
    new = [p for _, p in module._members() if isinstance(p, Parameter) and id(p) not in counted]
    counted.update(id(p) for p in new)
    return sum(p.size for p in new)


def _shape(out: Any) -> str:
    if isinstance(out, (tuple, list)):
        return ", ".join(_shape(x) for x in out)
    return str(tuple(getattr(out, "shape", ())))
