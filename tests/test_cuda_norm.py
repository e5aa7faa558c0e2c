"""Normalisation kernels in the emulator against the references in float64: every way of sharing rows and channels."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import testing
from dlcore.backends.cuda import ops_norm
from dlcore.op import OPS

pytestmark = pytest.mark.sim
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
CHANNELS = [(4, 3, 5, 7), (33, 18), (2, 4, 64), (3, 6, 1, 1), (1, 2, 17), (40, 132), (2, 2, 4099), (300, 4)]
ROWS = {"warp": [(5, 1), (3, 7), (2, 3, 36), (9, 512)], "block": [(3, 513), (2, 4096)], "long": [(2, 4097), (2, 5000)]}


def rand(shape, dtype="float32", seed=0):
    x = np.random.default_rng([seed, *shape]).normal(size=shape) + 0.5
    return x.astype(dl.dtypes.dtype(dtype))


def check(name, operands, attrs, dtype="float32"):
    """Compare with the reference in float64; returns the results."""
    got, _ = testing.call(OPS[name], operands, attrs, "sim")
    for a, b in zip(got, testing.oracle(OPS[name], operands, attrs), strict=True):
        assert (a.dtype, a.shape) == (dl.dtypes.dtype(dtype), b.shape)
        limit = 16 * EPS[dtype] * np.abs(b).max(initial=1)
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=limit)
    return got


def row_operands(shape, dtype, affine):
    x, dy = rand(shape, dtype), rand(shape, dtype, 1)
    scale, bias = (rand(shape[-1:], dtype, s) if affine else None for s in (2, 3))
    return {
        "layer_norm": [x, scale, bias], "layer_norm_grad": [dy, x, scale], "rms_norm": [x, scale],
        "rms_norm_grad": [dy, x, scale],
    }  # fmt: skip


def channel_operands(shape, dtype, affine):
    x, dy, c = rand(shape, dtype), rand(shape, dtype, 1), shape[1:2]
    scale, bias, mean, dmean, dvar = (rand(c, dtype, s) for s in range(2, 7))
    var = np.abs(rand(c, dtype, 7)) + x.dtype.type(0.5)
    scale, bias = (scale, bias) if affine else (None, None)
    return {
        "batch_norm": [x, scale, bias], "batch_norm_inference": [x, mean, var, scale, bias],
        "batch_norm_grad": [dy, dmean, dvar, x, scale, mean, var],
        "group_norm": [x, scale, bias], "group_norm_grad": [dy, x, scale],
    }  # fmt: skip


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("way", "shape"), [(way, s) for way, shapes in ROWS.items() for s in shapes])
def test_row_norms(way, shape, affine, launches):
    for name, operands in row_operands(shape, "float32", affine).items():
        check(name, operands, {"eps": 0.1})
    assert {f"norm_{way}_f32", f"norm_grad_{way}_f32"} < set(launches)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 7), (2, 256), (3, 520), (2, 2048), (2, 4100)])
def test_row_norms_of_other_dtypes(shape, dtype):
    for name, operands in row_operands(shape, dtype, True).items():
        check(name, operands, {"eps": 0.1}, dtype)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", CHANNELS)
def test_channel_norms(shape, affine):
    for name, operands in channel_operands(shape, "float32", affine).items():
        groups = {"groups": 2 if shape[1] % 2 == 0 else 1} if name.startswith("group") else {}
        check(name, operands, {"eps": 0.1, **groups})


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 4, 8, 8), (19, 300)])
def test_channel_norms_of_other_dtypes(shape, dtype):
    for name, operands in channel_operands(shape, dtype, True).items():
        check(name, operands, {"eps": 0.1}, dtype)


@pytest.mark.parametrize("shape", [(7, 3, 40), (200, 5)])
def test_channels_of_many_parts(shape, monkeypatch):
    monkeypatch.setattr(ops_norm, "SEGMENT", 16)
    for name, operands in channel_operands(shape, "float32", True).items():
        check(name, operands, {"eps": 0.1})


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 2, 3), (2, 2, 0)])
def test_empty_operands(shape):
    x = dl.zeros(shape, device="sim")
    y, mean, var = dl.batch_norm(x, None, None)
    assert (y.shape, mean.tolist(), var.tolist()) == (shape, [0.0] * shape[1], [0.0] * shape[1])
    grads = OPS["layer_norm_grad"](x, x, None)
    assert [g.shape for g in grads] == [shape, shape[-1:], shape[-1:]]
    assert not np.asarray(grads[1]).any()
    assert [g.shape for g in OPS["group_norm_grad"](x, x, None)] == [shape, shape[1:2], shape[1:2]]


@pytest.mark.parametrize("shape", [(64, 4, 50), (300, 4)])
def test_a_large_mean_costs_no_digits(shape):
    x = rand(shape) + np.float32(1000)
    axes = (0, *range(2, x.ndim))
    _, mean, var = dl.batch_norm(dl.asarray(x, device="sim"), None, None)
    np.testing.assert_allclose(np.asarray(mean), x.mean(axes, np.float64), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(var), x.astype(np.float64).var(axes), rtol=1e-5)
    for n in (500, 4000, 6000):
        y = np.asarray(dl.layer_norm(dl.asarray(rand((2, n)) + np.float32(1000), device="sim")))
        np.testing.assert_allclose(y.std(-1, dtype=np.float64), 1, rtol=1e-4)


def test_nan_stays_in_its_row_and_its_channel():
    x = np.ones((3, 4, 5), np.float32)
    x[1, 2, 3] = np.nan
    y = np.asarray(dl.batch_norm(dl.asarray(x, device="sim"), None, None)[0])
    assert np.isnan(y[:, 2]).all()
    assert not np.isnan(y[:, [0, 1, 3]]).any()
    y = np.asarray(dl.layer_norm(dl.asarray(x, device="sim")))
    assert np.isnan(y[1, 2]).all()
    assert np.isnan(y).sum() == 5


def test_more_rows_than_a_grid_has_blocks():
    x = rand((70_001, 2))
    check("layer_norm", [x, None, None], {"eps": 0.1})
