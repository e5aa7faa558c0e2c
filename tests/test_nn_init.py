"""Initialisers: moments, bounds, fans, structure."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, ShapeError

SHAPE = (60, 40, 5)
FAN_IN, FAN_OUT = 200, 300


def drawn(name, *args, shape=SHAPE, **options):
    dl.manual_seed(5)
    x = dl.zeros(shape)
    assert getattr(nn.init, name)(x, *args, **options) is x
    return x.numpy()


@pytest.mark.parametrize(
    ("name", "options", "variance"),
    [
        ("normal", {"mean": 0.0, "std": 0.3}, 0.09),
        ("glorot_normal", {"gain": 2.0}, 4 * 2 / (FAN_IN + FAN_OUT)),
        ("xavier_uniform", {}, 2 / (FAN_IN + FAN_OUT)),
        ("he_normal", {}, 2 / FAN_IN),
        ("he_normal", {"mode": "fan_out", "nonlinearity": "tanh"}, (5 / 3) ** 2 / FAN_OUT),
        ("kaiming_uniform", {"slope": math.sqrt(5)}, 1 / 3 / FAN_IN),
        ("lecun_normal", {}, 1 / FAN_IN),
        ("lecun_uniform", {}, 1 / FAN_IN),
    ],
)
def test_mean_and_variance(name, options, variance):
    x = drawn(name, **options)
    count = x.size
    assert abs(x.mean()) < 4 * math.sqrt(variance / count)
    assert x.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
    if "uniform" in name:
        assert abs(x).max() == pytest.approx(math.sqrt(3 * variance), rel=1e-3)


def test_uniform_fills_its_interval():
    x = drawn("uniform", -1.0, 3.0)
    assert -1 <= x.min() < -0.99
    assert 2.99 < x.max() < 3
    assert x.mean() == pytest.approx(1, abs=0.05)


def test_truncated_normal_stays_inside_absolute_bounds():
    x = drawn("truncated_normal", mean=1.0, std=2.0, low=0.0, high=2.0)
    assert 0 <= x.min() < 0.01
    assert 1.99 < x.max() <= 2.0001
    assert x.mean() == pytest.approx(1, abs=0.03)
    assert x.std() == pytest.approx(2 * math.sqrt(1 - 2 * 0.5 * 0.352065 / 0.382925), rel=0.02)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 3, 2)])
def test_orthogonal(shape):
    w = drawn("orthogonal", 2.0, shape=shape).reshape(shape[0], -1).astype(np.float64)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_identity_passes_channels_on():
    np.testing.assert_array_equal(drawn("identity", shape=(3, 4)), np.eye(3, 4))
    x = dl.tensor(np.random.default_rng(0).normal(size=(1, 3, 5, 5)))
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False).astype("float64")
    nn.init.identity(conv.weight)
    np.testing.assert_allclose(conv(x), x)


def test_sparse_zeroes_part_of_each_column():
    x = drawn("sparse", 0.3, shape=(20, 7))
    np.testing.assert_array_equal((x == 0).sum(axis=0), [6] * 7)


def test_constants():
    assert (drawn("constant", 3) == 3).all()
    assert (drawn("ones") == 1).all()
    x = dl.ones(3)
    assert not nn.init.zeros(x).numpy().any()


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        dl.manual_seed(seed)
        return nn.Linear(4, 3).weight.numpy()

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


SPREAD = {
    "Linear": lambda m: m.Linear(50, 40),
    "Conv2d": lambda m: m.Conv2d(8, 12, 3),
    "ConvTranspose2d": lambda m: m.ConvTranspose2d(8, 12, 3),
    "Embedding": lambda m: m.Embedding(50, 40),
    "Bilinear": lambda m: m.Bilinear(9, 8, 7),
}


@pytest.mark.torch
@pytest.mark.parametrize("make", SPREAD.values(), ids=SPREAD)
def test_default_spread_is_that_of_pytorch(make):
    torch = pytest.importorskip("torch")
    dl.manual_seed(0)
    torch.manual_seed(0)
    for (key, p), q in zip(make(nn).named_parameters(), make(torch.nn).parameters(), strict=True):
        rel = 0.6 if key == "bias" else 0.1
        assert p.numpy().std() == pytest.approx(q.detach().numpy().std(), rel=rel)


def test_gains():
    assert nn.init.gain("relu") == math.sqrt(2)
    assert nn.init.gain("leaky_relu", 1.0) == 1
    with pytest.raises(ArgumentError, match="unknown nonlinearity 'swish'"):
        nn.init.gain("swish")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.init.he_normal(dl.zeros(3)), ShapeError, "at least 2 dimensions"),
        (lambda: nn.init.he_normal(dl.zeros((3, 2)), mode="fan"), ArgumentError, "mode must be"),
        (lambda: nn.init.orthogonal(dl.zeros(3)), ShapeError, "orthogonal: "),
        (lambda: nn.init.sparse(dl.zeros((3, 2)), 2.0), ArgumentError, "0 <= sparsity <= 1"),
        (lambda: nn.init.truncated_normal(dl.zeros(3), low=1.0, high=0.0), ArgumentError, "low < high"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
