"""Recurrent kernels on the emulator: tiles of both sizes, whole vectors, ragged rows, against the references."""

import numpy as np
import pytest

from dlcore import dispatch, testing
from dlcore.backends.cuda import launch
from dlcore.op import OPS, Arr, Sample

pytestmark = pytest.mark.sim
T = 3
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@pytest.fixture(scope="module", autouse=True)
def sim():
    try:
        return dispatch.get_backend("sim")
    except dispatch.BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def kernels():
    """Names of the kernels launched during a test."""
    seen = []
    listener = lambda kernel, *_: seen.append(kernel)  # noqa: E731
    launch.listeners.append(listener)
    yield seen
    launch.listeners.remove(listener)


def small(*shape):
    """Weights of the usual size: larger ones saturate gates, and 16-bit gradients have no digits left."""
    return Arr(shape, -(shape[-1] ** -0.5), shape[-1] ** -0.5)


def call_of(name, n, i, h, ragged, reverse):
    """An op's record and a sample of it."""
    gates = GATES[name] * h
    lengths = np.arange(n) % (T + 1) if ragged else None
    states = [small(n, h)] * (2 if name == "lstm" else 1)
    biases = [small(gates)] * (2 if name == "gru" else 1)
    operands = (small(T, n, i), *states, small(gates, i), small(gates, h), *biases, lengths)
    return OPS[name], Sample(operands, {"reverse": reverse})


SIZES = [
    pytest.param(17, 3, 9, id="odd"),
    pytest.param(5, 8, 16, id="vectors"),
    pytest.param(2, 1, 136, id="two-slabs"),
]


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize(("n", "i", "h"), SIZES)
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients(name, n, i, h, ragged, dtype, kernels):
    op, s = call_of(name, n, i, h, ragged, reverse=ragged)
    testing.check_value(op, s, dtype, "sim")
    testing.check_gradient_dtype(op, s, dtype, "sim")
    step = f"{name}.{name}_step"
    suffix = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert {f"{step}_narrow_{suffix}", f"{step}_grad_narrow_{suffix}"} <= set(kernels)


@pytest.mark.parametrize(("i", "h"), [(3, 9), (8, 16)], ids=["odd", "vectors"])
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_wide_tiles(name, i, h, dtype, kernels, sim, monkeypatch):
    monkeypatch.setattr(sim.driver, "multiprocessors", 1)
    op, s = call_of(name, 65, i, h, ragged=True, reverse=False)
    testing.check_value(op, s, dtype, "sim")
    testing.check_gradient_dtype(op, s, dtype, "sim")
    assert {k.split("_")[-2] for k in kernels if "step" in k} == {"wide"}


def test_one_launch_a_step(kernels):
    op, s = call_of("lstm", 4, 3, 8, ragged=False, reverse=False)
    testing.check_value(op, s, "float32", "sim")
    assert sum("step" in k for k in kernels) == T
    assert len(kernels) <= T + 2  # one product for all inputs, one copy of c0


def test_held_rows_keep_their_state_bit_for_bit():
    op, s = call_of("lstm", 6, 2, 5, ragged=True, reverse=False)
    h, c, gates = (np.asarray(y) for y in testing.call(op, testing.arrays(op, s, np.float32), s.attrs, "sim")[0])
    lengths = s.operands[-1]
    for row, end in enumerate(lengths):
        for t in range(max(end, 1), T):
            assert np.array_equal(h[t, row], h[t - 1, row])
            assert np.array_equal(c[t, row], c[t - 1, row])
            assert not gates[t, row].any()
