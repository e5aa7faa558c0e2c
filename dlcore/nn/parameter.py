"""A tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

from dlcore.creation import tensor
from dlcore.tensor import Tensor


class Parameter(Tensor):
    """Leaf tensor that a `Module` registers when it is assigned to an attribute.

    data: a tensor (its storage is shared), an array or nested lists (copied). Raises DTypeError for ints that should
    require a gradient.

    >>> Parameter(dl.zeros((2, 3))).requires_grad
    True
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        source = (data if isinstance(data, Tensor) else tensor(data)).detach(requires_grad=requires_grad)
        self._fill(source._array, source._backend, None, None)
        self._base = source._base
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = memo[id(self)] = Parameter(super().__deepcopy__(memo), self.requires_grad)
        return twin


def move(x: Tensor, device: str) -> None:
    """Put a leaf (and its gradient) on another device; it stays the same Python object."""
    moved = x.to(device)
    if moved is not x:
        _replace(x, moved)


def cast(x: Tensor, dtype: Any) -> None:
    """Give a leaf (and its gradient) another dtype; it stays the same Python object."""
    if x.dtype != dtype:
        _replace(x, x.detach().astype(dtype))


def _replace(x: Tensor, value: Tensor) -> None:
    x.storage()  # counts as an overwrite: a graph that saved the old values raises
    x._version, x._base = x.version, None
    x._array, x._backend, x._meta = value._array, value._backend, None
    if x.grad is not None:
        x.grad = x.grad.to(value.device).astype(value.dtype)


def swap(x: Tensor, y: Tensor) -> None:
    """Exchange the values of two leaves of one shape in place."""
    kept = tensor(x, device=x.device)
    x.assign(y)
    y.assign(kept)
