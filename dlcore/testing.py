"""Checks that follow from an op's record. The test-suite runs them on the whole table; use them for your own ops.

>>> from dlcore import testing
>>> for s in testing.samples(cube):
...     testing.check_value(cube, s), testing.check_gradient(cube, s), testing.check_second_gradient(cube, s)
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dlcore import autograd, dtypes
from dlcore.creation import tensor
from dlcore.dispatch import promotion
from dlcore.op import Arr, Op, Sample, sample
from dlcore.signature import Operand
from dlcore.tensor import Tensor

Array = np.ndarray[Any, Any]
STEP = 1e-6  # of central differences in float64
TOLERANCE = {"float64": 64 * 2.0**-53, "float32": 64 * 2.0**-24, "float16": 2 * 2.0**-11, "bfloat16": 2 * 2.0**-8}
"""Largest accepted error, relative to the largest element: rounding of f32 sums, one rounding of a 16-bit result."""


def samples(op: Op) -> list[Sample]:
    """The op's own samples, or odd, size-1 and zero-size ones derived from its signature."""
    return list(op.samples()) if op.samples else list(_derived(op))


def _derived(op: Op) -> Iterator[Sample]:
    for sizes in (itertools.cycle([3, 5, 2, 7]), itertools.repeat(1), itertools.cycle([3, 0, 2])):
        known: dict[str, Any] = {}
        yield sample(*(Arr(_shape(o, known, sizes), dtype=_fixed_dtype(o)) for o in op.signature.operands))


def _shape(operand: Operand, known: dict[str, Any], sizes: Iterator[int]) -> tuple[int, ...]:
    found: list[int] = []
    for term in operand.terms:
        if isinstance(term, int):
            found.append(term)
        elif isinstance(term, tuple):
            found.append(term[0] * known.setdefault(term[1], next(sizes)))
        elif term.endswith("..."):
            found += known.setdefault(term, (next(sizes), next(sizes)))
        else:
            found.append(known.setdefault(term, next(sizes)))
    return tuple(found)


def _fixed_dtype(operand: Operand) -> str | None:
    return {"int": "int64", "bool": "bool"}.get(operand.kind)


def arrays(op: Op, s: Sample, dtype: Any = np.float64, *, strided: bool = False) -> list[Any]:
    """NumPy operands of a sample, the same at every call. strided: with a non-contiguous memory layout."""
    rng = np.random.default_rng(zlib.crc32(op.name.encode()))
    made = [_draw(rng, x, dtype) for x in s.operands]
    return [_strided(x) if strided and isinstance(x, np.ndarray) and x.ndim else x for x in made]


def _draw(rng: np.random.Generator, x: Any, dtype: Any) -> Any:
    if isinstance(x, tuple):
        x = Arr(x)
    if not isinstance(x, Arr):
        return x
    wanted = dtypes.dtype(x.dtype or dtype)
    if dtypes.kind(wanted) == "bool":
        return np.asarray(rng.random(x.shape) < 0.5)
    if dtypes.kind(wanted) == "int":
        return rng.integers(int(x.low or 0), int(9 if x.high is None else x.high), x.shape).astype(wanted)
    if x.distinct:
        return _distinct(rng, x).astype(wanted)
    bounded = x.low is not None and x.high is not None
    drawn = rng.uniform(x.low, x.high, x.shape) if bounded else rng.normal(size=x.shape)  # type: ignore[arg-type]
    return np.asarray(drawn).astype(wanted)


def _distinct(rng: np.random.Generator, x: Arr) -> Array:
    """Values without ties, none at 0, spread over [low, high]."""
    low, high = (-2.0, 2.0) if x.low is None or x.high is None else (x.low, x.high)
    count = int(np.prod(x.shape))
    return rng.permutation((np.arange(count) + 0.3) / max(count, 1) * (high - low) + low).reshape(x.shape)


def _strided(x: Array) -> Array:
    """Equal values over every second element of each axis, in reversed axis order."""
    wide = np.zeros(tuple(2 * n for n in reversed(x.shape)), x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim].T
    view[...] = x
    return view


def oracle(op: Op, values: Sequence[Any], attrs: Any) -> list[Array]:
    """The reference's results in float64."""
    wide = [_widest(v) for v in values]
    with np.errstate(all="ignore"):
        result = op.reference(np, *wide, **{**op.attrs, **attrs})
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


def _widest(value: Any) -> Any:
    floating = isinstance(value, np.ndarray) and dtypes.kind(value.dtype) == "float"
    return value.astype(np.float64) if floating else value


def call(
    op: Op, values: Sequence[Any], attrs: Any, device: str, *, requires_grad: bool = False
) -> tuple[Any, list[Any]]:
    """Run an op on tensors made from NumPy operands; returns the outputs (a tuple) and the operands."""
    operands = [_placed(v, device, requires_grad) for v in values]
    result = op(*operands, **attrs)
    return (result if isinstance(result, tuple) else (result,)), operands


def _placed(value: Any, device: str, requires_grad: bool) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    from dlcore.creation import asarray

    placed = asarray(value, device=device)
    floating = dtypes.kind(placed.dtype) == "float"
    return placed.detach(requires_grad=True) if requires_grad and floating else placed


def error(got: Any, expected: Any) -> float:
    """Largest difference relative to the largest finite expected element; NaN and infinities must match exactly."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape, f"shape {a.shape}, expected {b.shape}"
    finite = np.isfinite(b)
    np.testing.assert_array_equal(a[~finite], b[~finite])
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(np.abs(b[finite]).max(), 1e-30))


def assert_close(got: Any, expected: Any, dtype: Any) -> None:
    """Raise AssertionError when `got` is further from `expected` than TOLERANCE allows for `dtype`."""
    found, limit = error(got, expected), TOLERANCE[dtypes.dtype(dtype).name]
    assert found <= limit, f"error {found:.3g} exceeds {limit:.3g} in {dtypes.dtype(dtype).name}"


def check_value(op: Op, s: Sample, dtype: Any = "float32", device: str = "numpy", *, strided: bool = False) -> None:
    """Outputs agree with the reference in float64, and have the shapes and dtypes that the record says."""
    values = arrays(op, s, dtypes.dtype(dtype), strided=strided)
    outputs, _ = call(op, values, s.attrs, device)
    promised = op.output_dtypes(promotion(op, values)[0], {**op.attrs, **s.attrs}, len(outputs))
    assert [y.dtype for y in outputs] == promised, f"dtypes {[y.dtype for y in outputs]}, promised {promised}"
    for got, expected in zip(outputs, oracle(op, values, s.attrs), strict=True):
        assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
        if dtypes.kind(got.dtype) == "float":
            half_in_half_out = dtypes.is_half(got.dtype) or dtypes.kind(dtypes.dtype(dtype)) != "float"
            assert_close(got, expected, got.dtype if half_in_half_out else dtype)
        else:
            np.testing.assert_array_equal(np.asarray(got), expected)


def _float_inputs(operands: Sequence[Any]) -> list[Tensor]:
    return [x for x in operands if isinstance(x, Tensor) and x.requires_grad]


def _loss(op: Op, outputs: Sequence[Tensor]) -> Tensor:
    """A scalar that weighs every output element differently; a plain 0 where no output is floating-point."""
    rng = np.random.default_rng(1)
    total: Any = tensor(0.0, np.float64, outputs[0].device)
    for y in outputs:
        if dtypes.kind(y.dtype) == "float":
            weights = tensor(rng.uniform(0.5, 1.5, y.shape), y.dtype, y.device)
            total = (y * weights).sum() + total
    return total  # type: ignore[no-any-return]


def gradient(op: Op, values: Sequence[Any], attrs: Any, device: str) -> tuple[list[Array], list[int]]:
    """Gradients of a weighted sum of the outputs for each differentiable operand, with the operands' positions."""
    outputs, operands = call(op, values, attrs, device, requires_grad=True)
    total = _loss(op, outputs)
    inputs = _float_inputs(operands)
    found = autograd.gradients(total, inputs) if total.requires_grad else [None] * len(inputs)
    where = [i for i, x in enumerate(operands) if isinstance(x, Tensor) and x.requires_grad]
    return [np.asarray(np.zeros(x.shape) if g is None else g) for g, x in zip(found, inputs, strict=True)], where


def check_gradient(op: Op, s: Sample, device: str = "numpy") -> None:
    """The gradient along a random direction agrees with a central difference, in float64."""
    values = arrays(op, s)
    found, where = gradient(op, values, s.attrs, device)
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=g.shape) for g in found]

    def loss(step: float) -> float:
        moved = list(values)
        for i, v in zip(where, directions, strict=True):
            moved[i] = np.asarray(values[i] + step * v)
        with autograd.no_grad():
            return float(_loss(op, call(op, moved, s.attrs, device)[0]).item())

    _assert_slope(sum(float((g * v).sum()) for g, v in zip(found, directions, strict=True)), loss, found)


def _assert_slope(analytic: float, f: Any, scale: Sequence[Array]) -> None:
    numeric = (f(STEP) - f(-STEP)) / (2 * STEP)
    size = 1 + abs(f(0.0)) + max((float(np.abs(g).max()) for g in scale if g.size), default=0.0)
    assert abs(analytic - numeric) <= 2e-8 * size * max(len(scale), 1) + 1e-6 * abs(numeric), (
        f"analytic slope {analytic:.9g}, numeric {numeric:.9g}"
    )


def check_gradient_dtype(op: Op, s: Sample, dtype: Any, device: str) -> None:
    """The gradient in `dtype` agrees with the one in float64 of the reference backend."""
    values = arrays(op, s, dtypes.dtype(dtype))
    got, _ = gradient(op, values, s.attrs, device)
    expected, _ = gradient(op, [_widest(v) for v in values], s.attrs, "numpy")
    for a, b in zip(got, expected, strict=True):
        found, limit = error(a, b), 4 * TOLERANCE[dtypes.dtype(dtype).name]  # a gradient rounds at several ops
        assert found <= limit, f"gradient error {found:.3g} exceeds {limit:.3g}"


def check_second_gradient(op: Op, s: Sample, device: str = "numpy") -> None:
    """The gradient of (gradient along a fixed direction) agrees with a central difference, in float64."""
    values = arrays(op, s)
    rng = np.random.default_rng(3)
    outputs, operands = call(op, values, s.attrs, device, requires_grad=True)
    inputs = _float_inputs(operands)
    where = [i for i, x in enumerate(operands) if isinstance(x, Tensor) and x.requires_grad]
    weights = [rng.normal(size=x.shape) for x in inputs]
    directions = [rng.normal(size=x.shape) for x in inputs]
    loss = _loss(op, outputs)
    if not loss.requires_grad:
        return
    first = autograd.gradients(loss, inputs, create_graph=True)
    total = _weighted(first, weights, device)
    recorded = isinstance(total, Tensor) and total.requires_grad
    second = autograd.gradients(total, inputs) if recorded else [None] * len(inputs)
    found = [np.zeros(x.shape) if h is None else np.asarray(h) for h, x in zip(second, inputs, strict=True)]

    def slope(step: float) -> float:
        moved = list(values)
        for i, v in zip(where, directions, strict=True):
            moved[i] = np.asarray(values[i] + step * v)
        return sum(float((g * w).sum()) for g, w in zip(gradient(op, moved, s.attrs, device)[0], weights, strict=True))

    analytic = sum(float((h * v).sum()) for h, v in zip(found, directions, strict=True))
    _assert_slope(analytic, slope, found)


def _weighted(grads: Sequence[Tensor | None], weights: Sequence[Array], device: str) -> Any:
    total: Any = 0.0
    for g, w in zip(grads, weights, strict=True):
        if g is not None:
            total = (g * tensor(w, g.dtype, device)).sum() + total
    return total
