"""Recurrent kernels on the emulator: tiles of both sizes, whole vectors, ragged rows, against the references."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch, dtypes, nn, settings, testing
from dlcore.backends.cuda import launch, ops_recurrent
from dlcore.op import OPS, Arr, Sample
from dlcore.signature import Dims

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


@pytest.fixture
def way(sim, monkeypatch):
    """Function that leaves the kernels for single steps ("native") or those for all at once ("persistent") only."""

    def force(variant):
        monkeypatch.setattr(sim, "plans", {})
        for op in (name + grad for name in GATES for grad in ("", "_grad")):
            monkeypatch.setitem(dispatch._variants, (op, "cuda"), [v for v in known[op] if v.name == variant])

    known = {op: dispatch.variants(op, "cuda") for op in OPS}
    return force


SIZES = [
    pytest.param(17, 3, 9, id="odd"),
    pytest.param(5, 8, 16, id="vectors"),
    pytest.param(2, 1, 136, id="two-slabs"),
]
SUFFIX = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize(("n", "i", "h"), SIZES)
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients(name, n, i, h, ragged, dtype, kernels, way):
    way("native")
    op, s = call_of(name, n, i, h, ragged, reverse=ragged)
    testing.check_value(op, s, dtype, "sim")
    testing.check_gradient_dtype(op, s, dtype, "sim")
    step = f"{name}.{name}_step"
    assert {f"{step}_narrow_{SUFFIX[dtype]}", f"{step}_grad_narrow_{SUFFIX[dtype]}"} <= set(kernels)


@pytest.mark.parametrize(("size", "rows"), [("wide", 65), ("large", 129)])
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    ("dtype", "i", "h"),
    [("float32", 3, 9), ("float32", 8, 16), ("float64", 8, 16), ("float16", 8, 16), ("bfloat16", 3, 9)],
)
def test_larger_tiles(name, i, h, dtype, size, rows, kernels, way, monkeypatch):
    if (size, dtype) == ("large", "float64"):
        pytest.skip("there is no such kernel")
    way("native")
    monkeypatch.setattr(ops_recurrent, "tiles", lambda n, hidden, units, *_: tiles_of(size, n, hidden, units))
    op, s = call_of(name, rows, i, h, ragged=True, reverse=False)
    testing.check_value(op, s, dtype, "sim")
    testing.check_gradient_dtype(op, s, dtype, "sim")
    assert {k.split("_")[-2] for k in kernels if "step" in k} == {size}


def tiles_of(size, rows, hidden, units):
    a, b = {"wide": (64, 16), "large": (128, 32)}[size]
    return size, -(-rows // a) * -(-hidden // (b * units))


@pytest.mark.parametrize(
    ("rows", "hidden", "dtype", "expected"),
    [
        (16, 512, dtypes.float32, ("narrow", 64)),
        (512, 512, dtypes.float32, ("wide", 256)),
        (1024, 512, dtypes.float32, ("wide", 512)),  # large ones would be 1.2 waves
        (4096, 512, dtypes.float32, ("large", 512)),
        (4096, 512, dtypes.float64, ("wide", 2048)),
    ],
)
def test_the_more_rows_the_larger_the_tiles(rows, hidden, dtype, expected):
    assert ops_recurrent.tiles(rows, hidden, 1, dtype, 108) == expected


# ---- all steps in one launch


@pytest.mark.parametrize(
    ("n", "h", "ragged", "dtype"),
    [(17, 9, True, "float32"), (5, 16, False, "bfloat16"), (2, 40, True, "float16"), (37, 32, False, "float32")],
    ids=["odd", "vectors", "five-blocks", "rows-in-turn"],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", GATES)
def test_one_launch_gives_the_bits_of_single_steps(name, n, h, ragged, dtype, reverse, way, kernels):
    op, s = call_of(name, n, 3, h, ragged, reverse)
    values = testing.arrays(op, s, dtypes.dtype(dtype))
    found = {}
    for variant in ("native", "persistent"):
        way(variant)
        outputs = [np.asarray(y) for y in testing.call(op, values, s.attrs, "sim")[0]]
        found[variant] = [*outputs, *testing.gradient(op, values, s.attrs, "sim")[0]]
    for a, b in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    all_steps = [f"{name}.{name}_all{grad}_{SUFFIX[dtype]}" for grad in ("", "_grad")]
    assert [sum(k == kernel for k in kernels) for kernel in all_steps] == [2, 1]


@pytest.mark.parametrize(
    ("operands", "reason"),
    [
        ((3, 16, 512, dtypes.float32), None),
        ((3, 16, 512, dtypes.float64), "no kernel for float64"),
        ((1, 16, 512, dtypes.float32), "a single step"),
        ((3, 16, 872, dtypes.float32), "109 blocks of 8 units on 108 multiprocessors"),
        ((3, 33, 512, dtypes.float32), "33 rows for 1 groups of blocks"),
    ],
)
def test_why_steps_are_not_taken_at_once(operands, reason, sim, monkeypatch):
    monkeypatch.setattr(sim.driver, "multiprocessors", 108)
    assert refusal(sim, *operands) == reason


def refusal(sim, t, n, h, dtype):
    call = dispatch.Call(OPS["lstm"], (), dtype, Dims(T=t, N=n, H=h), {}, sim)
    return ops_recurrent.refuse_at_once("lstm", False, call)


def test_weights_that_do_not_fit_are_read_again(sim, monkeypatch):
    monkeypatch.setattr(sim.driver, "multiprocessors", 1000)
    assert refusal(sim, 3, 16, 2048, dtypes.float32) == "283136 bytes of weights a block, where 166912 fit"


# ---- how many launches


def test_one_launch_a_step(kernels, way):
    way("native")
    op, s = call_of("lstm", 4, 3, 8, ragged=False, reverse=False)
    testing.check_value(op, s, "float32", "sim")
    assert len(kernels) == T + 1  # one product for all inputs


def test_one_launch_in_all(kernels, way):
    way("persistent")
    op, s = call_of("lstm", 4, 3, 8, ragged=False, reverse=False)
    testing.check_value(op, s, "float32", "sim")
    assert len(kernels) == 2


@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells_are_one_product_and_one_step(name, kernels, sim, monkeypatch):
    with dl.device("sim"):
        cell, x = getattr(nn, name)(3, 8), dl.ones((4, 3))
    get = settings.get
    monkeypatch.setattr(settings, "get", lambda key: key == "STRICT" or get(key))
    monkeypatch.setattr(sim, "plans", {})
    kernels.clear()
    cell(x)
    family = name.removesuffix("Cell").lower()
    assert [k.partition(".")[2] for k in kernels[1:]] == [f"{family}_step_narrow_f32"]


def test_held_rows_keep_their_state_bit_for_bit():
    op, s = call_of("lstm", 6, 2, 5, ragged=True, reverse=False)
    h, c, gates = (np.asarray(y) for y in testing.call(op, testing.arrays(op, s, np.float32), s.attrs, "sim")[0])
    lengths = s.operands[-1]
    for row, end in enumerate(lengths):
        for t in range(max(end, 1), T):
            assert np.array_equal(h[t, row], h[t - 1, row])
            assert np.array_equal(c[t, row], c[t - 1, row])
            assert not gates[t, row].any()
