"""The random kernels of `_C` give the bits of the references, on every instruction set and number of threads."""

import math

import numpy as np
import pytest

from dlcore import dispatch
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

KEYS = [(0, 0), (2**63 - 1, 5), (7, 2**40 + 3)]
SIZES = [0, 1, 3, 255, 256, 257, 5000]
FLOATS = [np.float32, np.float64]


def bits(x):
    return np.asarray(x).view({4: np.uint32, 8: np.uint64}[x.dtype.itemsize])


def both(name, operands, **attrs):
    """Results of the kernel and of the reference."""
    attrs = {**OPS[name].attrs, **attrs}
    dispatch.get_backend("cpu")
    kernel = dispatch.variants(name, "cpu")[0].fn
    with np.errstate(all="ignore"):
        return kernel(*operands, **attrs), OPS[name].reference(np, *operands, **attrs)


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_numbers_have_the_bits_of_the_reference(name, dtype, key, isa):
    for size in SIZES:
        got, want = both(name, [np.asarray(key)], shape=(size,), dtype=np.dtype(dtype))
        np.testing.assert_array_equal(bits(got), bits(want.astype(dtype)))


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (1.0, math.inf), (-math.inf, -7.0)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_cut_normal_numbers_have_the_bits_of_the_reference(dtype, bounds, isa):
    low, high = bounds
    got, want = both("normal", [np.asarray([3, 4])], shape=(2000,), dtype=np.dtype(dtype), low=low, high=high)
    np.testing.assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize("p", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_has_the_bits_of_the_reference(dtype, p, isa):
    for size in SIZES:
        x = np.random.default_rng(0).normal(size=size).astype(dtype)
        x[: size // 4 : 3] = [-0.0, math.nan, math.inf][size % 3]
        got, want = both("dropout", [x, np.asarray([9, 1])], p=p)
        np.testing.assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("bounds", [(0, 2), (-7, 1000), (-(2**62), 2**62), (5, 6)], ids=str)
def test_integers_are_those_of_the_reference(bounds, key, isa):
    low, high = bounds
    for size in SIZES:
        got, want = both("randint", [np.asarray(key)], shape=(size,), low=low, high=high)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == np.int64


@pytest.mark.parametrize("size", SIZES)
def test_a_permutation_is_that_of_the_reference(size, isa):
    got, want = both("permutation", [np.asarray([3, 4])], size=size)
    np.testing.assert_array_equal(got, want)


def test_equal_words_of_a_permutation_keep_their_order(monkeypatch):
    def integers(seed, stream, out, low, size):
        out[:] = np.arange(len(out)) % 3

    monkeypatch.setattr(_C, "integers", integers)
    got, _ = both("permutation", [np.asarray([3, 4])], size=100)
    np.testing.assert_array_equal(got, np.argsort(np.arange(100) % 3, stable=True))


@pytest.mark.parametrize("dtype", FLOATS)
def test_bernoulli_is_that_of_the_reference(dtype, isa):
    for size in SIZES:
        p = np.random.default_rng(0).uniform(size=size).astype(dtype)
        got, want = both("bernoulli", [p, np.asarray([9, 1])])
        np.testing.assert_array_equal(got, want)
        assert got.dtype == dtype


def test_dropout_of_strided_operands():
    x = np.random.default_rng(0).normal(size=(7, 9, 2)).astype(np.float32)[::2, ::-1, 1].T
    got, want = both("dropout", [x, np.asarray([9, 1])], p=0.4)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_do_not_depend_on_threads(dtype, threads):
    found = []
    for count in (1, 2, 3):
        threads(count)
        out = np.empty(100_003, dtype)
        _C.normal(1, 2, out)
        found.append(bits(out))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def read_only():
    x = np.empty(4, np.float32)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "out", [np.empty(4, np.float16), np.empty(8, np.float32)[::2], np.empty(4, ">f4"), read_only()], ids=range(4)
)
def test_unfit_arrays_are_refused(out):
    with pytest.raises(ValueError, match="random: expected"):
        _C.uniform(0, 0, out)


def test_integers_are_int64():
    with pytest.raises(ValueError, match="integers: expected int64"):
        _C.integers(0, 0, np.empty(4, np.int32))


def test_operands_of_dropout_must_fit():
    with pytest.raises(ValueError, match="dropout"):
        _C.dropout(0, 0, np.empty(3, np.float32), np.empty(4, np.float32), 0.5, 2.0)
    with pytest.raises(TypeError, match="NumPy array"):
        _C.uniform(0, 0, [1.0])
