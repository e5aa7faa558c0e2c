"""Every op x backend x dtype, generated from the op table."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes, testing
from dlcore.errors import ArgumentError, DTypeError, ShapeError
from dlcore.op import OPS, Op

CASES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in OPS.values() for i, s in enumerate(testing.samples(op))]
DIFFERENTIABLE = [c for c in CASES if c.values[0].vjp is not None]
FLOATS = ["float64", "float32", "float16", "bfloat16"]
INTS = ["int64", "int32"]


def need(op: Op, check: str) -> None:
    if check in op.exempt:
        pytest.skip(op.exempt[check])


def takes_ints(op: Op) -> bool:
    return all(o.kind in ("", "any", "bool", "int") for o in op.signature.operands)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op", "s"), CASES)
def test_value_agrees_with_float64(op, s, dtype, device):
    need(op, "value")
    testing.check_value(op, s, dtype, device)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize(("op", "s"), [c for c in CASES if takes_ints(c.values[0])])
def test_value_of_ints(op, s, dtype, device):
    need(op, "int")
    testing.check_value(op, s, dtype, device)


@pytest.mark.parametrize(("op", "s"), CASES)
def test_strided_operands_give_the_same_value(op, s, device):
    need(op, "value")
    testing.check_value(op, s, "float32", device, strided=True)


@pytest.mark.parametrize(("op", "s"), DIFFERENTIABLE)
def test_gradient_agrees_with_finite_differences(op, s, device):
    need(op, "gradient")
    testing.check_gradient(op, s, device)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("op", "s"), DIFFERENTIABLE)
def test_gradient_agrees_with_float64(op, s, dtype, device):
    need(op, "gradient")
    need(op, "gradient_dtype")
    testing.check_gradient_dtype(op, s, dtype, device)


@pytest.mark.parametrize(("op", "s"), DIFFERENTIABLE)
def test_second_gradient_agrees_with_finite_differences(op, s, device):
    need(op, "gradient")
    need(op, "second_gradient")
    testing.check_second_gradient(op, s, device)


@pytest.mark.parametrize(("op", "s"), CASES)
def test_reference_uses_only_the_array_api(op, s):
    xp = pytest.importorskip("array_api_strict")
    need(op, "array_api")
    values = testing.arrays(op, s)
    strict = [xp.asarray(v.copy()) if isinstance(v, np.ndarray) else v for v in values]
    result = op.reference(xp, *strict, **{**op.attrs, **s.attrs})
    results = result if isinstance(result, tuple) else (result,)
    for got, expected in zip(results, testing.oracle(op, values, s.attrs), strict=True):
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_samples_cover_zero_size_and_size_one(op):
    shapes = [[v.shape for v in testing.arrays(op, s) if isinstance(v, np.ndarray)] for s in testing.samples(op)]
    if "zero_size" not in op.exempt:
        assert any(0 in shape for case in shapes for shape in case), "no sample with a zero-size operand"
    assert len(shapes) >= 2


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_exemptions_are_known_checks_with_reasons(op):
    known = {"value", "int", "gradient", "gradient_dtype", "second_gradient", "array_api", "zero_size"}
    assert op.exempt.keys() <= known
    assert all(len(reason) > 10 for reason in op.exempt.values())


def mismatched(op: Op) -> list | None:
    """Operands of the first sample with one size of a shared dim changed, where the signature has one."""
    s = testing.samples(op)[0]
    values = testing.arrays(op, s)
    seen = set()
    for i, operand in enumerate(op.signature.operands):
        for axis, term in enumerate(operand.terms):
            plain = isinstance(term, str) and not term.endswith("...") and operand.splat in (-1, len(operand.terms))
            if plain and term in seen and isinstance(values[i], np.ndarray):
                pad = [(0, int(a == axis)) for a in range(values[i].ndim)]
                return [*values[:i], np.pad(values[i], pad), *values[i + 1 :]]
            seen.add(term)
    return None


@pytest.mark.parametrize("op", [o for o in OPS.values() if mismatched(o)], ids=lambda o: o.name)
def test_mismatched_shapes_give_one_clear_line(op, device):
    values = mismatched(op)
    with pytest.raises(ShapeError, match=rf"^{op.name}: expected .* got .*") as caught:
        testing.call(op, values, testing.samples(op)[0].attrs, device)
    assert "\n" not in str(caught.value)
    assert dl.ones(2, device=device).sum().item() == 2


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_unknown_attribute_is_refused(op, device):
    s = testing.samples(op)[0]
    with pytest.raises(ArgumentError, match=f"^{op.name}: unknown attribute 'colour'"):
        testing.call(op, testing.arrays(op, s), {**s.attrs, "colour": 1}, device)


def whole_operands(op: Op) -> list:
    """(sample, position) of each array that must be of int or bool dtype."""
    return [
        (s, i)
        for s in testing.samples(op)
        for i, v in enumerate(s.operands)
        if v is not None and op.signature.operand(i).kind in ("int", "bool")
    ]


@pytest.mark.parametrize("op", [o for o in OPS.values() if whole_operands(o)], ids=lambda o: o.name)
def test_wrong_kind_of_dtype_is_refused(op, device):
    s, i = whole_operands(op)[0]
    values = testing.arrays(op, s)
    values[i] = np.asarray(values[i], np.float32)
    with pytest.raises(DTypeError, match=f"^{op.name}: "):
        testing.call(op, values, s.attrs, device)


def test_dtype_of_results_is_what_the_record_says(device):
    assert (dl.ones(2, "float16", device) + dl.ones(2, "float32", device)).dtype == dtypes.float32
