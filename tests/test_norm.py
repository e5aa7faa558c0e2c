"""Normalisations as users call them: agreement with PyTorch, statistics, errors; higher gradients of fused ops."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)


def compared(torch, ours, theirs, *shapes):
    """Values, gradients and second gradients of both sides for the same random operands."""
    arrays = [RNG.normal(size=s) for s in shapes]
    a = [dl.tensor(v, requires_grad=True) for v in arrays]
    b = [torch.tensor(v, requires_grad=True) for v in arrays]
    y, z = ours(*a), theirs(*b)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-12)
    first = dl.gradients((y * y * y).sum(), a, create_graph=True)
    expected = torch.autograd.grad((z * z * z).sum(), b, create_graph=True)
    second = dl.gradients(sum((g * g).sum() for g in first), a)
    expected_second = torch.autograd.grad(sum((g * g).sum() for g in expected), b, allow_unused=True)
    for got, wanted in zip(first, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted.detach().numpy(), atol=1e-10)
    for got, wanted in zip(second, expected_second, strict=True):
        np.testing.assert_allclose(0 if got is None else got.numpy(), 0 if wanted is None else wanted, atol=1e-8)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 2), (2, 3, 2, 2, 2)])
def test_batch_norm_agrees_with_torch(shape):
    torch = pytest.importorskip("torch")
    compared(
        torch,
        lambda x, w, b: dl.batch_norm(x, w, b)[0],
        lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, training=True),
        shape, (3,), (3,),
    )  # fmt: skip


@pytest.mark.torch
def test_batch_norm_inference_agrees_with_torch():
    torch = pytest.importorskip("torch")
    mean, var = RNG.normal(size=3), RNG.uniform(0.5, 2, 3)
    compared(
        torch,
        lambda x, w, b: dl.batch_norm_inference(x, dl.tensor(mean), dl.tensor(var), w, b, eps=0.01),
        lambda x, w, b: torch.nn.functional.batch_norm(x, torch.tensor(mean), torch.tensor(var), w, b, eps=0.01),
        (2, 3, 4), (3,), (3,),
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm_agrees_with_torch(axes):
    torch = pytest.importorskip("torch")
    x = (2, 3, 4)
    tail = x[3 - axes :]
    compared(
        torch,
        dl.layer_norm,
        lambda x, w, b: torch.nn.functional.layer_norm(x, tail, w, b),
        x, tail, tail,
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("axes", [1, 2])
def test_rms_norm_agrees_with_torch(axes):
    torch = pytest.importorskip("torch")
    tail = (3, 4)[2 - axes :]
    compared(
        torch,
        lambda x, w: dl.rms_norm(x, w, normalized_shape=tail, eps=0.01),
        lambda x, w: torch.nn.functional.rms_norm(x, tail, w, eps=0.01),
        (2, 3, 4), tail,
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_agrees_with_torch(groups):
    torch = pytest.importorskip("torch")
    compared(
        torch,
        lambda x, w, b: dl.group_norm(x, w, b, groups=groups),
        lambda x, w, b: torch.nn.functional.group_norm(x, groups, w, b),
        (2, 6, 3, 2), (6,), (6,),
    )  # fmt: skip


@pytest.mark.torch
def test_instance_norm_agrees_with_torch():
    torch = pytest.importorskip("torch")
    compared(
        torch,
        dl.instance_norm,
        lambda x, w, b: torch.nn.functional.instance_norm(x, weight=w, bias=b),
        (2, 3, 4, 2), (3,), (3,),
    )  # fmt: skip


def test_batch_norm_returns_the_statistics(device):
    x = RNG.normal(2, 3, size=(5, 3, 4)).astype(np.float32)
    _, mean, var = dl.batch_norm(dl.tensor(x, device=device))
    np.testing.assert_allclose(mean.numpy(), x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var.numpy(), x.var((0, 2)), rtol=1e-5)


def test_far_mean_does_not_spoil_the_variance(device):
    x = np.asarray([[1e4 - 1, 1e4, 1e4 + 1]], np.float32)
    y = dl.layer_norm(dl.tensor(x, device=device), eps=0.0)
    np.testing.assert_allclose(y.numpy(), [[-(1.5**0.5), 0, 1.5**0.5]], rtol=1e-5)


@pytest.mark.parametrize("given", [5, (2, 5), ()])
def test_layer_norm_refuses_a_shape_that_is_not_the_end(given):
    with pytest.raises(ShapeError, match=r"layer_norm: normalized shape .* is not the end of x's shape"):
        dl.layer_norm(dl.ones((2, 3)), normalized_shape=given)


def test_group_norm_refuses_channels_that_do_not_split():
    with pytest.raises(ArgumentError, match="group_norm: 6 channels do not split into 4 groups"):
        dl.group_norm(dl.ones((2, 6)), groups=4)


def by_parts(x, w):
    z = x - x.sum() / x.size
    return z / ((z * z).sum() / x.size + 0.5).sqrt() * w


def third_gradient(norm, start):
    x = dl.tensor(start, requires_grad=True)
    found = norm(x * x, x)  # operands that depend on each other
    for _ in range(3):
        (found,) = dl.gradients((found * found).sum(), [x], create_graph=True)
    return found.numpy()


def test_third_gradient_agrees_with_the_formula_by_parts():
    start = RNG.normal(size=4)
    fused = third_gradient(lambda x, w: dl.layer_norm(x, w, eps=0.5), start)
    np.testing.assert_allclose(fused, third_gradient(by_parts, start), rtol=1e-9)
