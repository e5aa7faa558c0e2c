"""Resizing and patches: agreement with PyTorch in value and gradient, errors."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
SPATIAL = {1: (7,), 2: (5, 6), 3: (3, 5, 4)}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def compared(torch, ours, theirs, shape):
    array = RNG.normal(size=shape)
    a, b = dl.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    y, z = ours(a), theirs(b)
    assert y.shape == tuple(z.shape)
    g = RNG.normal(size=y.shape)
    y.backward(dl.tensor(g))
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("out", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pooling_agrees_with_torch(rank, out, kind):
    torch = pytest.importorskip("torch")
    ours = getattr(dl, f"adaptive_{kind}_pool")
    theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool{rank}d")
    compared(torch, lambda x: ours(x, out), lambda x: theirs(x, out), (2, 3, *SPATIAL[rank]))


@pytest.mark.torch
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("where", [{"size": 4}, {"size": 9}, {"size": 1}, {"scale_factor": 2}, {"scale_factor": 0.7}])
@pytest.mark.parametrize("mode", ["nearest", "linear", "corners"])
def test_interpolation_agrees_with_torch(rank, where, mode):
    torch = pytest.importorskip("torch")
    corners = mode == "corners"
    ours = {"mode": "nearest" if mode == "nearest" else "linear", "align_corners": corners}
    theirs = {"mode": "nearest"} if mode == "nearest" else {"mode": LINEAR[rank], "align_corners": corners}
    compared(
        torch,
        lambda x: dl.interpolate(x, **where, **ours),
        lambda x: torch.nn.functional.interpolate(x, **where, **theirs),
        (2, 3, *SPATIAL[rank]),
    )


@pytest.mark.torch
@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
def test_pixel_shuffling_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn.functional, name)
    compared(torch, lambda x: getattr(dl, name)(x, 2), lambda x: theirs(x, 2), (2, 8, 4, 6))


@pytest.mark.torch
@pytest.mark.parametrize("attrs", [{}, {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}])
def test_patches_agree_with_torch(attrs):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    compared(torch, lambda x: dl.unfold(x, (2, 3), **attrs), lambda x: F.unfold(x, (2, 3), **attrs), (2, 3, 5, 7))
    shape = dl.unfold(dl.ones((2, 3, 5, 7)), (2, 3), **attrs).shape
    compared(torch, lambda x: dl.fold(x, (5, 7), (2, 3), **attrs), lambda x: F.fold(x, (5, 7), (2, 3), **attrs), shape)


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling(keepdims, device):
    x = RNG.normal(size=(2, 3, 4, 5))
    t = dl.tensor(x, device=device)
    np.testing.assert_allclose(dl.global_avg_pool(t, keepdims).numpy(), x.mean((2, 3), keepdims=keepdims))
    np.testing.assert_array_equal(dl.global_max_pool(t, keepdims).numpy(), x.max((2, 3), keepdims=keepdims))


def test_half_precision_is_weighed_in_single(device):
    x = RNG.normal(size=(1, 1, 64)).astype(np.float16)
    y = dl.adaptive_avg_pool(dl.tensor(x, device=device), 1)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.item(), x.astype(np.float64).mean(), atol=2**-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: dl.interpolate(x), ArgumentError, "interpolate: give either size or scale_factor"),
        (
            lambda x: dl.interpolate(x, 3, mode="cubic"),
            ArgumentError,
            "interpolate: mode must be one of nearest, lin",
        ),
        (lambda x: dl.interpolate(x, 3, align_corners=True), ArgumentError, "interpolate: align_corners is for mode"),
        (lambda x: dl.interpolate(x, scale_factor=-1), ArgumentError, "interpolate: scale_factor must be positive"),
        (lambda x: dl.interpolate(x, scale_factor=0.1), ShapeError, "interpolate: sizes must be at least 1"),
        (lambda x: dl.adaptive_avg_pool(x, 0), ShapeError, "adaptive_avg_pool: sizes must be at least 1"),
        (lambda x: dl.global_avg_pool(x[0, 0]), ShapeError, "global_avg_pool: x must be"),
        (lambda x: dl.pixel_shuffle(x, 2), ShapeError, r"pixel_shuffle: expected x\[N,4\*C,H,W\]; got x\[2, 3, 5, 4\]"),
        (lambda x: dl.pixel_unshuffle(x, 2), ShapeError, r"pixel_unshuffle: expected x\[N,C,2\*H,2\*W\]"),
        (lambda x: dl.fold(x[0], (3, 3), 2), ShapeError, r"fold: expected x\[N,C\*4,4\] for these sizes"),
    ],
)
def test_bad_arguments_give_one_clear_line(call, error, message):
    with pytest.raises(error, match=message):
        call(dl.ones((2, 3, 5, 4)))
