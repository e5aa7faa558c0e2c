"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, overload

from dlcore.autograd import checkpoint
from dlcore.errors import ArgumentError
from dlcore.nn.module import Module


class _Container(Module):
    """Modules under their own names, in order."""

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise ArgumentError(f"{type(self).__name__}: {name} must be a module; got a {type(module).__name__}")
        if hasattr(type(self), name):
            raise ArgumentError(f"{type(self).__name__}: a module cannot be called {name!r}, the name of a method")
        setattr(self, name, module)

    def _get(self, name: str) -> Module:
        found: Module = vars(self)[name]
        return found

    def _items(self) -> dict[str, Module]:
        return dict(self.named_children())

    def __len__(self) -> int:
        return len(self._items())


class _Ordered(_Container):
    """Modules by position."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for i, module in enumerate(modules, start=len(self)):
            self._add(str(i), module)
        return self

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module | Self:
        layers = list(self)
        if isinstance(index, int):
            return layers[index]
        part = type(self).__new__(type(self))
        part.training = self.training
        part.extend(layers[index])
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        self._add(list(self._items())[index], module)

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class Sequential(_Ordered):
    """Modules called one after another.

    modules: in order, or one dict of them by name. `seq[1:3]` is a Sequential that shares the modules.

    >>> Sequential(Linear(4, 8), ReLU(), Linear(8, 2))
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self._add(name, module)
        else:
            self.extend(modules)  # type: ignore[arg-type]

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for module in self.children():
            x = module(x)
        return x


class ModuleList(_Ordered):
    """A list of modules that are called by hand; a plain list attribute registers its modules as well."""


class ModuleDict(_Container):
    """Modules by key.

    >>> heads = ModuleDict({"a": Linear(4, 2), "b": Linear(4, 3)}); heads["a"](x)
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        self._add(name, module)

    def __getitem__(self, name: str) -> Module:
        return self._get(name)

    def __contains__(self, name: str) -> bool:
        return name in self._items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def keys(self) -> Iterable[str]:
        """Names, in order."""
        return self._items().keys()

    def values(self) -> Iterable[Module]:
        """Modules, in order."""
        return self._items().values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) pairs, in order."""
        return self._items().items()


class Lambda(Module):
    """A function as a layer.

    >>> Lambda(lambda x: x.mean(axis=1))
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        """`fn` of the arguments."""
        return self.fn(*args)

    def extra_repr(self) -> str:
        """The function's name."""
        return getattr(self.fn, "__name__", repr(self.fn))


class Residual(Module):
    """x -> shortcut(x) + body(x). He et al., "Deep Residual Learning for Image Recognition" (2015).

    shortcut: None for the identity; a projection where the shapes differ.
    """

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        """The sum, of the shape of `body(x)`."""
        return (x if self.shortcut is None else self.shortcut(x)) + self.body(x)


class Checkpoint(Module):
    """A module whose intermediate results are not kept but computed again in backward; see `dl.checkpoint`.

    >>> nn.Sequential(*(nn.Checkpoint(stage) for stage in stages))
    """

    def __init__(self, body: Module) -> None:
        self.body = body

    def forward(self, *args: Any) -> Any:
        """`body` of the arguments."""
        return checkpoint(self.body, *args)


class Identity(Module):
    """x -> x; takes the place of a layer that is not wanted."""

    def forward(self, x: Any) -> Any:
        """`x` itself."""
        return x
