"""Random kernels in the emulator: the bits of the references."""

import math

import numpy as np
import pytest

from dlcore import dtypes, testing
from dlcore.op import OPS

pytestmark = pytest.mark.sim
FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]
KEYS = [np.asarray([0, 0]), np.asarray([2**63 - 1, 2**40 + 5])]
SIZES = [1, 3, 4, 6, 9001]


def same(name, operands, **attrs):
    """Results of the kernel, after a check that their bits are those of the reference."""
    (got,), _ = testing.call(OPS[name], operands, attrs, "sim")
    (expected,), _ = testing.call(OPS[name], operands, attrs, "numpy")
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()
    return got


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("key", KEYS, ids=["zero", "large"])
def test_uniform_and_normal(key, n, dtype):
    same("uniform", [key], shape=(n,), dtype=dtype)
    same("normal", [key], shape=(n,), dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_truncated_normal(dtype):
    y = same("normal", [KEYS[1]], shape=(3000,), dtype=dtype, low=-0.5, high=4.0).astype(np.float64)
    assert -0.51 < y.min() < 0 < 2 < y.max() <= 4


def test_far_tails():
    assert np.abs(same("normal", [KEYS[0]], shape=(5,), low=5.5, high=math.inf).astype(np.float64)).min() > 5.4
    assert same("normal", [KEYS[0]], shape=(5,), dtype=dtypes.float64, low=-math.inf, high=-7.5).max() < -7.4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-5, 1000), (-(2**62), 2**62), (0, 2**63 - 1)])
def test_integers(low, high):
    same("randint", [KEYS[1]], low=low, high=high, shape=(101,))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 1003)])
def test_masks(shape, dtype):
    p = np.random.default_rng(0).random(shape).astype(dtype)
    same("bernoulli", [p, KEYS[1]])
    for probability in (0.1, 0.5, 1.0):
        same("dropout", [p, KEYS[1]], p=probability)
        same("dropout", [p.T, KEYS[1]], p=probability)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dropout_of_an_operand_that_begins_between_vectors(dtype):
    x = np.random.default_rng(0).random(4097).astype(dtype)
    same("dropout", [x[1:], KEYS[1]], p=0.5)


def test_a_key_of_32_bit_integers():
    assert np.array_equal(
        same("uniform", [np.asarray([7, 3], np.int32)], shape=(5,)), same("uniform", [np.asarray([7, 3])], shape=(5,))
    )
