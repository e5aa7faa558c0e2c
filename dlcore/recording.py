"""What `dl.capture` has to be told by code that acts outside of ops: on the host, in place, or on random keys.

Nothing here costs more than a look while no function is being recorded.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol


class Recorder(Protocol):
    """What records; see `dlcore.graph`."""

    def host(self, f: Callable[..., Any], owner: Any, args: tuple[Any, ...]) -> Any:
        """Call `f(owner, *args)` now, and again in every replay, with the tensors among `args` of that time."""

    def made(self, tensor: Any) -> None:
        """This tensor was filled from constants."""

    def key(self, tensor: Any, key: tuple[int, int]) -> None:
        """This tensor holds a random key: a replay takes the one that is then next."""

    def leaf(self, tensor: Any) -> None:
        """The gradient of this tensor is about to be read or accumulated."""

    def cleared(self, tensors: Iterable[Any]) -> None:
        """Gradients of these tensors were forgotten, whatever they were."""

    def data(self, data: Any) -> None:
        """Numbers from outside are about to become a tensor."""

    def refuse(self, what: str) -> NoReturn:
        """Raise GraphError: this cannot be repeated."""


class _Now(threading.local):
    recorder: Recorder | None = None


now = _Now()

native: Any = None
"""The extension, once dispatch has told it of dlcore's classes."""

changes = [0]
"""How often a module changed in a way that a recorded function may have seen."""


def host(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `f(owner, *args)` works on the host or in place; a replay calls it again.

    What it returns, tensors or a tuple of tensors and numbers, may only be passed on or returned by the function that
    is being recorded.
    """

    @functools.wraps(f)
    def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = now.recorder
        if recorder is None:
            return f(owner, *args, **kwargs)
        return recorder.host(functools.partial(f, **kwargs) if kwargs else f, owner, args)

    return call


def cleared(tensors: Iterable[Any]) -> None:
    """Gradients of these tensors are about to be forgotten."""
    if now.recorder is not None:
        now.recorder.cleared(tensors)


def grads(params: Iterable[Any]) -> list[Any]:
    """The gradients of these tensors, for code that works on them."""
    params = list(params)
    if now.recorder is not None:
        for p in params:
            now.recorder.leaf(p)
    return [p.grad for p in params]


def refuse(what: str) -> None:
    """Raise GraphError if a function is being recorded; `what` says what it does that cannot be repeated."""
    if now.recorder is not None:
        now.recorder.refuse(what)
