"""`dl.cuda_kernel`: CUDA C that somebody wrote becomes an op, checked at every call."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dlcore import dispatch, dtypes
from dlcore.errors import ArgumentError, BackendError, DTypeError
from dlcore.op import OPS, Op, define
from dlcore.signature import Dims, Signature

Array = Any
Grid = int | tuple[int, ...] | Callable[[Dims], int | tuple[int, ...]]

TYPES = {
    "float": "float32", "double": "float64", "__half": "float16", "__nv_bfloat16": "bfloat16", "int": "int32",
    "long long": "int64", "unsigned char": "bool", "bool": "bool",
}  # fmt: skip
NUMBERS = {"float": "<f4", "double": "<f8", "int": "<i4", "unsigned": "<u4", "long long": "<i8"}
DEFINITION = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')
_own: set[str] = set()


@dataclass(frozen=True)
class Parameter:
    """One parameter of the kernel, as its declaration says."""

    name: str
    type: str
    pointer: bool
    const: bool


def cuda_kernel(
    source: str,
    signature: str,
    *,
    grid: Grid | None = None,
    block: int | tuple[int, ...] = 256,
    shared: int | Callable[[Dims], int] = 0,
    cpu: Callable[..., Any] | None = None,
    vjp: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
    infer: Callable[..., Mapping[str, Any]] | None = None,
) -> Op:
    """An op from a CUDA C kernel; it runs on `cuda`, and on `sim` under the emulator's checks.

    source: one `extern "C" __global__` function, and what it needs; the headers of `kernels/include` can be included.
    Its parameters are matched by name: pointers are the operands (`const`) and outputs of the signature, numbers its
    dimensions, or attributes of the call where no dimension has that name. Arrays arrive contiguous; their dtypes must
    be those of the pointers, and sizes must fit the kernel's integers.
    signature: shapes, as for `dl.op`: `"x[N] y[N] -> z[N]"`.
    grid: blocks, or a function of the dimensions; None: enough for one thread per element of the first output.
    block: threads of a block. shared: bytes of dynamic shared memory, or a function of the dimensions.
    cpu: `cpu(xp, *arrays, **attributes)`, the same in array functions, for the other backends and for tests.
    vjp, infer: gradients, and dimensions of outputs that no operand has, as for `dl.op`.
    Raises ArgumentError where source and signature do not fit together. A kernel of the same name replaces the earlier
    one.

    >>> saxpy = cuda_kernel('''
    ... extern "C" __global__ void saxpy(const float* x, const float* y, float* z, float a, int N) {
    ...   const int i = blockIdx.x * blockDim.x + threadIdx.x;
    ...   if (i < N) z[i] = a * x[i] + y[i];
    ... }''', "x[N] y[N] -> z[N]", cpu=lambda xp, x, y, *, a: a * x + y)
    >>> saxpy(dl.ones(3), dl.ones(3), a=2.0)
    tensor([3., 3., 3.])
    """
    name, parameters = _declared(source)
    if name in OPS and name not in _own:
        raise ArgumentError(f"cuda_kernel: there is an op {name!r} already; take another name")
    parsed = Signature.parse(signature)
    attributes = _matched(name, parameters, parsed, signature)
    if name in _own:
        del OPS[name]
    _own.add(name)
    types = {p.name: dtypes.dtype(TYPES[p.type]) for p in parameters if p.pointer}
    outputs = tuple(types[o.name] for o in parsed.outputs)
    reference = _reference(name, cpu, attributes)
    record = define(
        name,
        signature,
        reference,
        vjp=vjp,
        infer=infer,
        dtype=lambda promoted, attrs: outputs,
        doc=f"CUDA kernel {name}.",
    )
    _implement(record, source, parameters, types, grid, block, shared)
    return record


# ---- source and signature


def _declared(source: str) -> tuple[str, list[Parameter]]:
    found = DEFINITION.findall(re.sub(r"//[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL))
    if len(found) != 1:
        raise ArgumentError(f'cuda_kernel: expected one extern "C" __global__ function; the source has {len(found)}')
    name, declarations = found[0]
    return name, [_parameter(name, d) for d in declarations.split(",") if d.strip()]


def _complete(source: str, name: str) -> str:
    """The source as a kernel file: with the house's header first, and the kernel exported for the emulator."""
    header = "" if "#include" in source else '#include "dl.cuh"\n'
    return f"{header}{source}\n" + ("" if f"DL_EXPORT({name})" in source else f"DL_EXPORT({name})\n")


def _parameter(kernel: str, declaration: str) -> Parameter:
    words = re.sub(r"\b(__restrict__|const)\b|[*]", " ", declaration).split()
    kind, name = " ".join(words[:-1]), words[-1]
    pointer = "*" in declaration
    if kind == "unsigned int":
        kind = "unsigned"
    if kind not in (TYPES if pointer else NUMBERS):
        known = ", ".join(TYPES if pointer else NUMBERS)
        raise ArgumentError(f"cuda_kernel: {kernel}: {declaration.strip()!r} is of no known type ({known})")
    return Parameter(name, kind, pointer, "const" in declaration.split())


def _matched(kernel: str, parameters: Sequence[Parameter], signature: Signature, text: str) -> list[str]:
    """Names of the attributes: numbers that are no dimension. Raises ArgumentError for pointers that do not fit."""
    for p in parameters:
        known = signature.operands if p.const else signature.outputs
        if p.pointer and p.name not in [o.name for o in known]:
            what = "operand" if p.const else "output"
            raise ArgumentError(f"cuda_kernel: {kernel}: the signature has no {what} {p.name!r} for {p.type}* {p.name}")
    pointers = [p.name for p in parameters if p.pointer]
    for o in (*signature.operands, *signature.outputs):
        if o.name not in pointers:
            raise ArgumentError(f"cuda_kernel: {kernel}: no pointer is called {o.name!r}, which the signature names")
    dimensions = set(re.findall(r"[A-Za-z_]\w*", " ".join(re.findall(r"\[([^\]]*)\]", text))))
    return [p.name for p in parameters if not p.pointer and p.name not in dimensions]


def _reference(name: str, cpu: Callable[..., Any] | None, attributes: Sequence[str]) -> Callable[..., Any]:
    def reference(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        if cpu is None:
            raise BackendError(
                f"{name}: a CUDA kernel without a body for the CPU; use device cuda or sim, or pass cpu="
            )
        return cpu(xp, *arrays, **attrs)

    kinds = inspect.Parameter
    keywords = [kinds(a, kinds.KEYWORD_ONLY) for a in attributes]
    given = [kinds("xp", kinds.POSITIONAL_ONLY), kinds("arrays", kinds.VAR_POSITIONAL), *keywords]
    reference.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    return reference


# ---- launches


def _implement(
    op: Op,
    source: str,
    parameters: Sequence[Parameter],
    types: Mapping[str, Any],
    grid: Grid | None,
    block: Any,
    shared: Any,
) -> None:
    operands = [o.name for o in op.signature.operands]
    outputs = [o.name for o in op.signature.outputs]

    @functools.cache
    def module() -> str:
        from dlcore.backends.cuda import compiler

        text = _complete(source, op.name)
        found = f"custom{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        compiler.add(found, text)
        return found

    @dispatch.implement(op.name, "cuda", "kernel", refuse=lambda call: None if call.op is op else "replaced")
    def run(*arrays: Array, **attrs: Any) -> Any:
        from dlcore.backends.cuda.launch import empty, launch
        from dlcore.backends.cuda.ops_copy import contiguous

        _check_types(op.name, operands, arrays, types)
        dims, shapes = op.resolve([a.shape for a in arrays], attrs)
        given = dict(zip(operands, map(contiguous, arrays), strict=True))
        results = {n: empty(s, types[n], arrays[0]) for n, s in zip(outputs, shapes, strict=True)}
        first = results[outputs[0]]
        blocks = -(-first.size // prod(_tuple(block))) if grid is None else grid(dims) if callable(grid) else grid
        bytes_shared = shared(dims) if callable(shared) else shared
        values = [(given | results)[p.name] if p.pointer else _number(op.name, p, dims, attrs) for p in parameters]
        launch(f"{module()}.{op.name}", _tuple(blocks), _tuple(block), *values, like=arrays[0], shared=bytes_shared)
        return tuple(results.values()) if len(results) > 1 else first


def _tuple(n: int | tuple[int, ...]) -> tuple[int, ...]:
    return n if isinstance(n, tuple) else (n,)


def _check_types(name: str, operands: Sequence[str], arrays: Sequence[Array], types: Mapping[str, Any]) -> None:
    for operand, array in zip(operands, arrays, strict=True):
        if array.dtype != types[operand]:
            raise DTypeError(f"{name}: the kernel takes {operand} of {types[operand]}; got {array.dtype}")


def _number(kernel: str, p: Parameter, dims: Dims, attrs: Mapping[str, Any]) -> bytes:
    """A dimension or an attribute as the bytes of the parameter's type."""
    value = attrs[p.name] if p.name in attrs else dims[p.name]
    kind = np.dtype(NUMBERS[p.type])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not limits.min <= value <= limits.max or int(value) != value:
            raise ArgumentError(f"{kernel}: {p.name} = {value} does not fit {p.type}")
    return np.asarray(value, kind).tobytes()
