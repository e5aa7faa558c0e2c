"""Views and copies of `_C`, and of ops that make them, beside NumPy's."""

from itertools import permutations

import numpy as np
import pytest

import dlcore as dl

_C = pytest.importorskip("dlcore._C")


@pytest.mark.parametrize(
    ("shape", "to"), [((), (2, 3)), ((3, 1), (2, 3, 4)), ((1, 0), (5, 0)), ((2, 3), (2, 3)), ((1,), (0,))]
)
def test_same_view_as_numpys(shape, to):
    x = np.random.default_rng(0).normal(size=shape)[..., ::-1] if shape else np.asarray(1.5)
    y, expected = _C.broadcast_to(x, shape=to), np.broadcast_to(x, to)
    np.testing.assert_array_equal(y, expected)
    assert y.size == 0 or np.shares_memory(x, y)
    assert not y.flags.writeable


@pytest.mark.parametrize("to", [(2,), (), (3, 2), (1,), (-1,)])
def test_shapes_that_do_not_fit_are_refused(to):
    with pytest.raises(ValueError, match="the shapes do not fit"):
        _C.broadcast_to(np.ones(3), shape=to)


@pytest.mark.parametrize(("x", "arguments"), [([1.0], {"shape": (1,)}), (np.ones(1), {}), (np.ones(1), {"shape": [1]})])
def test_arguments_of_other_types_are_refused(x, arguments):
    with pytest.raises(TypeError, match="broadcast_to: expected"):
        _C.broadcast_to(x, **arguments)


def strided(x):
    """The same numbers with other axes, backwards, with gaps, and repeated."""
    for axes in permutations(range(x.ndim)):
        y = x.transpose(axes)
        yield from (y, y[::-1], y[..., ::2], np.broadcast_to(y, (2, *y.shape)))
        yield np.broadcast_to(y[..., None], (*y.shape, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.bool_])
@pytest.mark.parametrize("shape", [(5, 7), (200, 140), (3, 40, 65), (2, 3, 17, 31), (1, 9, 1, 40), (0, 3), (64, 64)])
def test_contiguous_copies_of_all_strides(shape, dtype):
    for x in strided(np.random.default_rng(0).integers(0, 100, shape).astype(dtype)):
        y = _C.contiguous(x)
        assert y.flags.c_contiguous
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, x)


def test_what_is_contiguous_is_not_copied():
    x = np.ones((3, 4), np.float32)
    assert _C.contiguous(x) is x


def test_contiguous_refuses_items_of_other_sizes():
    with pytest.raises(ValueError, match="no copy of such items"):
        _C.contiguous(np.zeros((3, 4), np.complex128).T)


@pytest.mark.parametrize("shape", [(-1,), (70, 90), (7, 9, 100), (10, 90, 7)])
def test_reshape_of_a_transposed_array(shape):
    x = np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32)
    with dl.device("cpu"):
        y = dl.tensor(x).T.reshape(shape).numpy()
    np.testing.assert_array_equal(y, x.T.reshape(shape))


def test_axes_that_are_split_share_memory():
    with dl.device("cpu"):
        x = dl.ones((90, 70)).T
        y = x.reshape((7, 10, 90))
    assert np.shares_memory(x.numpy(), y.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operands_across_memory(dtype, threads):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 3, 130)).astype(dtype), rng.normal(size=(130, 1, 150)).astype(dtype)
    want = x.transpose(2, 1, 0) - y
    for n in (1, 3):
        threads(n)
        np.testing.assert_array_equal(_C.subtract(x.transpose(2, 1, 0), y), want)
        np.testing.assert_array_equal(_C.subtract(y.transpose(2, 1, 0), x), y.transpose(2, 1, 0) - x)
        np.testing.assert_array_equal(_C.less(x.T, y), y > x.T)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.int16])
def test_concat(axis, dtype, threads):
    rng, shape = np.random.default_rng(0), [40, 50, 60]
    sizes = [[*shape[:axis], n, *shape[axis + 1 :]] for n in (33, 0, 1, 80)]
    xs = [rng.integers(0, 2, size).astype(dtype) for size in sizes]
    want = np.concatenate(xs, axis)
    out = np.empty_like(want)
    for count in (1, 3):
        threads(count)
        _C.concat(out, axis, *xs)
        np.testing.assert_array_equal(out, want)
        out[...] = 0


A, B, OUT = (np.zeros(shape, np.float32) for shape in ((2, 3), (2, 4), (2, 7)))
MISTAKES = {
    "axis": (OUT, 2, A, B), "sizes": (OUT, 1, A, A), "other axes": (OUT, 1, A, B[:1]), "rank": (OUT, 1, A, B[0]),
    "dtype": (OUT, 1, A, B.astype(np.float64)), "strides": (OUT, 1, A, np.zeros((4, 2), np.float32).T),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_concat_mistakes_raise(mistake):
    with pytest.raises(ValueError, match=r"^concat"):
        _C.concat(*MISTAKES[mistake])


@pytest.mark.parametrize("args", [(), (OUT,), (OUT, "1", A, B), (OUT, 1, A.tolist())], ids=str)
def test_wrong_concat_arguments_raise(args):
    with pytest.raises(TypeError, match=r"^concat"):
        _C.concat(*args)
