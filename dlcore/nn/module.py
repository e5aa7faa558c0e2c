"""The base of every layer and model."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, TypeVar

import numpy as np

from dlcore import dtypes, recording
from dlcore.errors import ArgumentError, DlcoreError, DTypeError
from dlcore.nn import parameter
from dlcore.nn.parameter import Parameter
from dlcore.tensor import Tensor

if TYPE_CHECKING:
    from dlcore.nn.taps import Summary, Taps


T = TypeVar("T")


class Module:
    """Base class: assign parameters and sub-modules to attributes, define `forward`, call the object.

    What is registered is read off the attributes: a `Parameter`, a `Module`, or a list, tuple or dict of them (their
    index or key becomes part of the path); `register_buffer` marks a tensor that is saved but not trained.

    >>> class Net(Module):
    ...     def __init__(self):
    ...         self.fc = Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.fc(x).relu()
    """

    training: bool = True
    forward: Callable[..., Any]
    _buffers: tuple[str, ...] = ()
    _persistent: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        recording.changes[0] += 1
        object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`. A dlcore error that leaves it names the path of the module in which it was raised."""
        try:
            return self.forward(*args, **kwargs)
        except DlcoreError as error:
            self._extend_path(error)
            raise

    def _extend_path(self, error: DlcoreError) -> None:
        names = (name for name, module in self.named_modules() if module is error.module)
        error.module_path = ".".join(filter(None, (next(names, ""), error.module_path)))
        error.module = self

    # ---- what it consists of

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Attributes and the elements of list, tuple and dict attributes, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value))
            elif isinstance(value, dict):
                yield from ((f"{name}.{key}", v) for key, v in value.items())
            else:
                yield name, value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names."""
        return ((name, value) for name, value in self._members() if isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        """Direct sub-modules."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (with the path `prefix`) and all below it, each once, parents first."""
        seen: set[int] = set()
        for path, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their paths; a shared one comes once."""
        return _unique((path, x) for path, x in self._tensors() if isinstance(x, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Parameters, each once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their paths, each once."""
        return _unique((path, x) for path, x in self._tensors() if not isinstance(x, Parameter))

    def buffers(self) -> Iterator[Tensor]:
        """Buffers, each once."""
        return (b for _, b in self.named_buffers())

    def _tensors(self, persistent: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by path, shared ones under each of their paths."""
        for path, module in self._walk(""):
            buffers = module._persistent if persistent else module._buffers
            for name, value in module._members():
                if isinstance(value, Parameter) or name in buffers:
                    yield f"{path}.{name}" if path else name, value

    def register_buffer(self, name: str, value: Tensor, persistent: bool = True) -> None:
        """Keep a tensor that moves and is saved (unless not `persistent`) with the module but is not trained."""
        if hasattr(self, name):
            raise ArgumentError(f"register_buffer: {type(self).__name__} already has an attribute {name!r}")
        setattr(self, name, value)
        self._buffers = (*self._buffers, name)
        if persistent:
            self._persistent = (*self._persistent, name)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module below this one, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- state

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by path. They share memory with the module; save or copy them at once."""
        return {path: x.detach() for path, x in self._tensors(persistent=True)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> KeyReport:
        """Copy values (tensors, arrays or lists) into parameters and buffers; returns the missing and unexpected names.

        Raises ArgumentError, and changes nothing, when a shape differs or (strict) when names are missing or
        unexpected.
        """
        own = dict(self._tensors(persistent=True))
        report = KeyReport([n for n in own if n not in state], [n for n in state if n not in own])
        wrong = [
            f"{n} has shape {np.shape(state[n])}, expected {x.shape}"
            for n, x in own.items()
            if n in state and np.shape(state[n]) != x.shape
        ]
        problems = [f"{kind} {', '.join(names)}" for kind, names in report._asdict().items() if names and strict]
        if problems + wrong:
            raise ArgumentError(f"load_state_dict: {'; '.join(problems + wrong)}; nothing was loaded")
        for name, x in own.items():
            if name in state:
                x.assign(state[name])
        return report

    # ---- modes

    def train(self, mode: bool = True) -> Self:
        """Switch layers that behave differently in training (dropout, batch norm) to training, here and below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: `train(False)`."""
        return self.train(False)

    def requires_grad_(self, flag: bool = True) -> Self:
        """Train all parameters, or none."""
        return self._switch("*", flag)

    def freeze(self, pattern: str = "*") -> Self:
        """Stop training the parameters whose path, or that of a module above them, matches a glob.

        Raises ArgumentError when nothing matches.

        >>> model.freeze("features.*")
        """
        return self._switch(pattern, False)

    def unfreeze(self, pattern: str = "*") -> Self:
        """Train the parameters whose path, or that of a module above them, matches a glob."""
        return self._switch(pattern, True)

    def _switch(self, pattern: str, flag: bool) -> Self:
        found = [p for path, p in self.named_parameters() if _matches(path, pattern)]
        if not found and pattern != "*":
            raise ArgumentError(f"no parameter of {type(self).__name__} matches {pattern!r}")
        for p in found:
            p.requires_grad = flag
            p.grad = p.grad if flag else None
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        recording.cleared(self.parameters())
        for p in self.parameters():
            p.grad = None

    def to(self, device: str) -> Self:
        """Move parameters, buffers and gradients to a device, in place."""
        for _, x in _unique(self._tensors()):
            parameter.move(x, device)
        return self

    def astype(self, dtype: Any) -> Self:
        """Cast floating-point parameters, buffers and gradients, in place."""
        for _, x in _unique(self._tensors()):
            if dtypes.kind(x.dtype) == "float":
                parameter.cast(x, dtypes.dtype(dtype))
        return self

    # ---- looking inside

    def tap(self, *patterns: str) -> AbstractContextManager[Taps]:
        """Record the outputs of the modules whose paths match; see `dlcore.nn.taps.tap`.

        >>> with model.tap("features.*") as t:
        ...     model(x)
        >>> t["features.3"][0]
        """
        from dlcore.nn import taps

        return taps.tap(self, patterns)

    def summary(self, *input_shapes: tuple[int, ...], dtype: Any = float) -> Summary:
        """Table of layers with output shapes, parameters and FLOPs for inputs of these shapes."""
        from dlcore.nn import taps

        return taps.summarise(self, input_shapes, dtype)

    def extra_repr(self) -> str:
        """What stands between the parentheses of the layer's repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inner = "\n".join(["", *lines, ""]) if lines else ""
        return f"{type(self).__name__}({self.extra_repr()}{inner})"

    # ---- copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self).__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def __reduce__(self) -> NoReturn:
        raise DTypeError("modules cannot be pickled; use dl.save(path, model.state_dict()) and load_state_dict")


class KeyReport(NamedTuple):
    """Names that a state dict lacked, and names that it had too many."""

    missing: list[str]
    unexpected: list[str]


def _unique(pairs: Iterator[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    seen: set[int] = set()
    for path, x in pairs:
        if id(x) not in seen:
            seen.add(id(x))
            yield path, x


def _matches(path: str, pattern: str) -> bool:
    parts = path.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))
