"""The recurrent kernels of `_C`: all steps of an LSTM, a GRU and a plain network, and their gradients."""

import numpy as np
import pytest

from dlcore import testing
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")
recurrent = pytest.importorskip("dlcore.backends.cpu.recurrent")

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
SIZES = [  # T, N, I, H: one row and few, panels of rows, vectors and blocks of the sum with a rest, many sequences
    (3, 1, 5, 70), (4, 2, 3, 129), (3, 3, 8, 40), (3, 8, 16, 33), (4, 20, 7, 300), (3, 150, 9, 16), (2, 5, 4, 1),
    (1, 2, 6, 150), (1, 9, 6, 40), (1, 60, 2, 30),  # a single step
]  # fmt: skip


def rand(rng, *shape, dtype):
    return rng.uniform(-0.5, 0.5, size=shape).astype(dtype)


def calls(kind, size, dtype, ragged=False, optional=True):
    """Operands of an op and of its gradient; lengths if `ragged`; without `optional`, None for all that may be."""
    t, n, i, h = size
    g, rng = GATES[kind] * h, np.random.default_rng([*size, len(kind)])
    make = lambda *shape: rand(rng, *shape, dtype=dtype)  # noqa: E731
    given = lambda *shape: make(*shape) if optional else None  # noqa: E731
    lengths = (np.arange(n) * 2 + t - 1) % (t + 1) if ragged else None  # none, some and all steps
    states = [given(n, h) for _ in range(1 + (kind == "lstm"))]
    biases = [given(g) for _ in range(1 + (kind == "gru"))]
    forward = [make(t, n, i), *states, make(g, i), make(g, h) / h**0.5, *biases, lengths]
    gates = [] if kind == "rnn" else [make(t, n, 4 * h)]
    late = {"rnn": [], "gru": [given(t, n, 4 * h), given(n, h)]}
    late["lstm"] = [given(t, n, h), *late["gru"]]
    backward = [make(t, n, h), *late[kind], make(g, h) / h**0.5, make(t, n, h), *gates, lengths]
    return {kind: forward, f"{kind}_grad": backward}


def run(name, operands, **attrs):
    """The results of the native variant."""
    result = getattr(recurrent, name)(*operands, **{**OPS[name].attrs, **attrs})
    return result if isinstance(result, tuple) else (result,)


def check(name, operands, dtype, **attrs):
    for got, want in zip(run(name, operands, **attrs), testing.oracle(OPS[name], operands, attrs), strict=True):
        np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * max(1, np.abs(want).max(initial=0)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", GATES)
def test_agrees_with_the_reference_in_float64(kind, size, dtype, isa):
    for name, operands in calls(kind, size, dtype).items():
        check(name, operands, dtype)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [(5, 1, 3, 20), (5, 2, 3, 20), (5, 13, 3, 37), (5, 60, 3, 9)])
@pytest.mark.parametrize("kind", GATES)
def test_ragged_sequences_in_both_directions(kind, size, reverse, optional):
    for name, operands in calls(kind, size, np.float32, ragged=True, optional=optional).items():
        check(name, operands, np.float32, reverse=reverse)
    check(f"{kind}_grad", operands, np.float32, reverse=reverse, initial=False)


@pytest.mark.parametrize("name", ["rnn", "rnn_grad"])
def test_relu(name, isa):
    check(name, calls("rnn", (4, 7, 5, 19), np.float32)[name], np.float32, activation="relu")


@pytest.mark.parametrize(
    "size", [(9, 1, 40, 200), (5, 3, 8, 150), (6, 20, 30, 130), (8, 200, 16, 40), (3, 60, 5, 140), (1, 3, 9, 500)]
)
@pytest.mark.parametrize("kind", GATES)
def test_bits_do_not_depend_on_threads(kind, size, isa, threads):
    for name, operands in calls(kind, size, np.float32, ragged=True).items():
        threads(1)
        alone = run(name, operands)
        threads(3)
        for a, b in zip(alone, run(name, operands), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", GATES)
def test_operands_of_any_strides(kind):
    for name, operands in calls(kind, (3, 4, 5, 6), np.float32, ragged=True).items():
        spread = [x if x is None else np.repeat(x.T, 2, axis=0)[::2].T for x in operands]
        assert not any(x is not None and x.ndim > 1 and x.flags.c_contiguous for x in spread)
        for a, b in zip(run(name, operands), run(name, spread), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reverse", [False, True])
def test_other_arrays_are_refused(reverse):
    h, gates, w = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 16), np.float32), np.zeros((16, 4), np.float32)
    good = [None, None, w, None, None, h, h.copy(), gates]
    for k, bad, message in [
        (2, w[1:], "w_hh has the wrong shape"), (2, w.astype(int), "one dtype"), (0, h[0, :2], "the wrong shape"),
        (3, w[0], "the wrong shape"), (4, np.zeros(3, np.int32), "int64 lengths"), (6, h[:1], "the wrong shape"),
        (7, gates[:, :, ::2], "contiguous"), (5, h.astype(int), "float32 or float64"), (5, h[0], r"arrays \[T,N,H\]"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^lstm: .*{message}"):
            _C.lstm(*good[:k], bad, *good[k + 1 :], reverse)
    h.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _C.lstm(*good, reverse)
