"""The reductions of `_C`: values, special values, axes, memory orders, instruction sets, threads."""

import math

import numpy as np
import pytest

import dlcore as dl

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

SUMS = ["sum", "mean", "var", "std", "norm"]
CHOICES = ["max", "min", "argmax", "argmin"]
SHAPES_AND_AXES = [
    ((7,), 0), ((5, 33), None), ((5, 33), 1), ((33, 5), 0), ((4, 3, 5), 1), ((3, 4, 5, 2), (0, 2, 3)),
    ((2, 3, 1, 7), -2),    ((3, 2, 4, 5), (0, 2)), ((3, 2, 4, 5), (1, 3)), ((2, 3, 2, 3, 2), (0, 2, 4)), ((1, 1), (0,)),
    ((6, 300), 0),
]  # fmt: skip


def exact(name, x, **options):
    """NumPy's reduction; its norms take two axes at most."""
    if name == "norm":
        return np.sqrt(np.square(x).sum(**options))
    return getattr(np, name)(x, **options)


def rand(shape, dtype=np.float32):
    return np.random.default_rng([len(shape), *shape]).normal(size=shape).astype(dtype)


def memory_orders(x):
    wide = np.zeros([2 * n for n in x.shape], x.dtype)
    wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
    return [x, np.asfortranarray(x), np.flip(np.flip(x).copy()), wide[(*(slice(None, None, 2) for _ in x.shape), ...)]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES_AND_AXES)
@pytest.mark.parametrize("name", SUMS)
def test_sums_agree_with_float64(name, shape, axis, keepdims, dtype, isa):
    x = rand(shape, dtype)
    want = exact(name, x.astype(np.float64), axis=axis, keepdims=keepdims)
    for order in memory_orders(x):
        got = getattr(_C, name)(order, axis=axis, keepdims=keepdims)
        assert (got.shape, got.dtype) == (want.shape, dtype)
        np.testing.assert_allclose(got, want, rtol=2 * np.finfo(dtype).eps, atol=4 * np.finfo(np.float64).eps * x.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES_AND_AXES)
@pytest.mark.parametrize("name", CHOICES)
def test_extremes_equal_numpy(name, shape, axis, dtype, isa):
    if name.startswith("arg") and isinstance(axis, tuple):
        axis = axis[0]
    x = rand(shape, dtype)
    want = getattr(np, name)(x, axis=axis)
    for order in memory_orders(x):
        got = getattr(_C, name)(order, axis=axis)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 40, 65, 129, 1000])
@pytest.mark.parametrize("name", SUMS + CHOICES)
def test_every_length_of_row_and_number_of_columns(name, n, isa):
    for shape, axis in [((3, n), 1), ((3, n), 0), ((2, 3, n), 1)]:
        x = rand(shape)
        want = exact(name, x.astype(np.float64), axis=axis)
        np.testing.assert_allclose(getattr(_C, name)(x, axis=axis), want, rtol=3e-7, atol=1e-13)


@pytest.mark.parametrize("position", [0, 20, 66])
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_extremes_with_special_values_equal_numpy(value, name, position, isa):
    x = rand((67,))
    x[position] = x[40] = value
    np.testing.assert_array_equal(getattr(_C, name)(x), getattr(np, name)(x))
    columns = np.stack([x, rand((67,))], axis=1)
    np.testing.assert_array_equal(getattr(_C, name)(columns, axis=0), getattr(np, name)(columns, axis=0))


def test_an_array_without_axes():
    x = np.array(2.5, np.float32)
    assert [_C.sum(x), _C.max(x), _C.argmax(x), _C.var(x)] == [2.5, 2.5, 0, 0]


def test_nothing_to_reduce():
    x = np.zeros((0, 3), np.float32)
    np.testing.assert_array_equal(_C.sum(x, axis=0), [0, 0, 0])
    assert np.isnan(_C.mean(x, axis=0)).all()
    assert _C.max(x, axis=1).shape == (0,)
    with pytest.raises(ValueError, match="no element to choose from"):
        _C.max(x, axis=0)
    with pytest.raises(ValueError, match="no element to choose from"):
        _C.argmax(x, axis=0)


def test_a_long_sum_keeps_every_digit():
    x = np.full(1 << 22, 0.1, np.float32)
    assert _C.sum(x) == np.float32(x[0].astype(np.float64) * x.size)


def test_a_norm_of_large_numbers_does_not_overflow():
    assert dl.norm(dl.tensor([3e30, 4e30], device="cpu")).item() == np.float32(5e30)
    assert dl.norm(dl.tensor([3e-30, 4e-30], device="cpu")).item() == np.float32(5e-30)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_logsumexp_agrees_with_float64(axis, keepdims):
    x = 30 * rand((3, 5, 7))
    got = dl.logsumexp(dl.asarray(x, device="cpu"), axis=axis, keepdims=keepdims).numpy()
    want = np.log(np.exp(x.astype(np.float64)).sum(axis=axis, keepdims=keepdims))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got.shape == want.shape


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 1), (4, 1), (5,), (1,), ()])
def test_sum_to_is_the_adjoint_of_broadcasting(shape):
    x = rand((3, 4, 5))
    lead = x.ndim - len(shape)
    axes = tuple(i for i in range(3) if i < lead or shape[i - lead] == 1)
    np.testing.assert_allclose(_C.sum_to(x, shape=shape), x.sum(axes, dtype=np.float64).reshape(shape), rtol=2e-7)


def test_var_divides_by_n_minus_correction():
    x = rand((9,))
    np.testing.assert_allclose(_C.var(x, correction=1), np.var(x.astype(np.float64), ddof=1), rtol=2e-7)
    assert math.isnan(_C.var(x[:1], correction=1))


@pytest.mark.parametrize(
    ("shape", "axis"), [((300007,), 0), ((64, 16, 900), (0, 2)), ((4000, 70), 0), ((4000, 70), 1), ((5, 3000, 9), 1)]
)
@pytest.mark.parametrize("name", ["sum", "var", "max"])
def test_bits_do_not_depend_on_threads(name, shape, axis, isa, threads):
    x = rand(shape)
    threads(1)
    one = getattr(_C, name)(x, axis=axis)
    threads(3)
    np.testing.assert_array_equal(getattr(_C, name)(x, axis=axis), one)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: _C.sum(x, axis=2), ValueError, "axis out of range"),
        (lambda x: _C.sum(x, axis="a"), TypeError, "integer"),
        (lambda x: _C.sum(x, colour=1), TypeError, "sum: unexpected keyword"),
        (lambda x: _C.sum(x.astype(int)), TypeError, "sum: expected float32"),
        (lambda x: _C.sum_to(x, shape=(2,)), ValueError, "does not come from that shape"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((3, 4), np.float32))
