"""Gather kernels in the emulator: moves of each width, tiles of rows and of columns, the order of additions."""

import numpy as np
import pytest

from dlcore import dtypes, testing
from dlcore.op import OPS, Arr, sample

pytestmark = pytest.mark.sim


def drawn(n, *shape):
    return np.random.default_rng(list(shape)).integers(-n, n, shape)


@pytest.mark.parametrize(
    ("dtype", "inner", "width"),
    [("float16", 1, 2), ("float16", 6, 4), ("float32", 2, 8), ("float32", 3, 4), ("float32", 8, 16), ("float64", 2, 16),
     ("float64", 1, 8)],
)  # fmt: skip
def test_slices_move_in_the_widest_unit(dtype, inner, width, launches):
    testing.check_value(OPS["take"], sample((2, 7, inner), drawn(7, 5), axis=1), dtype, "sim")
    testing.check_value(OPS["embedding"], sample(drawn(9, 3, 4), (9, inner)), dtype, "sim")
    assert launches == [f"gather_rows_b{width}"] * 2


def test_slices_of_bools_and_of_positions_of_32_bits(launches):
    x, index = np.arange(12).reshape(4, 3) % 2 == 0, np.asarray([3, -4], np.int32)
    (y,), _ = testing.call(OPS["take"], [x, index], {"axis": 0}, "sim")
    assert np.array_equal(np.asarray(y), x[index])
    (z,), _ = testing.call(OPS["take_along_axis"], [x, index[None, :].repeat(4, 0) % 3], {"axis": 1}, "sim")
    assert np.array_equal(np.asarray(z), np.take_along_axis(x, index[None, :].repeat(4, 0) % 3, 1))
    assert launches == ["gather_rows_b1", "gather_elements_b1"]


def test_more_elements_than_threads():
    testing.check_value(OPS["take"], sample((50, 129), drawn(50, 200)), "float32", "sim")
    testing.check_value(OPS["take_along_axis"], sample((50, 129), drawn(50, 200, 129), axis=0), "float32", "sim")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [
        pytest.param((37, 130), 0, 40, id="two-column-tiles"),
        pytest.param((2, 35, 128), 1, 9, id="two-row-tiles"),
        pytest.param((5000,), 0, 600, id="one-column"),
        pytest.param((3, 4, 5), 1, 4200, id="three-chunks"),
        pytest.param((2, 9, 8), 1, 2061, id="two-chunks-of-vectors"),
        pytest.param((3, 1, 40), 1, 3, id="one-row"),
    ],
)
def test_added_rows(shape, axis, count, dtype, launches):
    updates = (*shape[:axis], count, *shape[axis + 1 :])
    s = sample(Arr(shape, -1, 1), drawn(shape[axis], count), Arr(updates, -1, 1), axis=axis)
    testing.check_value(OPS["index_add"], s, dtype, "sim")
    vectors = np.prod(shape[axis + 1 :]) * dtypes.dtype(dtype).itemsize % 16 == 0
    assert [name.rpartition("_")[0] for name in launches] == [f"gather_add_{'vectors' if vectors else 'rows'}"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 50, 7), 1), ((6, 40), 1), ((40, 300), 0)])
def test_added_elements(shape, axis, dtype):
    wanted = tuple(11 if i == axis else n for i, n in enumerate(shape))
    s = sample(Arr(shape, -1, 1), drawn(shape[axis], *wanted), Arr(wanted, -1, 1), axis=axis)
    testing.check_value(OPS["scatter_add"], s, dtype, "sim")
    testing.check_value(OPS["take_along_axis"], sample(shape, drawn(shape[axis], *wanted), axis=axis), dtype, "sim")


@pytest.mark.parametrize(("name", "width"), [("index_add", 1), ("index_add", 4), ("scatter_add", 1)])
def test_repeated_positions_add_up_in_their_order(name, width):
    x, updates = np.zeros((9, width), np.float32), np.random.default_rng(0).normal(size=(2700, width)).astype("float32")
    index = drawn(9, 2700) if name == "index_add" else drawn(9, 2700, 1)
    expected = x.copy()
    for at, update in zip(index.reshape(-1), updates, strict=True):
        expected[at] += update
    (y,), _ = testing.call(OPS[name], [x, index, updates], {"axis": 0}, "sim")
    assert np.array_equal(np.asarray(y), expected)


def test_rows_that_nothing_points_to_are_zero_and_so_is_the_padding_row():
    g = np.ones((4, 3), np.float32)
    attrs = {"rows": 70, "padding_idx": -1}
    (y,), _ = testing.call(OPS["embedding_grad"], [np.asarray([2, 69, 2, -1]), g], attrs, "sim")
    expected = np.zeros((70, 3))
    expected[2] = 2
    assert np.array_equal(np.asarray(y), expected)


def test_gradient_of_an_index(launches):
    index = (("slice", None, None, None), ("array", 0))
    s = sample((3, 5, 4), drawn(6, 5), index=index, shape=(3, 6, 4))
    testing.check_value(OPS["getitem_grad"], s, "float32", "sim")
    assert launches == ["gather_add_vectors_f32"]
