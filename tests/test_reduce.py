"""Reductions and scans where care is needed: empty axes, ties, zeros, infinities, cancellation."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError

inf, nan = math.inf, math.nan


def slope(f, values):
    x = dl.tensor(values, "float64", requires_grad=True)
    f(x).sum().backward()
    return x.grad.tolist()


def test_reductions_of_nothing(device):
    x = dl.zeros((0, 3), device=device)
    assert dl.sum(x, axis=0).tolist() == [0, 0, 0]
    assert dl.prod(x, axis=0).tolist() == [1, 1, 1]
    assert (dl.all(x, axis=0).tolist(), dl.any(x, axis=0).tolist()) == ([True] * 3, [False] * 3)
    for f in (dl.mean, dl.var, dl.std):
        assert dl.isnan(f(x, axis=0)).tolist() == [True] * 3
    assert dl.max(x, axis=1).shape == (0,)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "logsumexp"])
def test_there_is_no_largest_of_nothing(name, device):
    with pytest.raises(ShapeError, match=rf"^{name}: there is no element to choose from over axis 0 of x\[0, 3\]$"):
        getattr(dl, name)(dl.zeros((0, 3), device=device), axis=0)


@pytest.mark.parametrize(("axis", "error"), [(2, IndexRangeError), ((0, 0), IndexRangeError), (0.5, ArgumentError)])
def test_bad_axes_are_refused(axis, error):
    with pytest.raises(error, match=r"^sum: axis"):
        dl.sum(dl.ones((2, 3)), axis=axis)


def test_argmax_takes_one_axis():
    with pytest.raises(ArgumentError, match=r"^argmax: axis must be an int or None; got \(0, 1\)"):
        dl.argmax(dl.ones((2, 3)), axis=(0, 1))
    assert dl.argmax(dl.tensor([[1, 3], [3, 0]])).item() == 1


def test_dtypes_of_results():
    ints = dl.ones((2, 2), "int32")
    assert dl.sum(ints).dtype.name == dl.cumsum(ints).dtype.name == dl.prod(ints).dtype.name == "int64"
    assert dl.sum(ints > 0).item() == 4
    assert dl.mean(ints).dtype.name == dl.var(ints).dtype.name == "float32"
    assert dl.max(ints).dtype.name == "int32"
    assert dl.argmin(ints).dtype.name == "int64"


def test_equal_elements_share_the_gradient_of_max_and_min(device):
    assert slope(dl.max, [3.0, 1.0, 3.0]) == [0.5, 0, 0.5]
    assert slope(lambda x: dl.min(x, axis=1), [[2.0, 2.0], [1.0, 3.0]]) == [[0.5, 0.5], [1, 0]]


def test_max_finds_nan(device):
    assert np.isnan(dl.max(dl.tensor([1.0, nan, 3.0], device=device)).item())


def test_variance_does_not_cancel(device):
    x = dl.tensor([1e4 + 1, 1e4 + 2, 1e4 + 3], "float32", device)
    assert dl.var(x).item() == pytest.approx(2 / 3, rel=1e-6)
    assert dl.var(x, correction=1).item() == pytest.approx(1, rel=1e-6)


def test_variance_with_too_few_elements_is_nan():
    assert np.isnan(dl.var(dl.tensor([1.0]), correction=1).item())


def test_std_of_equal_elements_has_gradient_zero():
    assert slope(dl.std, [2.0, 2.0]) == [0, 0]


def test_16_bit_sums_accumulate_in_float32(device):
    assert dl.sum(dl.ones(4096, "float16", device)).item() == 4096
    assert dl.mean(dl.full(4096, 0.1, "float16", device)).item() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "result", "gradient"),
    [
        ([-inf, -inf], -inf, [0, 0]),
        ([-inf, 0.0], 0, [0, 1]),
        ([inf, 0.0], inf, [1, 0]),
        ([1e4, 1e4], 1e4 + math.log(2), [0.5, 0.5]),
        ([-1e4, -1e4], -1e4 + math.log(2), [0.5, 0.5]),
    ],
)
def test_logsumexp_at_the_extremes(values, result, gradient, device):
    assert dl.logsumexp(dl.tensor(values, "float64", device)).item() == pytest.approx(result)
    assert slope(dl.logsumexp, values) == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0, 3.0, 4.0], [12, 8, 6]), ([2.0, 0.0, 4.0], [0, 8, 0]), ([0.0, 0.0, 4.0], [0, 0, 0])],
)
def test_the_gradient_of_prod_is_exact_at_zeros(values, expected):
    assert slope(dl.prod, values) == expected
    x = [[v, 1.0] for v in values]
    assert slope(lambda x: dl.prod(x, axis=(0, 1)), x)[0][0] == expected[0]


def test_the_second_gradient_of_prod_is_exact_at_zeros():
    x = dl.tensor([0.0, 0.0, 4.0], "float64", requires_grad=True)
    (first,) = dl.gradients(dl.prod(x), [x], create_graph=True)
    (second,) = dl.gradients(first[0], [x])
    assert second.tolist() == [0, 4, 0]


def test_the_gradient_of_cumprod_is_exact_at_zeros():
    assert slope(dl.cumprod, [2.0, 0.0, 3.0]) == [1, 2 + 2 * 3, 0]


def test_scans_in_both_directions(device):
    x = dl.tensor([1, 2, 3, 4], device=device)
    assert dl.cumsum(x).tolist() == [1, 3, 6, 10]
    assert dl.cumsum(x, reverse=True).tolist() == [10, 9, 7, 4]
    assert dl.cumprod(x).tolist() == [1, 2, 6, 24]
    assert dl.cumprod(x, reverse=True).tolist() == [24, 24, 12, 4]


def test_linear_scan_follows_its_recurrence(device):
    a, b = np.random.default_rng(0).normal(size=(2, 3, 11))
    expected, y = np.zeros((3, 11)), np.zeros(3)
    for t in range(11):
        y = expected[:, t] = a[:, t] * y + b[:, t]
    got = dl.ops.scan.linear_scan(dl.asarray(a, device=device), dl.asarray(b, device=device))
    np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize(("ord", "value", "gradient"), [(2, 5, [0.6, -0.8]), (1, 7, [1, -1]), (inf, 4, [0, -1])])
def test_norms(ord, value, gradient):
    x = [3.0, -4.0]
    assert dl.norm(dl.tensor(x), ord=ord).item() == pytest.approx(value)
    assert slope(lambda x: dl.norm(x, ord=ord), x) == pytest.approx(gradient)


@pytest.mark.parametrize("ord", [1, 2, 3])
def test_the_norm_of_zeros_has_gradient_zero(ord):
    assert slope(lambda x: dl.norm(x, ord=ord), [0.0, 0.0]) == [0, 0]


@pytest.mark.parametrize("ord", [0, -1, -inf, nan])
def test_a_norm_needs_a_positive_order(ord):
    with pytest.raises(ArgumentError, match=r"^norm: ord must be positive"):
        dl.norm(dl.ones(2), ord=ord)


def test_count_nonzero():
    assert dl.count_nonzero(dl.tensor([[0.0, 2.0], [nan, 0.0]]), axis=0).tolist() == [1, 1]


def test_sums_do_not_depend_on_the_memory_layout(device):
    a = np.random.default_rng(0).normal(size=(33, 17)).astype(np.float32)
    assert dl.sum(dl.asarray(a, device=device)).item() == dl.sum(dl.asarray(a.copy(), device=device)).item()
