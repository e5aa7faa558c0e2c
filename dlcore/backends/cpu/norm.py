"""Normalisations and their gradients on `_C`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import implement


def _on_contiguous(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for contiguous operands as a function of any."""

    def call(*arrays: Any, **attrs: Any) -> Any:
        return kernel(*[x if x is None else _C.contiguous(x) for x in arrays], **attrs)

    return call


for _name in (
    "batch_norm", "batch_norm_grad", "batch_norm_inference", "group_norm", "group_norm_grad", "layer_norm",
    "layer_norm_grad", "rms_norm", "rms_norm_grad",
):  # fmt: skip
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64)(_on_contiguous(getattr(_C, _name)))
