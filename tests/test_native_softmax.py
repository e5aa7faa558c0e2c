"""The softmax kernels of `_C`."""

import numpy as np
import pytest

from dlcore import testing
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

TOLERANCE = {np.float32: 4e-7, np.float64: 1e-15}
CROSS = [
    {}, {"label_smoothing": 0.2}, {"reduction": "sum"}, {"reduction": "none", "ignore_index": 2}, {"ignore_index": 2}
]  # fmt: skip
LENGTHS = [1, 2, 7, 8, 10, 16, 17, 33, 63, 64, 1000]


def rand(*shape, dtype=np.float32, seed=0):
    return (3 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(dtype)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def wide(x):
    return x.astype(np.float64)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", LENGTHS)
def test_values_agree_with_float64(n, dtype, isa):
    x = rand(5, n, dtype=dtype)
    want = softmax(wide(x))
    np.testing.assert_allclose(_C.softmax(x), want, rtol=4 * TOLERANCE[dtype])
    np.testing.assert_allclose(_C.log_softmax(x), np.log(want), rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", LENGTHS)
def test_gradients_agree_with_float64(n, dtype, isa):
    dy, y = rand(5, n, dtype=dtype), softmax(rand(5, n, dtype=dtype, seed=1))
    want = wide(y) * (wide(dy) - (wide(dy) * wide(y)).sum(-1, keepdims=True))
    np.testing.assert_allclose(_C.softmax_grad(dy, y), want, atol=8 * TOLERANCE[dtype])
    log_y = np.log(y)
    want = wide(dy) - np.exp(wide(log_y)) * wide(dy).sum(-1, keepdims=True)
    np.testing.assert_allclose(_C.log_softmax_grad(dy, log_y), want, atol=64 * TOLERANCE[dtype])


def test_masked_and_overflowing_rows(isa):
    inf = np.inf
    x = np.array([[0, -inf, 0], [-inf, -inf, -inf], [3e38, -3e38, 0], [np.nan, 0, 1], [inf, 0, 1]], np.float32)
    got, log = _C.softmax(x), _C.log_softmax(x)
    np.testing.assert_array_equal(got[:3], [[0.5, 0, 0.5], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(log[1], [-inf] * 3)
    assert np.isnan(got[3]).all()
    assert np.isnan(got[4, 0])


def test_long_rows_sum_to_one(isa):
    x = rand(2, 50257)
    np.testing.assert_allclose(_C.softmax(x).sum(-1, dtype=np.float64), 1, rtol=1e-7)


@pytest.mark.parametrize("shape", [(300, 1001), (7, 20000)])
def test_bits_do_not_depend_on_threads(shape, isa, threads):
    x = rand(*shape)
    threads(1)
    one = _C.softmax(x), _C.log_softmax_grad(x, x)
    threads(3)
    np.testing.assert_array_equal(_C.softmax(x), one[0])
    np.testing.assert_array_equal(_C.log_softmax_grad(x, x), one[1])


@pytest.mark.parametrize("bad", [np.ones((4, 4), np.float32).T[:, ::2], np.float32(1), np.ones(3, int)])
def test_other_arrays_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match=r"^softmax: expected"):
        _C.softmax(np.asarray(bad))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [3, 10, 16, 1000])
@pytest.mark.parametrize("attrs", CROSS)
def test_cross_entropy_agrees_with_the_reference_in_float64(attrs, n, dtype, isa):
    logits, labels = rand(9, n, dtype=dtype), np.arange(9) % n
    lse, loss = _C.cross_entropy(logits, labels, **attrs)
    want = testing.oracle(OPS["cross_entropy"], [logits, labels, None], attrs)
    np.testing.assert_allclose(lse, want[0], rtol=4 * TOLERANCE[dtype])
    np.testing.assert_allclose(loss, want[1], rtol=4 * TOLERANCE[dtype], atol=16 * TOLERANCE[dtype])
    g_lse, g_loss = rand(9, dtype=dtype), np.asarray(rand(*loss.shape, dtype=dtype))
    got = _C.cross_entropy_grad(g_lse, g_loss, logits, lse, labels, **attrs)
    want = testing.oracle(OPS["cross_entropy_grad"], [g_lse, g_loss, logits, lse, labels, None], attrs)
    np.testing.assert_allclose(got, want[0], atol=16 * TOLERANCE[dtype])


def test_labels_outside_the_classes_touch_no_other_memory():
    logits = rand(3, 4)
    labels = np.array([-1, 4, 10**12])
    loss = _C.cross_entropy(logits, labels, reduction="none")[1]
    np.testing.assert_array_equal(loss, [0, 0, 0])
    dx = _C.cross_entropy_grad(loss, loss + 1, logits, loss, labels, reduction="none")
    np.testing.assert_array_equal(dx, np.zeros((3, 4)))
