"""Normalisation layers: running statistics, modes, recomputation, PyTorch's state."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, ShapeError


def batch(*shape, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape)


def test_running_statistics_follow_the_batches():
    layer = nn.BatchNorm1d(3, momentum=0.25).astype("float64")
    mean, var = np.zeros(3), np.ones(3)
    for seed in range(4):
        x = batch(6, 3, 2, seed=seed)
        layer(dl.tensor(x))
        mean += 0.25 * (x.mean((0, 2)) - mean)
        var += 0.25 * (x.var((0, 2), ddof=1) - var)
    np.testing.assert_allclose(layer.running_mean, mean)
    np.testing.assert_allclose(layer.running_var, var)
    assert layer.num_batches_tracked.item() == 4
    x = batch(2, 3, 2, seed=9)
    expected = (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    np.testing.assert_allclose(layer.eval()(dl.tensor(x)), expected)
    assert layer.num_batches_tracked.item() == 4


def test_without_momentum_all_batches_weigh_alike():
    layer = nn.BatchNorm1d(2, momentum=None).astype("float64")
    batches = [batch(5, 2, seed=seed) for seed in range(3)]
    for x in batches:
        layer(dl.tensor(x))
    np.testing.assert_allclose(layer.running_mean, np.mean([x.mean(0) for x in batches], axis=0))


def test_recomputation_does_not_count_a_batch_twice():
    plain, kept = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    x = dl.tensor(batch(4, 3), "float32", requires_grad=True)
    (plain(x) * x).sum().backward()
    (nn.Checkpoint(kept)(x) * x).sum().backward()
    np.testing.assert_array_equal(kept.running_mean, plain.running_mean)
    assert kept.num_batches_tracked.item() == 1


def test_without_tracking_there_are_no_buffers():
    layer = nn.BatchNorm2d(3, affine=False, track_running_stats=False).eval()
    assert layer.state_dict() == {}
    y = layer(dl.tensor(batch(4, 3, 5, 5))).numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)


def test_buffers_are_saved_and_loaded():
    layer, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    layer(dl.tensor(batch(4, 3), "float32"))
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    twin.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(twin.running_var, layer.running_var)
    assert twin.num_batches_tracked.item() == 1


TORCH = {
    "BatchNorm1d": (lambda m: m.BatchNorm1d(3, momentum=0.3), (5, 3)),
    "BatchNorm1d of sequences": (lambda m: m.BatchNorm1d(3, eps=0.1), (4, 3, 6)),
    "BatchNorm2d": (lambda m: m.BatchNorm2d(4, affine=False), (3, 4, 5, 2)),
    "BatchNorm3d": (lambda m: m.BatchNorm3d(2, momentum=None), (3, 2, 2, 3, 2)),
    "LayerNorm": (lambda m: m.LayerNorm((4, 5), eps=0.01), (3, 4, 5)),
    "RMSNorm": (lambda m: m.RMSNorm(5, eps=0.01), (3, 4, 5)),
    "GroupNorm": (lambda m: m.GroupNorm(2, 6), (3, 6, 4)),
    "InstanceNorm1d": (lambda m: m.InstanceNorm1d(3, affine=True), (2, 3, 5)),
    "InstanceNorm2d": (lambda m: m.InstanceNorm2d(3), (2, 3, 4, 5)),
    "InstanceNorm3d": (lambda m: m.InstanceNorm3d(3), (2, 3, 2, 3, 2)),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_pytorch(name):
    torch = pytest.importorskip("torch")
    make, shape = TORCH[name]
    theirs, ours = make(torch.nn).double(), make(nn).astype("float64")
    for i, p in enumerate(theirs.parameters()):
        torch.nn.init.normal_(p, mean=1.0, generator=torch.Generator().manual_seed(i))
    ours.load_state_dict({key: x.detach().numpy() for key, x in theirs.state_dict().items()})
    for seed in range(3):
        x, y = dl.tensor(batch(*shape, seed=seed), requires_grad=True), torch.tensor(batch(*shape, seed=seed))
        y.requires_grad_()
        got, expected = ours(x), theirs(y)
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-9, atol=1e-10)
    weights = np.cos(np.arange(expected.numel())).reshape(shape)
    (got * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad, y.grad.numpy(), rtol=1e-8, atol=1e-10)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-8, atol=1e-10)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-12)
    x = batch(*shape, seed=9)
    np.testing.assert_allclose(ours.eval()(dl.tensor(x)), theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-10)


@pytest.mark.parametrize(
    ("make", "shape", "error", "message"),
    [
        (
            lambda: nn.BatchNorm2d(3),
            (2, 3, 4),
            ShapeError,
            r"batch_norm: BatchNorm2d takes 4 dimensions and 3 channels",
        ),
        (lambda: nn.BatchNorm1d(3), (2, 4), ShapeError, r"takes 2 or 3 dimensions and 3 channels; got x\[2, 4\]"),
        (lambda: nn.BatchNorm1d(3), (1, 3), ArgumentError, "one value per channel; training needs more"),
        (lambda: nn.InstanceNorm2d(3), (2, 4, 5, 5), ShapeError, "InstanceNorm2d takes 4 dimensions and 3 channels"),
        (lambda: nn.LayerNorm(4), (2, 5), ShapeError, r"layer_norm: normalized shape \(4,\)"),
        (lambda: nn.GroupNorm(4, 6), (1, 6), ArgumentError, "GroupNorm: 6 channels do not split into 4 groups"),
    ],
)
def test_wrong_input_gives_one_clear_line(make, shape, error, message):
    with pytest.raises(error, match=message):
        make()(dl.ones(shape))
