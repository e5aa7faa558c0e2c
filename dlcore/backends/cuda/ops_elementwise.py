"""Element-wise ops on `kernels/elementwise.cu`, and contiguous copies: broadcast operands of any strides."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.dispatch import Call, default_backend, implement
from dlcore.signature import Shape

Array = Any
Strides = tuple[int, ...]

BLOCK = 256
MAX_AXES = 6  # kMaxAxes of strided.cuh
MAX_CHUNKS = 2**31

SUFFIXES = {dtypes.float32: "f32", dtypes.float64: "f64", dtypes.float16: "f16"}
if dtypes.has_bfloat16():
    SUFFIXES[dtypes.bfloat16] = "bf16"
WHOLE = {dtypes.int32: "i32", dtypes.int64: "i64", dtypes.bool_: "b8"}

PLAIN = (
    "negative", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "floor", "ceil", "trunc", "round", "exp",
    "expm1", "log", "log1p", "log2", "sin", "cos", "tanh", "erf", "sigmoid", "relu", "silu", "mish", "logsigmoid",
    "softsign", "add", "subtract", "multiply", "divide", "maximum", "minimum", "pow", "copysign", "relu_grad",
    "sigmoid_grad", "tanh_grad", "silu_grad", "lerp",
)  # fmt: skip
"""Ops that are the kernel of their name."""

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


class Walk(NamedTuple):
    """How a kernel walks its operands: `Walk` of strided.cuh without its scalars, and the chunks of the output."""

    packed: bytes
    chunks: int


@lru_cache(maxsize=4096)
def walk(shape: Shape, strides: tuple[Strides | None, ...], itemsize: int, aligned: bool) -> Walk:
    """Merge axes, and see whether rows move in vectors.

    strides: per operand, in elements, for the broadcast shape; None for a number. aligned: all addresses are
    multiples of 16.
    """
    sizes, steps = merged(shape, [s or (0,) * len(shape) for s in strides])
    vector = max(1, 16 // itemsize)
    inner = sizes[-1]
    per_row = -(-inner // vector)
    outer, outer_steps = sizes[-2::-1], [s[-2::-1] for s in steps]
    rows = int(np.prod(outer, dtype=np.int64))
    whole = aligned and (rows == 1 or inner % vector == 0)
    whole = whole and all(n % vector == 0 for s, own in zip(steps, outer_steps, strict=True) if s[-1] == 1 for n in own)
    padding = [0] * (MAX_AXES - len(outer))
    count = len(strides)
    packed = struct.pack(
        f"<IIq{count * MAX_AXES}q{count}q{MAX_AXES}Iii",
        rows * per_row % MAX_CHUNKS, per_row, inner,
        *[n for s in outer_steps for n in (*s, *padding)], *[s[-1] for s in steps],
        *outer, *padding, len(outer), whole,
    )  # fmt: skip
    return Walk(packed, rows * per_row)


def merged(shape: Shape, strides: list[Strides]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides with neighbouring axes joined where every operand allows it; at least one axis."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if sizes and all(own[-1] == s[axis] * n for own, s in zip(steps, strides, strict=True)):
            sizes[-1] *= n
            for own, s in zip(steps, strides, strict=True):
                own[-1] = s[axis]
        else:
            sizes.append(n)
            for own, s in zip(steps, strides, strict=True):
                own.append(s[axis])
    return (sizes, steps) if sizes else ([1], [[0] for _ in strides])


def broadcast_strides(x: Array, shape: Shape) -> Strides:
    """Strides of `x` in elements as if it had the broadcast shape: 0 along axes that it lacks."""
    missing: int = len(shape) - x.ndim
    own = [0 if n == 1 else s // x.itemsize for n, s in zip(x.shape, x.strides, strict=True)]
    return (0,) * missing + tuple(own)


def run(kernel: str, operands: tuple[Any, ...], dtype: Any, itemsize: int | None = None) -> Array:
    """One launch of an element-wise kernel, `<module>_...`, over broadcast operands, arrays or NumPy scalars.

    itemsize: bytes of an element by which the kernel counts its vectors, where the first array has others.
    """
    arrays = [x for x in operands if not isinstance(x, np.generic)]
    if not arrays:
        arrays = [as_array(operands[0])]
        operands = (*arrays, *operands[1:])
    shape: Shape = np.broadcast_shapes(*[x.shape for x in arrays])
    like = arrays[0]
    y = empty(shape, dtype, like)
    if y.size == 0:
        return y
    address = driver_of(like).address
    aligned = all(address(x) % 16 == 0 for x in (*arrays, y))
    strides = tuple(None if isinstance(x, np.generic) else broadcast_strides(x, shape) for x in operands)
    plan = walk(shape, strides, itemsize or like.itemsize, aligned)
    pointers = [None if isinstance(x, np.generic) else x for x in operands]
    layout = plan.packed + b"".join(map(by_value, operands))
    module = kernel.partition("_")[0]
    launch(f"{module}.{kernel}", grid_of(plan.chunks, like), (BLOCK,), *pointers, y, layout, like=like)
    return y


def as_array(x: Any) -> Array:
    """An array itself; a NumPy scalar as an array on the default device."""
    return default_backend().asarray(x) if isinstance(x, np.generic) else x


def by_value(x: Any) -> bytes:
    """An operand's place in `Walk.scalar`: a float, or 64 bits of a whole number."""
    if not isinstance(x, np.generic):
        return bytes(8)
    return struct.pack("<d", float(x)) if dtypes.kind(x.dtype) == "float" else struct.pack("<Q", int(x) % 2**64)


def grid_of(items: int, like: Array) -> tuple[int]:
    """Blocks that cover the items, or as many as keep the device busy: kernels stride on."""
    return (min(-(-items // BLOCK), 8 * driver_of(like).multiprocessors),)


def refuse(call: Call) -> str | None:
    """Why these kernels do not take a call."""
    return refuse_size(call) if call.dtype in SUFFIXES else f"no kernel for {call.dtype}"


def refuse_size(call: Call) -> str | None:
    """Why no element-wise kernel takes operands of these shapes."""
    shape = np.broadcast_shapes(*[s for s in call.shapes if s is not None])
    if len(shape) > MAX_AXES:
        return f"more than {MAX_AXES} axes"
    return "more than 2**31 elements" if np.prod(shape, dtype=np.int64) >= MAX_CHUNKS else None


def register(op: str, kernel: str, out: Any = None) -> None:
    """Make `kernel` the implementation of an op for floats. out: dtype of its results, if not that of its operands."""

    def native(*operands: Any) -> Array:
        dtype = next(x.dtype for x in operands)
        return run(f"{kernel}_{SUFFIXES[dtype]}", operands, out or dtype)

    implement(op, "cuda", refuse=refuse)(native)


for _name in PLAIN:
    register(_name, f"elementwise_{_name}")
for _name in COMPARISONS:
    register(_name, f"elementwise_{_name}", out=dtypes.bool_)
register("prelu", "elementwise_leaky_relu")


def _with_attribute(op: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    return implement(op, "cuda", refuse=refuse)


def like(x: Array, kernel: str, *operands: Any) -> Array:
    """Run a kernel on operands, to a result of the dtype of `x`."""
    return run(f"{kernel}_{SUFFIXES[x.dtype]}", operands, x.dtype)


@_with_attribute("clip")
def _clip(x: Array, low: Any, high: Any) -> Array:
    low = x.dtype.type(-np.inf) if low is None else low
    high = x.dtype.type(np.inf) if high is None else high
    return like(x, "elementwise_clip", x, low, high)


@_with_attribute("leaky_relu")
def _leaky_relu(x: Array, *, slope: float) -> Array:
    return like(x, "elementwise_leaky_relu", x, x.dtype.type(slope))


@_with_attribute("elu")
def _elu(x: Array, *, alpha: float) -> Array:
    return like(x, "elementwise_elu", x, x.dtype.type(alpha))


@_with_attribute("softplus")
def _softplus(x: Array, *, beta: float) -> Array:
    return like(x, "elementwise_softplus", x, x.dtype.type(beta))


@_with_attribute("gelu")
def _gelu(x: Array, *, approximate: str) -> Array:
    return like(x, "elementwise_gelu_tanh" if approximate == "tanh" else "elementwise_gelu", x)


@_with_attribute("gelu_grad")
def _gelu_grad(g: Array, x: Array, *, approximate: str) -> Array:
    return like(x, "elementwise_gelu_tanh_grad" if approximate == "tanh" else "elementwise_gelu_grad", g, x)
