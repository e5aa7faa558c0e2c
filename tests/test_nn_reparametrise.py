"""Weight and spectral normalisation."""

import copy

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError


def ones(*shape):
    return dl.ones(shape, "float64")


def test_weight_norm_changes_nothing_at_first():
    plain = nn.Conv2d(3, 4, 2).astype("float64")
    normed = nn.WeightNorm(copy.deepcopy(plain)).astype("float64")
    np.testing.assert_allclose(normed(ones(1, 3, 4, 4)), plain(ones(1, 3, 4, 4)))
    assert sorted(n for n, _ in normed.named_parameters()) == ["layer.bias", "raw", "scale"]


def test_weight_norm_sets_the_length_of_each_row():
    normed = nn.WeightNorm(nn.Linear(3, 2, bias=False)).astype("float64")
    normed.scale.assign([[2.0], [5.0]])
    np.testing.assert_allclose(np.linalg.norm(normed.weight(), axis=1), [2, 5])


@pytest.mark.torch
def test_weight_norm_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2).double())
    ours = nn.WeightNorm(nn.Linear(3, 2)).astype("float64")
    scale, raw = (p.detach().numpy() for p in theirs.parametrizations.weight.parameters())
    ours.load_state_dict({"scale": scale * 1.5, "raw": raw, "layer.bias": theirs.bias.detach().numpy()})
    theirs.parametrizations.weight.original0.data *= 1.5
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    got, expected = ours(dl.tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(got, expected.detach().numpy())
    (got * got).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(ours.scale.grad, theirs.parametrizations.weight.original0.grad.numpy())
    np.testing.assert_allclose(ours.raw.grad, theirs.parametrizations.weight.original1.grad.numpy(), atol=1e-12)


def test_spectral_norm_brings_the_largest_singular_value_to_one():
    dl.manual_seed(0)
    layer = nn.SpectralNorm(nn.Conv2d(3, 5, 2), iterations=200).astype("float64")
    layer(ones(1, 3, 4, 4))
    weight = layer.eval().weight()
    assert np.linalg.norm(weight.numpy().reshape(5, -1), 2) == pytest.approx(1, rel=1e-6)
    left = layer.left.numpy().copy()
    layer(ones(1, 3, 4, 4))
    np.testing.assert_array_equal(layer.left, left)


def test_spectral_norm_may_be_called_twice_before_backward():
    layer = nn.SpectralNorm(nn.Linear(3, 2))
    (layer(dl.ones((1, 3))) + layer(dl.ones((1, 3)))).sum().backward()
    assert layer.raw.grad is not None


def test_a_called_layer_can_be_copied_and_checkpointed():
    layer = nn.WeightNorm(nn.Linear(3, 2))
    nn.Checkpoint(layer)(dl.ones((1, 3))).sum().backward()
    twin = copy.deepcopy(layer)
    np.testing.assert_array_equal(twin(dl.ones((1, 3))), layer(dl.ones((1, 3))))


def test_the_parameter_must_exist():
    with pytest.raises(ArgumentError, match="WeightNorm: ReLU has no parameter 'weight'"):
        nn.WeightNorm(nn.ReLU())
