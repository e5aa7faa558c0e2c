"""The update rules of `_C` against the NumPy rules, bit for bit."""

import numpy as np
import pytest

from dlcore import dispatch
from dlcore.optim import kernels

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

ADAM = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
CASES = [
    ("sgd", SGD), ("sgd", {**SGD, "momentum": 0.9}), ("sgd", {**SGD, "momentum": 0.9, "nesterov": True}),
    ("sgd", {**SGD, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.01}), ("adam", ADAM),
    ("adam", {**ADAM, "weight_decay": 0.1, "amsgrad": True}), ("adamw", {**ADAM, "weight_decay": 0.1}),
]  # fmt: skip
STATES = {"sgd": ["momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]}
SIZES = [(3, 5), (), (1,), (0, 2), (129,), (40, 41), (31,)]


def start(name, dtype, sizes=SIZES):
    rng = np.random.default_rng(0)
    params = [np.asarray(rng.normal(size=s), dtype) for s in sizes]
    return params, {key: [np.zeros_like(p) for p in params] for key in STATES[name.removesuffix("w")]}


def steps(rule, name, settings, dtype, count=3, sizes=SIZES):
    params, states = start(name, dtype, sizes)
    if not settings.get("amsgrad", True):
        del states["max_exp_avg_sq"]
    rng = np.random.default_rng(1)
    for step in range(1, count + 1):
        grads = [np.asarray(rng.normal(size=p.shape), dtype) for p in params]
        rule(params, grads, states, step=step, **settings)
    return params + [x for key in states for x in states[key]]


@pytest.fixture(autouse=True)
def _load_backend():
    dispatch.get_backend("cpu")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_steps_equal_the_numpy_rule(name, settings, dtype, isa):
    got = steps(kernels.find(name, "cpu"), name, settings, dtype)
    want = steps(kernels.find(name, "numpy"), name, settings, dtype)
    assert kernels.find(name, "cpu") is not kernels.find(name, "numpy")
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "settings"), CASES[-2:])
def test_bits_do_not_depend_on_threads(name, settings, threads):
    sizes = [(100003,), (7,), (50001,)]
    threads(1)
    one = steps(kernels.find(name, "cpu"), name, settings, np.float32, 2, sizes)
    threads(3)
    for a, b in zip(steps(kernels.find(name, "cpu"), name, settings, np.float32, 2, sizes), one, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_any_strides():
    p, g = np.zeros((4, 3), np.float32), np.arange(12, dtype=np.float32).reshape(3, 4).T
    kernels.find("sgd", "cpu")([p], [g], {}, step=1, **SGD)
    np.testing.assert_array_equal(p, np.float32(-0.1) * g)


def test_lists_that_do_not_fit_are_refused():
    p, settings = np.zeros(3, np.float32), {"lr": 1, "weight_decay": 0, "momentum": 0, "gain": 1, "nesterov": False}
    for grads in ([], [np.zeros(2, np.float32)], [np.zeros(3)]):
        with pytest.raises((ValueError, TypeError), match=r"optim|sgd"):
            _C.sgd([p], grads, None, **settings)
