"""Reductions on `_C`: sums in double, in an order that depends on the shape alone."""

from __future__ import annotations

from dlcore import _C
from dlcore.backends.cpu.elementwise import refuse_all_but_f32_f64
from dlcore.dispatch import implement

for _name in ("sum", "mean", "var", "std", "max", "min", "argmax", "argmin", "sum_to"):
    implement(_name, "cpu", refuse=refuse_all_but_f32_f64)(getattr(_C, _name))
