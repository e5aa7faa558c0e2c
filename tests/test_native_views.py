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
