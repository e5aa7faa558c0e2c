"""`dl.elementwise`: a Python function of numbers becomes an op, with its gradients, on every backend."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlcore import dispatch, dtypes
from dlcore.custom.expression import Expression, Variable, derivative, shifted, written
from dlcore.custom.scalar import read
from dlcore.dispatch import Call
from dlcore.errors import ArgumentError
from dlcore.op import OPS, Op, define

Array = Any
RESERVED = ("g", "xp", "needs", "attrs", "result")
_own: set[str] = set()  # ops that were made here, which may be made anew

REPLACED = "the kernel of another function of that name"
LARGE = 2**15  # elements for which numba takes its threads


def elementwise(f: Callable[..., Any]) -> Op:
    """Decorator: an op that applies a Python function of numbers to broadcast tensors, element by element.

    The function takes numbers and returns one. It may use assignments, `if`, conditional expressions, comparisons,
    `and`, `or`, `not`, + - * / **, `abs`, `min`, `max`, functions of `math` (exp, log, sqrt, sin, tanh, ...), numbers
    from outside, which are read once, and other such functions. Gradients of every order are derived from it. It runs
    as one pass over memory: on `cpu` through numba (`pip install dlcore[numba]`; without it as NumPy calls), on a GPU
    as a CUDA kernel that is written and compiled for it.

    The plain function stays available as `.scalar`. A function of the same name replaces the earlier one.
    Raises ArgumentError with the line that has no element-wise form.

    >>> @elementwise
    ... def huber(x, width):
    ...     return 0.5 * x * x if abs(x) <= width else width * (abs(x) - 0.5 * width)
    >>> huber(dl.tensor([0.5, -3.0]), 1.0)
    tensor([0.125, 2.5  ])
    """
    names, expression = read(f)
    if f.__name__ in OPS and f.__name__ not in _own:
        raise ArgumentError(f"elementwise: there is an op {f.__name__!r} already; take another name")
    for name in names:
        if name in RESERVED or re.fullmatch(r"g\d+", name):
            raise ArgumentError(f"elementwise: {f.__name__}: a parameter must not be called {name!r}")
    record = _define(f.__name__, names, expression, inspect.getdoc(f) or f"{f.__name__}, element by element.")
    object.__setattr__(record, "scalar", f)
    return record


def _define(name: str, names: Sequence[str], x: Expression, doc: str) -> Op:
    if name in _own:
        del OPS[name]
    _own.add(name)
    spec = " ".join(f"{n}[...]:float" for n in names) + " -> result[...]"
    text = _array_text(names, x)
    record = define(name, spec, _function(text, "reference"), vjp=_rules(name, names, x), doc=doc)
    _numba(record, names, x)
    _cuda(record, names, x)
    return record


def _function(text: str, name: str, **names: Any) -> Callable[..., Any]:
    exec(compile(text, "<elementwise>", "exec"), names)
    found: Callable[..., Any] = names[name]
    return found


def _number(value: float) -> str:
    """Python text of a number; `inf` and `nan` have no literal."""
    return repr(value) if abs(value) < float("inf") else f"float('{value}')"


def _array_text(names: Sequence[str], x: Expression) -> str:
    """The definition, in array functions."""
    statements, result = written(x, "array", "x{}", lambda v: f"xp.asarray({_number(v)}, dtype=x0.dtype)")
    given = ", ".join(f"x{i}" for i in range(len(names)))
    body = [f"    {given}{',' * (len(names) == 1)} = xp.broadcast_arrays({given})", "    one = xp.ones_like(x0)"]
    body += [f"    {name} = {text}" for name, text, _ in statements]
    return "\n".join([f"def reference(xp, {given}):", *body, f"    return {result} * one"])


# ---- gradients: ops of the same kind, defined when they are first asked for


def _rules(name: str, names: Sequence[str], x: Expression) -> dict[str, Callable[..., Any]]:
    return {n: _rule(name, names, x, i) for i, n in enumerate(names)}


def _rule(name: str, names: Sequence[str], x: Expression, index: int) -> Callable[..., Any]:
    """The vjp `(g, *operands) -> g * d x / d operand`; its parameters have the operands' names."""

    @functools.cache
    def gradient() -> Op:
        slope = Variable(0) * shifted(derivative(x, index), 1)
        doc = f"Gradient of {name} for {names[index]}."
        return _define(f"{name}_d{names[index]}", [f"g{len(names)}", *names], slope, doc)

    def rule(g: Any, *operands: Any) -> Any:
        return gradient()(g, *operands)

    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("g", *names)]
    rule.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return rule


# ---- numba


def _numba(op: Op, names: Sequence[str], x: Expression) -> None:
    statements, result = written(x, "python", "x{}", lambda v: f"R({_number(v)})")
    given = ", ".join(f"x{i}" for i in range(len(names)))
    text = "\n".join([f"def scalar({given}):", *(f"    {n} = {t}" for n, t, _ in statements), f"    return {result}"])

    @functools.cache
    def compiled(dtype: Any, target: str) -> Callable[..., Array]:
        import numba

        kind = getattr(numba, dtype.name)
        scalar = _function(text, "scalar", math=math, R=dtype.type)
        found: Callable[..., Array] = numba.vectorize([kind(*[kind] * len(names))], target=target)(scalar)
        return found

    @dispatch.implement(op.name, "cpu", "numba", refuse=lambda call: _refuse_numba(call, op))
    def run(*operands: Array) -> Array:
        large = max(o.size for o in operands) >= LARGE
        with np.errstate(all="ignore"):
            return np.asarray(compiled(operands[0].dtype, "parallel" if large else "cpu")(*operands))


def _refuse_numba(call: Call, op: Op) -> str | None:
    if call.op is not op:
        return REPLACED
    if call.dtype not in (dtypes.float32, dtypes.float64):
        return f"no kernel for {call.dtype}"
    return None if importlib.util.find_spec("numba") else "numba is not installed (pip install dlcore[numba])"


# ---- CUDA

KERNEL = """// Written by dl.elementwise for {name}({given}).
#include "elementwise.cuh"

template <class R>
DL_DEVICE R value({parameters}) {{
{body}
  return R({result});
}}

#define DL_CUSTOM(T, suffix)                                                                  \\
  extern "C" __global__ void __launch_bounds__(256)                                           \\
      {kernel}_##suffix({pointers}, T* y, const __grid_constant__ Walk<{count}> walk) {{        \\
    constexpr int V = kPerVector<T>;                                                          \\
    each_chunk<V>(walk, [&](const Chunk<{count}>& chunk) {{                                     \\
      Vec<T, V> {vectors}, out;                                                               \\
      {loads}                                                                                 \\
      DL_UNROLL                                                                               \\
      for (int j = 0; j < V; ++j) out.at[j] = narrow<T>(value<wide<T>>({values}));            \\
      store_chunk(y, chunk.out, chunk.count, walk.vectors, out);                              \\
    }});                                                                                       \\
  }}                                                                                           \\
  DL_EXPORT({kernel}_##suffix)
DL_FOR_FLOATS(DL_CUSTOM)
"""


def _cuda(op: Op, names: Sequence[str], x: Expression) -> None:
    @functools.cache
    def kernel() -> str:
        from dlcore.backends.cuda import compiler

        text, found = _cuda_text(op.name, names, x)
        compiler.add(found.partition("_")[0], text)
        return found

    @dispatch.implement(op.name, "cuda", "generated", refuse=lambda call: _refuse_cuda(call, op))
    def run(*operands: Array) -> Array:
        from dlcore.backends.cuda import ops_elementwise

        dtype = operands[0].dtype
        return ops_elementwise.run(f"{kernel()}_{ops_elementwise.SUFFIXES[dtype]}", operands, dtype)


def _refuse_cuda(call: Call, op: Op) -> str | None:
    from dlcore.backends.cuda import ops_elementwise

    return ops_elementwise.refuse(call) if call.op is op else REPLACED


def _cuda_text(name: str, names: Sequence[str], x: Expression) -> tuple[str, str]:
    """The kernel file, and the kernel's name without the suffix of the dtype."""
    statements, result = written(x, "cuda", "x{}", _cuda_number)
    body = "\n".join(f"  const {'bool' if truth else 'R'} {n} = {t};" for n, t, truth in statements)
    indices = range(len(names))
    kernel = f"custom{hashlib.sha256((name + body + result).encode()).hexdigest()[:12]}_{name}"
    text = KERNEL.format(
        name=name,
        given=", ".join(names),
        parameters=", ".join(f"[[maybe_unused]] R x{i}" for i in indices),
        body=body,
        result=result,
        kernel=kernel,
        count=len(names),
        pointers=", ".join(f"const T* x{i}" for i in indices),
        vectors=", ".join(f"in{i}" for i in indices),
        loads=" ".join(f"load_operand<{i}>(x{i}, walk, chunk, in{i});" for i in indices),
        values=", ".join(f"widen(in{i}.at[j])" for i in indices),
    )
    return text, kernel


def _cuda_number(value: float) -> str:
    if math.isinf(value):
        return "(-log(R(0)))" if value > 0 else "log(R(0))"
    return f"R({value!r})"
