"""A family's inputs on a device, and the same numbers in float64 on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

import dlcore as dl
from benchmarks.static.families import Family
from dlcore import dtypes
from dlcore.dispatch import get_backend


class Operands:
    """Makes a call's inputs at its first run, as `sample.Arrays` does; every later run gets the same tensors."""

    def __init__(self, device: str, tensors: list[dl.Tensor] | None = None) -> None:
        self.device, self.tensors = device, tensors or []
        self._drawn: list[np.ndarray[Any, Any]] = []
        self._rng, self._next = np.random.default_rng(0), 0

    def __call__(self, *shape: int, dtype: Any = dtypes.float32, below: int = 0) -> dl.Tensor:
        """A tensor: numbers from 0.5 to 1.5, or whole ones below a limit."""
        if self._next == len(self.tensors):
            drawn = self._rng.integers(below, size=shape) if below else self._rng.uniform(0.5, 1.5, shape)
            self._drawn.append(drawn.astype(dtype))
            self.tensors.append(dl.asarray(drawn.astype(dtype), device=self.device))
        self._next += 1
        return self.tensors[self._next - 1]

    def run(self, call: Any, size: int) -> Any:
        """The call's result."""
        self._next = 0
        return call(self, size)

    def wide(self) -> Operands:
        """The numbers as they were drawn, whatever was written in place since, for `numpy`; floats in float64."""
        return Operands("numpy", [dl.asarray(_wide(x), device="numpy") for x in self._drawn])


def _wide(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.astype(np.float64) if dtypes.kind(x.dtype) == "float" else x


def exact(family: Family, operands: Operands, size: int) -> list[np.ndarray[Any, Any]]:
    """Results of the references in float64."""
    return on_host(operands.wide().run(family.exact or family.call, size), "numpy")


def on_host(result: Any, device: str) -> list[np.ndarray[Any, Any]]:
    """Results, tensors or arrays of a device, as NumPy arrays."""
    return [get_backend(device).to_numpy(getattr(x, "_array", x)) for x in listed(result)]


def listed(result: Any) -> list[Any]:
    """One result or several as a list."""
    return list(result) if isinstance(result, (tuple, list)) else [result]
