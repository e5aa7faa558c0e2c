"""`_C.broadcast_to` beside NumPy's."""

import numpy as np
import pytest

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
