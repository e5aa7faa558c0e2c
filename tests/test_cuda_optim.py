"""The update rules of `kernels/optim.cu` in the emulator against the NumPy rules, bit for bit."""

import numpy as np
import pytest
from conftest import on_host, placed

from dlcore import testing
from dlcore.backends.cuda import ops_optim
from dlcore.optim import kernels

pytestmark = pytest.mark.sim
BASE = {"lr": 0.01, "weight_decay": 0.1}
SGD = {**BASE, "momentum": 0.9, "dampening": 0.1, "nesterov": False}
ADAM = {**BASE, "betas": (0.9, 0.99), "eps": 1e-8}
LAMB = {**ADAM, "eps": 1e-6}
RMS = {**BASE, "alpha": 0.9, "eps": 1e-8, "momentum": 0.9, "centered": True}
CASES = [
    ("sgd", {**SGD, "momentum": 0.0, "weight_decay": 0.0}), ("sgd", SGD),
    ("sgd", {**SGD, "nesterov": True, "dampening": 0.0}), ("adam", {**ADAM, "amsgrad": False}),
    ("adam", {**ADAM, "weight_decay": 0.0, "amsgrad": True}), ("adamw", {**ADAM, "amsgrad": False}), ("adamax", ADAM),
    ("nadam", {**ADAM, "momentum_decay": 4e-3}), ("rmsprop", RMS),
    ("rmsprop", {**RMS, "centered": False, "momentum": 0.0}),
    ("adagrad", {**BASE, "lr_decay": 0.1, "eps": 1e-10, "initial_accumulator_value": 0.0}),
    ("adadelta", {**BASE, "rho": 0.9, "eps": 1e-6}), ("lion", {**BASE, "betas": (0.9, 0.99)}),
]  # fmt: skip
STATES = {
    "sgd": ["momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
    "adamw": ["exp_avg", "exp_avg_sq"], "adamax": ["exp_avg", "exp_inf"],
    "nadam": ["exp_avg", "exp_avg_sq", "mu_product"], "rmsprop": ["square_avg", "grad_avg", "momentum_buffer"],
    "adagrad": ["square_sum"], "adadelta": ["square_avg", "delta_avg"], "lion": ["exp_avg"],
    "lamb": ["exp_avg", "exp_avg_sq"],
}  # fmt: skip
SIZES = [(3, 5), (), (1,), (0, 2), (129,), (70, 41), (1024,), (4096,), (5001,)]


def start(name, dtype, sizes):
    rng = np.random.default_rng(0)
    params = [np.asarray(rng.normal(size=s), dtype) for s in sizes]
    states = {key: [np.zeros_like(p) for p in params] for key in STATES[name]}
    if "mu_product" in states:
        states["mu_product"] = [np.ones((), dtype) for _ in params]
    return params, states


def steps(backend, name, settings, dtype, sizes=SIZES, nan=False):
    place, back = (placed, on_host) if backend == "cuda" else (np.asarray, np.asarray)
    params, states = start(name, dtype, sizes)
    params, states = [place(p) for p in params], {key: [place(x) for x in states[key]] for key in states}
    run, rng = kernels.find(name, backend, params), np.random.default_rng(1)
    for step in (1, 2, 3):
        grads = [np.asarray(rng.normal(size=p.shape), dtype) for p in params]
        if nan and step == 2:
            grads[0][0, 0] = np.nan
        grads[0] = np.asfortranarray(grads[0])
        run(params, [place(g) for g in grads], states, step=step, **settings)
    return [back(x) for x in params + [x for key in states for x in states[key]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_steps_equal_the_numpy_rule(name, settings, dtype, launches):
    got = steps("cuda", name, settings, dtype, nan=True)
    want = steps("numpy", name, settings, dtype, nan=True)
    assert set(launches) >= {f"optim_{name.removesuffix('w')}_f{np.dtype(dtype).itemsize * 8}"}
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_tensors_than_one_launch_takes(launches):
    sizes = [(7,)] * 3 + [(1 + i % 5,) for i in range(130)]
    got, want = (steps(b, "sgd", SGD, np.float32, [(2, 3), *sizes]) for b in ("cuda", "numpy"))
    assert launches.count("optim_sgd_f32") == 9
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_tensors_that_begin_anywhere():
    memory = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    found = []
    for backend, place in (("cuda", placed), ("numpy", np.asarray)):
        params, grads = [place(memory[1:5000].copy()[1:])], [place(memory[5002:].copy())]
        states = {"momentum_buffer": [place(np.zeros(4998, np.float32))]}
        kernels.find("sgd", backend)(params, grads, states, step=1, **SGD)
        found.append(params[0])
    np.testing.assert_array_equal(on_host(found[0]), found[1])


def test_parameters_of_more_elements_than_a_kernel_counts_are_cut(monkeypatch, launches):
    monkeypatch.setattr(ops_optim, "LIMIT", 700)
    settings = {**ADAM, "momentum_decay": 4e-3}
    got, want = (steps(b, "nadam", settings, np.float32, [(70, 41), (3,)]) for b in ("cuda", "numpy"))
    assert launches.count("optim_multiply_f32") == 3
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- LAMB: the norms' order of additions is its own


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lamb_scales_each_step_to_its_tensor(dtype, launches):
    sizes = [*SIZES, *[(2 + i % 3,) for i in range(60)]]
    got, want = (steps(b, "lamb", LAMB, dtype, sizes) for b in ("cuda", "numpy"))
    of_rule = [name for name in launches if name.startswith("optim_")]
    suffix = f"f{np.dtype(dtype).itemsize * 8}"
    assert of_rule == [f"optim_{name}_{suffix}" for name in ("norms", "trust", "lamb")] * 2 * 3
    for a, b in zip(got, want, strict=True):
        if b.size:
            testing.assert_close(a, b, dtype)


@pytest.mark.parametrize(("start", "eps"), [(0.0, LAMB["eps"]), (1.0, 0.0)], ids=["from zero", "of the same norm"])
def test_lamb_takes_a_step_as_it_is(start, eps):
    p, g = placed(np.full(5, start, np.float32)), placed(np.ones(5, np.float32))
    states = {key: [placed(np.zeros(5, np.float32))] for key in STATES["lamb"]}
    kernels.find("lamb", "cuda")([p], [g], states, step=1, **{**LAMB, "weight_decay": 0.0, "eps": eps})
    np.testing.assert_allclose(on_host(p), start - LAMB["lr"], rtol=1e-5)


@pytest.mark.emulator
def test_lamb_of_a_parameter_too_large_for_its_norm_takes_the_numpy_rule(monkeypatch, launches):
    monkeypatch.setattr(ops_optim, "LIMIT", 700)
    got, want = (steps(b, "lamb", LAMB, np.float32, [(70, 41)]) for b in ("cuda", "numpy"))
    assert launches == []
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
