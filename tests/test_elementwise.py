"""Element-wise functions and activations where formulas break: large arguments, zeros, infinities, ties, NaN."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, DTypeError, ShapeError
from dlcore.op import OPS

ACTIVATIONS = [
    *("sigmoid", "logsigmoid", "softplus", "silu", "mish", "gelu", "tanh", "erf", "softsign", "tanhshrink"),
    *("relu", "leaky_relu", "elu", "celu", "selu"),
    *("hardtanh", "relu6", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "threshold"),
]
inf, nan = math.inf, math.nan


def value_and_slope(f, *at, dtype="float64", device=None):
    """Values, and the gradient of their sum by each operand, as lists."""
    xs = [dl.tensor(v, dtype, device, requires_grad=True) for v in at]
    y = f(*xs)
    y.sum().backward()
    return y.tolist(), *(x.grad.tolist() for x in xs)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_finite_for_large_arguments(name, dtype, device):
    y, slope = value_and_slope(getattr(dl, name), [-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype, device=device)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_nan(name, device):
    assert dl.isnan(getattr(dl, name)(dl.tensor([nan, nan], device=device))).tolist() == [True, True]


def test_tails_keep_their_relative_precision(device):
    x = dl.tensor([-50.0], "float64", device)
    assert dl.sigmoid(x).item() == pytest.approx(math.exp(-50), rel=1e-14)
    assert dl.softplus(x).item() == pytest.approx(math.exp(-50), rel=1e-14)
    assert dl.logsigmoid(-x).item() == pytest.approx(-math.exp(-50), rel=1e-14)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 16 * 2.0**-53), ("float32", 16 * 2.0**-24)])
def test_erf_is_accurate_everywhere(dtype, limit, device):
    x = np.concatenate([np.linspace(-7, 7, 2001), [1e-30, -1e-10, 2 - 1e-9, 2 + 1e-9]]).astype(dtype)
    expected = np.array([math.erf(v) for v in x.tolist()])
    got = np.asarray(dl.erf(dl.asarray(x, device=device)), np.float64)
    assert np.abs(got - expected).max() <= limit
    assert np.all(np.abs(got - expected) <= limit * np.abs(expected))


def test_where_of_two_numbers(device):
    assert dl.where(dl.asarray([True, False], device=device), 1.5, -inf).tolist() == [1.5, -inf]


def test_logaddexp_at_infinities(device):
    y, d1, d2 = value_and_slope(dl.logaddexp, [-inf, inf, 0.0, 1e4], [-inf, 1.0, -inf, 1e4], device=device)
    assert y == [-inf, inf, 0, 1e4 + math.log(2)]
    assert d1 == [0.5, 1, 1, 0.5]
    assert d2 == [0.5, 0, 0, 0.5]


@pytest.mark.parametrize(
    ("base", "exponent", "value", "slope"),
    [
        (0.0, 0, 1, 0),
        (0.0, 1, 0, 1),
        (0.0, 2, 0, 0),
        (0.0, 1.5, 0, 0),
        (0.0, 3, 0, 0),
        (-2.0, 2, 4, -4),
        (-2.0, 3, -8, 12),
        (-2.0, -1, -0.5, -0.25),
        (-2.0, 0, 1, 0),
        (-2.0, 1, -2, 1),
        (4.0, 0.5, 2, 0.25),
        (4.0, -0.5, 0.5, -0.0625),
        (3.0, -2, 1 / 9, -2 / 27),
    ],
)
def test_pow_at_zero_and_negative_bases(base, exponent, value, slope, device):
    y, found = value_and_slope(lambda x: x**exponent, [base], device=device)
    assert (y, found) == ([pytest.approx(value)], [pytest.approx(slope)])
    y, found, _ = value_and_slope(lambda x, e: x**e, [base], [float(exponent)], device=device)
    assert (y, found) == ([pytest.approx(value)], [pytest.approx(slope)])


def test_pow_gives_gradients_to_the_exponent():
    _, by_x, by_e = value_and_slope(dl.pow, [2.0, 0.0, 0.0], [3.0, 2.0, 0.0])
    assert (by_x, by_e) == ([12, 0, 0], [pytest.approx(8 * math.log(2)), 0, 0])
    _, by_e = value_and_slope(lambda e: 2**e, [3.0])
    assert by_e == [pytest.approx(8 * math.log(2))]


def test_pow_of_ints():
    assert (dl.tensor([2, -3]) ** dl.tensor([3, 2])).tolist() == [8, 9]
    assert (dl.tensor([4]) ** 0.5).tolist() == [2.0]
    for exponent in (-1, dl.tensor([-1])):
        with pytest.raises(ArgumentError, match=r"^pow: an int to a negative int power is no int"):
            dl.tensor([2]) ** exponent


def test_squares_and_roots_do_not_go_through_pow():
    seen = []
    x = dl.ones(2)
    with dl.dispatch.listening(lambda event: seen.append(event.op.name)):
        _ = (x**2, x**0.5, x**-1, x**1)
    assert seen == ["square", "sqrt", "reciprocal", "positive"]


@pytest.mark.parametrize(
    ("f", "at", "slopes"),
    [
        (dl.maximum, ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), ([0, 0.5, 1], [1, 0.5, 0])),
        (dl.minimum, ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), ([1, 0.5, 0], [0, 0.5, 1])),
        (dl.hypot, ([0.0, 3.0], [0.0, 4.0]), ([0, 0.6], [0, 0.8])),
        (dl.atan2, ([0.0, 1.0], [0.0, 0.0]), ([0, 0], [0, -1])),
        (dl.copysign, ([-2.0, 0.0], [3.0, -1.0]), ([-1, 0], [0, 0])),
        (dl.abs, ([-1.0, 0.0, 2.0],), ([-1, 0, 1],)),
        (dl.relu, ([-1.0, 0.0, 2.0],), ([0, 0, 1],)),
        (dl.floor, ([1.5],), ([0],)),
    ],
)
def test_gradients_at_ties_and_kinks(f, at, slopes, device):
    assert tuple(value_and_slope(f, *at, device=device)[1:]) == slopes


def test_clip(device):
    y, by_x, by_low = value_and_slope(
        lambda x, low: dl.clip(x, low, 2), [-3.0, -1.0, 0.0, 2.0, 5.0], -1.0, device=device
    )
    assert (y, by_x, by_low) == ([-1, -1, 0, 2, 2], [0, 1, 1, 1, 0], 1)
    assert dl.clip(dl.tensor([1, 9], device=device), max=4).tolist() == [1, 4]
    assert np.isnan(dl.clip(dl.tensor([nan], device=device), 0, 1).item())


def test_rounding_goes_to_even():
    assert dl.round(dl.tensor([0.5, 1.5, 2.5, -0.5])).tolist() == [0, 2, 2, 0]


def test_division_of_ints_rounds_down_and_by_zero_does_not_crash(device):
    x, y = dl.tensor([7, -7, 7, -7], device=device), dl.tensor([2, 2, -2, -2], device=device)
    assert ((x // y).tolist(), (x % y).tolist()) == ([3, -4, -4, 3], [1, 1, -1, -1])
    assert (x // 0).shape == (4,)


@pytest.mark.parametrize("name", ["subtract", "negative", "positive", "sign"])
def test_bools_are_no_numbers_for_signed_arithmetic(name):
    op = OPS[name]
    with pytest.raises(DTypeError, match=f"^{name}: takes no bool operands"):
        op(*[dl.ones(2, "bool")] * op.arity)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_invert"])
def test_floats_have_no_bits(name):
    op = OPS[name]
    with pytest.raises(DTypeError, match=f"^{name}: takes no float operands"):
        op(*[dl.ones(2)] * op.arity)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: dl.gelu(x, approximate="sigmoid"), "^gelu: approximate must be 'none' or 'tanh'; got approximate="),
        (lambda x: dl.softplus(x, beta=0), "^softplus: beta must be positive; got beta=0"),
        (lambda x: dl.celu(x, alpha=0.0), "^celu: alpha must be positive"),
        (lambda x: dl.hardtanh(x, low=2.0), "^hardtanh: low must not exceed high; got low=2.0, high=1.0"),
        (lambda x: dl.softshrink(x, lambd=-1.0), "^softshrink: lambd must not be negative"),
    ],
)
def test_bad_attributes_are_explained(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(dl.ones(2))


def test_prelu_takes_a_slope_per_channel():
    x = dl.tensor(-np.ones((2, 3, 2)))
    assert dl.prelu(x, dl.tensor([1.0, 2.0, 3.0])).tolist() == [[[-1, -1], [-2, -2], [-3, -3]]] * 2
    assert dl.prelu(x, 0.5).tolist() == [[[-0.5] * 2] * 3] * 2


def test_glu_gates_one_half_with_the_other():
    y, slope = value_and_slope(dl.glu, [[4.0, 0.0]])
    assert (y, slope) == ([[2]], [[0.5, 1.0]])
    assert dl.glu(dl.ones((4, 3)), axis=0).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"^glu: axis -1 has odd size 3; got x\[2, 3\]"):
        dl.glu(dl.ones((2, 3)))
