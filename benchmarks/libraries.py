"""The libraries beside which a function of arrays is timed, each imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from benchmarks.row import Run

Function = Callable[..., Any]
"""f(xp, *arrays) in functions that NumPy and JAX name alike."""


def installed(name: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(name) is not None


def run(library: str, f: Function, *arrays: Any) -> Run:
    """`f` of NumPy arrays in a library, waited for."""
    return {"torch": _torch, "numpy": _numpy, "jax": _jax}[library](f, *arrays)


def _numpy(f: Function, *arrays: Any) -> Run:
    numpy = importlib.import_module("numpy")
    return lambda: [f(numpy, *arrays)]


def _torch(f: Function, *arrays: Any) -> Run:
    torch = importlib.import_module("torch")
    tensors = [torch.from_numpy(a) for a in arrays]
    return lambda: [f(torch, *tensors)]


def _jax(f: Function, *arrays: Any) -> Run:
    jax, numpy = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    compiled, own = jax.jit(lambda *x: f(numpy, *x)), [numpy.asarray(a) for a in arrays]
    return lambda: [jax.block_until_ready(compiled(*own))]
