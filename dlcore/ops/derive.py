"""Gradients of fused ops by differentiating their references.

A fused gradient op such as `layer_norm_grad` has a long formula; the gradient of that formula is longer still and
rarely needed. Its vjp runs the op's own reference over recorded dlcore ops, in place of an array library, and
differentiates the tape that this leaves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dlcore import autograd, dtypes
from dlcore.creation import asarray, zeros_like
from dlcore.op import OPS, Op, Vjp, define
from dlcore.ops import join
from dlcore.signature import Signature
from dlcore.tensor import Tensor


class _Namespace:
    """The part of the array API that such references use, on tensors of one device."""

    def __init__(self, device: str) -> None:
        self.asarray = partial(asarray, device=device)

    concat = staticmethod(join.concat)
    stack = staticmethod(join.stack)
    zeros_like = staticmethod(zeros_like)

    def __getattr__(self, name: str) -> Op:
        return OPS[name]

    @staticmethod
    def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(*shape)

    @staticmethod
    def permute_dims(x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes)

    @staticmethod
    def matrix_transpose(x: Tensor) -> Tensor:
        return x.mT


def derived_vjp(signature: str, reference: Callable[..., Any]) -> Vjp:
    """The joint vjp of an op whose reference uses no more of the array API than dlcore itself offers."""
    parsed = Signature.parse(signature)
    operands, outputs = [o.name for o in parsed.operands], [f"g_{o.name}" for o in parsed.outputs]
    count = len(operands)

    def vjp(needs: Sequence[bool], attrs: Any, *values: Any) -> tuple[Tensor | None, ...]:
        with autograd.grad_mode(True):
            copies = [x.reshape(x.shape) if need else x for x, need in zip(values[:count], needs, strict=True)]
            found = reference(_Namespace(values[-1].device), *map(_widened, copies), **attrs)
        results = found if isinstance(found, tuple) else (found,)
        live = [i for i, y in enumerate(results) if y.requires_grad]
        grads = iter(
            autograd.gradients(
                [results[i] for i in live],
                [x for x, need in zip(copies, needs, strict=True) if need],
                [_widened(values[count + i]) for i in live],
                create_graph=autograd.mode.enabled,
                stop=True,
            )
        )
        return tuple(next(grads) if need else None for need in needs)

    parameters = ["needs", "attrs", *operands, *outputs]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    vjp.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in parameters])  # type: ignore[attr-defined]
    return vjp


def _widened(x: Any) -> Any:
    """16-bit floats as float32, as references get them."""
    return x.astype(dtypes.float32) if isinstance(x, Tensor) and dtypes.is_half(x.dtype) else x


def define_derived(name: str, signature: str, reference: Callable[..., Any], **fields: Any) -> Op:
    """`define` with the derived vjp."""
    return define(name, signature, reference, vjp=derived_vjp(signature, reference), **fields)
