"""The normalisation kernels of `_C` against the references in float64, on shapes with odd tails."""

import numpy as np
import pytest

from dlcore import testing
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}
CHANNELS = [(4, 3, 5, 7), (33, 18), (2, 4, 64), (3, 6, 1, 1), (1, 2, 17), (40, 1)]
ROWS = [(5, 1), (3, 7), (4, 16), (2, 3, 33), (7, 300), (65, 40)]


def rand(shape, dtype, seed=0):
    return (np.random.default_rng([seed, *shape]).normal(size=shape) + 0.5).astype(dtype)


def channel_operands(name, shape, dtype, affine):
    x, dy, c = rand(shape, dtype), rand(shape, dtype, 1), shape[1]
    scale, bias, mean, dmean, dvar = (rand((c,), dtype, s) for s in range(2, 7))
    var = np.abs(rand((c,), dtype, 7)) + dtype(0.5)
    scale, bias = (scale, bias) if affine else (None, None)
    return {
        "batch_norm": [x, scale, bias], "batch_norm_inference": [x, mean, var, scale, bias],
        "batch_norm_grad": [dy, dmean, dvar, x, scale, mean, var],
        "group_norm": [x, scale, bias], "group_norm_grad": [dy, x, scale],
    }[name]  # fmt: skip


def row_operands(name, shape, dtype, affine):
    x, dy = rand(shape, dtype), rand(shape, dtype, 1)
    scale, bias = (rand(shape[-1:], dtype, s) if affine else None for s in (2, 3))
    return {
        "layer_norm": [x, scale, bias], "layer_norm_grad": [dy, x, scale], "rms_norm": [x, scale],
        "rms_norm_grad": [dy, x, scale],
    }[name]  # fmt: skip


def results(name, operands, **attrs):
    got = getattr(_C, name)(*operands, **attrs)
    return got if isinstance(got, tuple) else (got,)


def check(name, operands, attrs, dtype):
    for a, b in zip(results(name, operands, **attrs), testing.oracle(OPS[name], operands, attrs), strict=True):
        assert (a.dtype, a.shape) == (dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=16 * EPS[dtype] * np.abs(b).max(initial=1))


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", CHANNELS)
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_inference"])
def test_a_chain_goes_on_with_the_result(name, shape, dtype, isa):
    operands, other = channel_operands(name, shape, dtype, True), rand(shape, dtype, 9)
    then = _C.chain(2, [("add", [0, 1]), ("relu", [2])], [3])
    want = np.maximum(results(name, operands)[0] + other, 0)
    np.testing.assert_array_equal(results(name, [*operands, other], then=then)[0], want)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", CHANNELS)
@pytest.mark.parametrize(
    "name", ["batch_norm", "batch_norm_inference", "batch_norm_grad", "group_norm", "group_norm_grad"]
)
def test_channel_norms(name, shape, affine, dtype, isa):
    attrs = {"eps": 0.1} | ({"groups": 2 if shape[1] % 2 == 0 else 1} if name.startswith("group") else {})
    check(name, channel_operands(name, shape, dtype, affine), attrs, dtype)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("name", ["layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"])
def test_row_norms(name, shape, affine, dtype, isa):
    check(name, row_operands(name, shape, dtype, affine), {"eps": 0.1}, dtype)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 2, 3), (2, 2, 0)])
def test_empty_operands(shape):
    x = np.zeros(shape, np.float32)
    y, mean, var = _C.batch_norm(x)
    assert (y.shape, mean.tolist(), var.tolist()) == (shape, [0.0] * shape[1], [0.0] * shape[1])
    assert _C.layer_norm(x).shape == shape
    assert [a.shape for a in _C.layer_norm_grad(x, x)] == [shape, shape[-1:], shape[-1:]]


def test_a_large_mean_costs_no_digits(isa):
    x = rand((64, 4, 50), np.float32) + np.float32(1000)
    _, mean, var = _C.batch_norm(x)
    np.testing.assert_allclose(mean, x.mean((0, 2), np.float64), rtol=1e-7)
    np.testing.assert_allclose(var, x.astype(np.float64).var((0, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("batch_norm", (32, 5, 900)), ("batch_norm_grad", (32, 5, 900)), ("batch_norm_grad", (3000, 40)),
     ("group_norm_grad", (9, 4, 5000)), ("layer_norm_grad", (700, 257)), ("rms_norm", (700, 257))],
)  # fmt: skip
def test_bits_do_not_depend_on_threads(name, shape, isa, threads):
    make = row_operands if name.startswith(("layer", "rms")) else channel_operands
    operands = make(name, shape, np.float32, True)
    threads(1)
    one = results(name, operands)
    threads(3)
    for a, b in zip(one, results(name, operands), strict=True):
        np.testing.assert_array_equal(a, b)


def test_operands_that_do_not_fit_are_refused():
    x = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="batch_norm: an operand has the wrong size"):
        _C.batch_norm(x, np.ones(4, np.float32))
    with pytest.raises(TypeError, match="differ in dtype"):
        _C.layer_norm(x, np.ones(4))
    with pytest.raises(ValueError, match="do not split"):
        _C.group_norm(x, groups=2)
    with pytest.raises(ValueError, match="contiguous"):
        _C.rms_norm(x.T)
