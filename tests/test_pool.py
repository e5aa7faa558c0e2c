"""What users call for pooling: agreement with PyTorch, special values, errors."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
SPATIAL = {1: (11,), 2: (7, 6), 3: (5, 6, 7)}
WINDOWS = [(2, None, 0), (3, 1, 1), (3, 2, 1), (3, 4, 0), (2, 3, 1)]


def compared(torch, ours, theirs, array):
    """Values and gradients of both sides for the same operand; the first output of each where there are several."""
    a, b = dl.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    y, z = ours(a), theirs(b)
    several = isinstance(y, tuple)
    if several:
        np.testing.assert_array_equal(y[1].numpy(), z[1].numpy())
        y, z = y[0], z[0]
    g = RNG.normal(size=y.shape)
    y.backward(dl.tensor(g))
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_pool_agrees_with_torch(rank, kernel, stride, padding, ceil_mode, dilation):
    torch = pytest.importorskip("torch")
    attrs = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "dilation": dilation}
    ours, theirs = getattr(dl, f"max_pool{rank}d"), getattr(torch.nn.functional, f"max_pool{rank}d")
    array = RNG.permutation(2 * 3 * np.prod(SPATIAL[rank])).astype(np.float64).reshape(2, 3, *SPATIAL[rank])
    compared(
        torch,
        lambda x: ours(x, kernel, **attrs, return_indices=True),
        lambda x: theirs(x, kernel, **attrs, return_indices=True),
        array,
    )


@pytest.mark.torch
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool_agrees_with_torch(rank, kernel, stride, padding, ceil_mode, include):
    torch = pytest.importorskip("torch")
    attrs = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": include}
    ours, theirs = getattr(dl, f"avg_pool{rank}d"), getattr(torch.nn.functional, f"avg_pool{rank}d")
    array = RNG.normal(size=(2, 3, *SPATIAL[rank]))
    compared(torch, lambda x: ours(x, kernel, **attrs), lambda x: theirs(x, kernel, **attrs), array)


def test_padding_never_wins(device):
    y = dl.max_pool2d(dl.full((1, 1, 2, 2), -3.0, device=device), 3, stride=1, padding=1)
    np.testing.assert_array_equal(y.numpy(), np.full((1, 1, 2, 2), -3.0))


def test_first_of_equals_wins_and_nan_beats_all(device):
    x = dl.tensor([[[[1.0, 1.0, np.nan, 5.0, 5.0, np.nan]]]], device=device)
    y, i = dl.max_pool2d(x, (1, 2), return_indices=True)
    np.testing.assert_array_equal(y.numpy().ravel(), [1, np.nan, np.nan])
    np.testing.assert_array_equal(i.numpy().ravel(), [0, 2, 5])


def test_window_of_minus_infinity_points_into_the_window(device):
    x = dl.full((1, 1, 1, 4), -np.inf, device=device)
    _, i = dl.max_pool2d(x, (1, 2), return_indices=True)
    np.testing.assert_array_equal(i.numpy().ravel(), [0, 2])


@pytest.mark.parametrize("pool", [dl.max_pool2d, dl.avg_pool2d])
def test_window_in_the_padding_is_refused(pool):
    with pytest.raises(ShapeError, match=r"a window of 2 \(dilation 1\) lies wholly in the padding of 2"):
        pool(dl.ones((1, 1, 4, 4)), 2, padding=2)


@pytest.mark.parametrize("pool", [dl.max_pool2d, dl.avg_pool2d])
def test_kernel_longer_than_the_input_is_refused(pool):
    with pytest.raises(ShapeError, match=r"a kernel of 5 \(dilation 1\) is longer than an axis of 4 padded by 0"):
        pool(dl.ones((1, 1, 4, 4)), 5)


@pytest.mark.parametrize("attrs", [{"stride": 0}, {"padding": -1}, {"stride": (1, 1, 1)}, {"padding": "same"}])
def test_bad_attribute_is_refused(attrs):
    with pytest.raises(ArgumentError, match=f"max_pool2d: {next(iter(attrs))} must be"):
        dl.max_pool2d(dl.ones((1, 1, 4, 4)), 2, **attrs)


def test_wrong_rank_is_refused():
    with pytest.raises(ShapeError, match=r"avg_pool1d: x must have 3 dimensions; got shape \(4, 4\)"):
        dl.avg_pool1d(dl.ones((4, 4)), 2)
