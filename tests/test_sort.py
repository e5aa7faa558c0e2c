"""Sorting, top-k, order statistics and search."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError

nan = math.nan


def test_equal_elements_keep_their_order(device):
    x = dl.tensor([2, 1, 2, 1, 2], device=device)
    assert dl.argsort(x).tolist() == [1, 3, 0, 2, 4]
    assert dl.argsort(x, descending=True).tolist() == [0, 2, 4, 1, 3]
    assert dl.topk(x, 2)[1].tolist() == [0, 2]
    assert dl.topk(x, 3, largest=False)[1].tolist() == [1, 3, 0]


def test_nan_counts_as_largest(device):
    x = dl.tensor([1.0, nan, 0.0], device=device)
    assert dl.argsort(x).tolist() == [2, 0, 1]
    assert dl.argsort(x, descending=True).tolist() == [1, 0, 2]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sort_agrees_with_numpy(axis, device):
    a = np.random.default_rng(0).integers(0, 9, (4, 5))
    assert np.array_equal(dl.sort(dl.asarray(a, device=device), axis=axis), np.sort(a, axis=axis))


def stable(a, descending):
    """Positions in order, by comparing one with another."""

    def rank(i):
        number = a[i].item()
        return [1, 0] if number != number else [0, number]

    return sorted(range(len(a)), key=lambda i: [-v for v in rank(i)] if descending else rank(i))


SORTED = ["float32", "float16", "int32", "int8", "uint8", "uint16", "uint32", "bool", "float64", "int64"]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", SORTED)
def test_ties_zeros_extremes_and_nan_of_every_dtype(dtype, descending, device):
    """Equal elements, of which zeros of either sign are two, keep their order; NaN of every kind is the largest."""
    kind = np.dtype(dtype).kind
    ends = [np.inf, -np.inf, nan, -nan, -0.0, 0.0] if kind == "f" else [False, True] if kind == "b" else []
    ends = [np.iinfo(dtype).min, np.iinfo(dtype).max] if kind in "iu" else ends
    a = np.asarray([*ends, 3, 1, 2, 1, 0, 3, *ends], dtype)
    x = dl.asarray(a, device=device)
    found = dl.argsort(x, descending=descending).tolist()
    assert found == stable(a, descending)
    np.testing.assert_array_equal(dl.sort(x, descending=descending).numpy(), a[found])
    for k in (0, 1, 5, len(a)):
        values, places = dl.topk(x, k, largest=descending)
        assert places.tolist() == found[:k]
        np.testing.assert_array_equal(values.numpy(), a[found[:k]])


def test_gradients_return_to_where_elements_came_from():
    x = dl.tensor([3.0, 1.0, 2.0], requires_grad=True)
    (dl.sort(x) * dl.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [100, 1, 10]
    x.grad = None
    dl.topk(x, 2)[0].sum().backward()
    assert x.grad.tolist() == [1, 0, 1]


@pytest.mark.parametrize("k", [-1, 4])
def test_topk_needs_enough_elements(k):
    with pytest.raises(ArgumentError, match=rf"^topk: k must lie in \[0, 3\] for axis -1 of x\[2, 3\]; got {k}"):
        dl.topk(dl.ones((2, 3)), k)


def test_a_bad_axis_is_refused():
    with pytest.raises(IndexRangeError, match=r"^sort: axis 2 is out of range for 2 dimensions"):
        dl.sort(dl.ones((2, 3)), axis=2)


@pytest.mark.parametrize("q", [0, 0.1, 0.5, 0.77, 1])
@pytest.mark.parametrize(("axis", "keepdims"), [(None, False), (None, True), (0, False), (1, True), (-1, False)])
def test_quantiles_agree_with_numpy(q, axis, keepdims):
    a = np.random.default_rng(0).normal(size=(4, 5))
    got = dl.quantile(dl.asarray(a), q, axis, keepdims)
    np.testing.assert_allclose(got, np.quantile(a, q, axis=axis, keepdims=keepdims), rtol=1e-14)


def test_the_median_lies_between_the_middle_elements():
    x = dl.tensor([9.0, 1.0, 2.0, 4.0], requires_grad=True)
    y = dl.median(x)
    y.backward()
    assert (y.item(), x.grad.tolist()) == (3, [0, 0, 0.5, 0.5])


def test_bad_quantiles_are_refused():
    with pytest.raises(ArgumentError, match=r"^quantile: q must lie in \[0, 1\]; got 2"):
        dl.quantile(dl.ones(3), 2)
    with pytest.raises(ShapeError, match=r"^quantile: there is no element over axis 1 of x\[2, 0\]"):
        dl.quantile(dl.ones((2, 0)), 0.5, axis=1)


@pytest.mark.parametrize(("side", "expected"), [("left", [0, 1, 1, 3]), ("right", [0, 1, 3, 3])])
def test_searchsorted_before_and_after_equal_boundaries(side, expected, device):
    boundaries = dl.tensor([1.0, 2.0, 2.0], device=device)
    x = dl.tensor([0.0, 1.5, 2.0, 9.0], device=device)
    assert dl.searchsorted(boundaries, x, side=side).tolist() == expected
    with pytest.raises(ArgumentError, match=r"^searchsorted: side must be 'left' or 'right'; got 'middle'"):
        dl.searchsorted(boundaries, x, side="middle")


def test_unique_gives_positions_and_counts(device):
    x = dl.tensor([[3, 1], [3, 2]], device=device)
    values, inverse, counts = dl.unique(x)
    assert (values.tolist(), inverse.tolist(), counts.tolist()) == ([1, 2, 3], [[2, 0], [2, 1]], [1, 1, 2])
    assert values.device == device
