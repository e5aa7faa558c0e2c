"""Softmax and cross-entropy kernels in the emulator: every way of sharing a row, edges, special values."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes, testing
from dlcore.backends.cuda import ops_softmax
from dlcore.errors import IndexRangeError
from dlcore.op import OPS

pytestmark = pytest.mark.sim
inf, nan = np.inf, np.nan
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ROWS = {"warp": [1, 2, 33, 127, 132, 256], "block": [513, 516, 2048], "long": [4097, 4104, 9001]}
CROSS = [
    {}, {"label_smoothing": 0.2}, {"reduction": "sum"}, {"reduction": "none", "ignore_index": 2}, {"ignore_index": 2},
    {"label_smoothing": 1.0, "ignore_index": 0},
]  # fmt: skip


def rand(*shape, dtype="float32", seed=0):
    return (3 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(dl.dtypes.dtype(dtype))


def check(name, operands, attrs, tolerance):
    """Compare with the reference in float64; returns the results."""
    with np.errstate(all="ignore"):
        got, _ = testing.call(OPS[name], operands, attrs, "sim")
        for a, b in zip(got, testing.oracle(OPS[name], operands, attrs), strict=True):
            np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance)
    return got


@pytest.mark.parametrize(("way", "n"), [(way, n) for way, lengths in ROWS.items() for n in lengths])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows(name, way, n, launches):
    x = rand(9, n)
    check(name, [x], {"axis": -1}, 32 * EPS["float32"])
    check(f"{name}_grad", [x, np.asarray(dl.softmax(dl.asarray(x)))], {"axis": 1}, 256 * EPS["float32"])
    assert set(launches) == {f"softmax_{way}_f32", f"softmax_grad_{way}_f32"}


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 7), (2, 256), (2, 600), (2, 2048), (2, 4104), (2, 5, 3)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_other_dtypes(name, shape, dtype, launches):
    x, y = rand(*shape, dtype=dtype), np.abs(rand(*shape, dtype=dtype, seed=1)) / 600
    check(name, [x], {"axis": 1}, 16 * EPS[dtype])
    check(f"{name}_grad", [x, y.astype(x.dtype)], {"axis": 1}, 16 * EPS[dtype] * (300 if name == "log_softmax" else 3))
    assert len(launches) == 2


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 9, 300), (3, 1, 2), (2, 1500, 3)])
def test_middle_axes(shape):
    x = rand(*shape)
    for name in ("softmax", "log_softmax"):
        y = check(name, [x], {"axis": 1}, 32 * EPS["float32"])[0]
        check(f"{name}_grad", [x, np.asarray(y)], {"axis": 1}, 256 * EPS["float32"])


@pytest.mark.parametrize("n", [5, 600, 4100])
@pytest.mark.parametrize("axis", [0, 1])
def test_masked_overflowing_and_nan_rows(n, axis):
    x = np.full((5, n), -inf, np.float32)
    x[0, [0, 2]] = 0
    x[2, :3] = 3e38, -1e37, 0
    x[3, 1], x[4, n - 1] = nan, inf
    for name in ("softmax", "log_softmax"):
        check(name, [x if axis else x.T.copy()], {"axis": axis}, EPS["float32"])


def test_more_rows_than_a_grid_has_blocks():
    x = rand(70_001, 2)
    check("softmax", [x], {"axis": 1}, 32 * EPS["float32"])


@pytest.mark.parametrize("attrs", CROSS)
@pytest.mark.parametrize("shape", [(9, 5), (40, 36), (3, 600), (4, 1028), (3, 4104), (2, 5, 3, 7), (5, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(shape, attrs, weighted, launches):
    logits, labels = rand(*shape), np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
    weight = np.asarray(np.random.default_rng(2).integers(0, 3, shape[1]), np.float32) if weighted else None
    lse, loss = check("cross_entropy", [logits, labels, weight], attrs, 64 * EPS["float32"])
    g_lse, g_loss = rand(*labels.shape, seed=3), np.asarray(rand(*loss.shape, seed=4))
    operands = [g_lse, g_loss, logits, np.asarray(lse), labels, weight]
    check("cross_entropy_grad", operands, attrs, 64 * EPS["float32"])
    assert any(name.startswith("cross_entropy_grad") for name in launches)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 7), (2, 2048), (2, 4104), (2, 3, 5)])
def test_cross_entropy_of_other_dtypes(shape, dtype):
    logits, labels = rand(*shape, dtype=dtype), np.zeros((shape[0], *shape[2:]), np.int32)
    tolerance = 64 * EPS["float64" if dtype == "float64" else "float32"]
    lse, _ = check("cross_entropy", [logits, labels, None], {"label_smoothing": 0.1}, tolerance)
    operands = [rand(*labels.shape, dtype=dtype), np.asarray(rand(1, dtype=dtype)[0]), logits]
    operands += [np.asarray(lse).astype(logits.dtype), labels, None]
    check("cross_entropy_grad", operands, {"label_smoothing": 0.1}, 8 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_logits_are_not_widened_in_backward(dtype, launches):
    logits = dl.tensor(rand(6, 40, dtype=dtype), device="sim", requires_grad=True)
    labels = dl.asarray(np.arange(6), device="sim")
    lse, loss = OPS["cross_entropy"](logits, labels)
    (loss + 0.25 * lse.sum()).backward()
    assert logits.grad.dtype == dtypes.dtype(dtype)
    assert f"cross_entropy_grad_warp_{'bf16' if dtype == 'bfloat16' else 'f16'}" in launches
    assert not any("cast" in name for name in launches)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_over_many_positions(dtype, monkeypatch, launches):
    monkeypatch.setattr(ops_softmax, "PART", 100)
    logits, labels = rand(1001, 3, dtype=dtype), np.arange(1001) % 3
    check("cross_entropy", [logits, labels, np.asarray([1, 2, 3], dtype)], {}, 64 * EPS[dtype])
    assert sum("total" in name for name in launches) == 1


def test_sums_over_few_positions_are_one_launch(launches):
    check("cross_entropy", [rand(6, 3), np.arange(6) % 3, None], {}, 64 * EPS["float32"])
    assert len(launches) == 2


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2)])
def test_labels_outside_the_classes_touch_no_other_memory(shape):
    labels = np.broadcast_to(np.asarray([-1, 4, 10**12]).reshape(3, *[1] * (len(shape) - 2)), (3, *shape[2:]))
    (_, loss), _ = testing.call(OPS["cross_entropy"], [rand(*shape), labels, None], {"reduction": "none"}, "sim")
    with pytest.raises(IndexRangeError, match=r"cross_entropy: label -1 is out of range for 4 classes \(at position 0"):
        loss.numpy()
    assert not loss.numpy().any()


def test_positions_whose_classes_are_all_masked_or_nan():
    logits = np.full((3, 4), -inf, np.float32)
    logits[1, 0], logits[2, 0] = nan, 1
    check("cross_entropy", [logits, np.asarray([0, 0, 0]), None], {"reduction": "none"}, EPS["float32"])


def test_mean_over_ignored_labels_alone_is_nan():
    loss = check("cross_entropy", [rand(2, 3), np.asarray([-100, -100]), None], {}, EPS["float32"])[1]
    assert np.isnan(loss.item())
