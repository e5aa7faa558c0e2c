"""Pooling kernels in the emulator: windows that overlap, leave gaps, hang over; more blocks than one; NaN."""

import numpy as np
import pytest

from dlcore import testing
from dlcore.op import OPS

pytestmark = pytest.mark.sim
PLAIN = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
CASES = [
    ((3, 5, 14, 12), PLAIN), ((2, 3, 9, 31), {**PLAIN, "kernel": (3, 3), "padding": (1, 1)}),
    ((1, 2, 17, 40), {**PLAIN, "kernel": (3, 5), "stride": (1, 2), "padding": (1, 2), "ceil_mode": True}),
    ((2, 2, 11, 10), {**PLAIN, "kernel": (1, 2), "stride": (3, 4)}), ((1, 1, 1, 700), {**PLAIN, "kernel": (1, 7)}),
    ((2, 2, 5, 6, 7), {"kernel": (2, 3, 2), "stride": (1, 2, 2), "padding": (1, 1, 0), "ceil_mode": True}),
    ((0, 2, 3, 3), PLAIN),
]  # fmt: skip


def check(name, operands, attrs):
    """Compare with the reference in float64; returns the results."""
    got, _ = testing.call(OPS[name], operands, attrs, "sim")
    for a, b in zip(got, testing.oracle(OPS[name], operands, attrs), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=1e-6, atol=1e-6)
    return got


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("shape", "attrs"), CASES)
def test_max_pool(shape, attrs, dilation, launches):
    rank = len(shape) - 2
    if dilation > 1 and (1 in shape[2:] or 0 in shape):
        attrs = {**attrs, "kernel": (1,) * rank}
    attrs = {**attrs, "dilation": (dilation,) * rank}
    x = np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)  # many equals
    y, index = check(f"max_pool{rank}d", [x], attrs)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    check(f"max_pool{rank}d_grad", [dy, np.asarray(index)], {**attrs, "size": shape[2:]})
    assert 0 in shape or set(launches) == {"pool_max_f32", "pool_max_grad_f32"}


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize(("shape", "attrs"), CASES)
def test_avg_pool(shape, attrs, include_pad, launches):
    rank, attrs = len(shape) - 2, {**attrs, "count_include_pad": include_pad}
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = check(f"avg_pool{rank}d", [x], attrs)[0]
    check(f"avg_pool{rank}d_grad", [np.asarray(y)], {**attrs, "size": shape[2:]})
    assert 0 in shape or set(launches) == {"pool_avg_f32", "pool_avg_grad_f32"}


def test_nan_and_infinities():
    x = np.asarray([[[[np.nan, 1, -np.inf, -np.inf], [2, np.nan, -np.inf, -np.inf]]]], np.float32)
    index = check("max_pool2d", [x], {**PLAIN, "dilation": (1, 1)})[1]
    assert index.tolist() == [[[[5, 2]]]]


def test_positions_of_another_int_dtype():
    dy, index = np.ones((1, 1, 2, 2), np.float32), np.asarray([[[[0, 3], [8, 15]]]], np.int32)
    check("max_pool2d_grad", [dy, index], {**PLAIN, "dilation": (1, 1), "size": (4, 4)})
