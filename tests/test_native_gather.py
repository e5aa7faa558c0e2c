"""Native gather and scatter-add: the bits of the references, with every instruction set and number of threads."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch
from dlcore.errors import IndexRangeError
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

RNG = np.random.default_rng(0)
CASES = [  # shape, axis, positions; the large ones are divided among threads, by rows or by columns
    ((300, 8), 0, 1000), ((3, 700), 0, 100), ((2, 90, 33), 1, 1000), ((6, 400), 1, 5000), ((9000,), 0, 9000),
    ((7, 5, 4), 1, 1), ((50, 1), 0, 0),
]  # fmt: skip


def both(name, *arrays, **attrs):
    """The op on the native kernels and on the reference backend."""
    found = []
    for device in ("cpu", "numpy"):
        operands = [dl.tensor(a, device=device) for a in arrays]
        found.append(OPS[name](*operands, **attrs).numpy())
    return found


def floats(shape, dtype):
    return np.asarray(RNG.normal(size=shape), dl.tensor(0.0, dtype).dtype)


def ids(n, shape):
    return RNG.integers(-n, n, shape)


def with_axis(shape, axis, count):
    return (*shape[:axis], count, *shape[axis + 1 :])


def test_the_kernels_are_in_use():
    dispatch.get_backend("cpu")
    names = ("take", "take_along_axis", "embedding", "embedding_grad", "index_add", "scatter_add")
    assert all(dispatch.variants(name, "cpu") for name in names)


@pytest.mark.parametrize(("shape", "axis", "count"), CASES)
def test_bits_of_the_references(shape, axis, count, isa, threads):
    x, part = floats(shape, "float32"), with_axis(shape, axis, count)
    slices, elements, updates = ids(shape[axis], count), ids(shape[axis], part), floats(part, "float32")
    for n in (1, 3):
        threads(n)
        np.testing.assert_array_equal(*both("take", x, slices, axis=axis))
        np.testing.assert_array_equal(*both("take_along_axis", x, elements, axis=axis))
        np.testing.assert_array_equal(*both("index_add", x, slices, updates, axis=axis))
        np.testing.assert_array_equal(*both("scatter_add", x, elements, updates, axis=axis))


@pytest.mark.parametrize("padding_idx", [None, 0, -1])
@pytest.mark.parametrize(("rows", "width", "count"), [(400, 16, 3000), (2, 500, 300), (9, 3, 0)])
def test_embedding_gradient_has_the_bits_of_the_reference(rows, width, count, padding_idx, threads):
    for n in (1, 3):
        threads(n)
        arrays = ids(rows, count), floats((count, width), "float32")
        np.testing.assert_array_equal(*both("embedding_grad", *arrays, rows=rows, padding_idx=padding_idx))


@pytest.mark.parametrize(
    ("key", "variant"),
    [
        (lambda i: (i,), "native"),
        (lambda i: (slice(None), i), "native"),
        (lambda i: (slice(None), i, slice(None)), "native"),
        (lambda i: (i, slice(1, None)), "reference"),
        (lambda i: (i, i), "reference"),
        (lambda i: (None, i), "reference"),
        (lambda i: (..., i), "reference"),
        (lambda i: (1,), "slices"),
        (lambda i: (slice(None), slice(3, 0, -2), None), "slices"),
        (lambda i: (slice(None), slice(1, 3)), "slices"),
        (lambda i: (..., slice(-2, None)), "slices"),
        (lambda i: (slice(2, 2),), "slices"),
        (lambda i: (slice(None), slice(0, 1), ..., None), "slices"),
    ],
)
def test_gradients_of_indexing(key, variant):
    x, found, ran = floats((4, 4, 3), "float32"), [], []
    for device in ("cpu", "numpy"):
        leaf = dl.tensor(x, device=device, requires_grad=True)
        y = leaf[key(np.array([[2, -1], [0, 2]]))]
        with dispatch.listening(lambda event: ran.append((event.op.name, event.plan.variant))):
            found += dl.gradients((y * y).sum(), [leaf])
    np.testing.assert_array_equal(*found)
    assert [v for name, v in ran if name == "getitem_grad"] == [variant, "reference"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_array_as_index_is_a_gather(axis, dtype):
    x, found = floats((4, 4, 4), "float32").astype(dtype), []
    key = (*(slice(None),) * axis, np.array([[2, -1, 0]]))
    with dispatch.listening(lambda event: found.append(event.plan.variant)):
        np.testing.assert_array_equal(dl.asarray(x, device="cpu")[key].numpy(), x[key])
    assert found == ["gather"]
    with pytest.raises(IndexRangeError):
        dl.asarray(x, device="cpu")[(*key[:-1], np.array([4]))]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_floats(dtype):
    x, updates, positions = floats((6, 5), dtype), floats((40, 5), dtype), ids(6, (40, 5))
    np.testing.assert_array_equal(*both("take_along_axis", x, positions, axis=0))
    np.testing.assert_array_equal(*both("scatter_add", x, positions, updates, axis=0))
    np.testing.assert_array_equal(*both("embedding", positions, x))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint64"])
def test_whole_numbers_are_gathered(dtype):
    x = RNG.integers(0, 2, (4, 3)).astype(dtype)
    got, expected = both("take_along_axis", x, ids(3, (4, 9)), axis=1)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(*both("take", x, ids(3, 9), axis=1))


@pytest.mark.parametrize("bad", [-4, 3])
@pytest.mark.parametrize("what", ["rows", "elements"])
def test_positions_outside_are_refused(bad, what):
    x, index = np.zeros((3, 1), np.float32), np.array([[0], [bad]])
    out = np.full((2, 1), 7, np.float32)
    with pytest.raises(IndexError, match="an index is out of range"):
        getattr(_C, f"gather_{what}")(x, index, out, 0)
    with pytest.raises(IndexError, match="an index is out of range"):
        getattr(_C, f"scatter_add_{what}")(None, index, out, x, 0)
    assert (out == 7).all()
    assert (x == 0).all()


@pytest.mark.parametrize(
    ("kernel", "arguments", "message"),
    [
        (_C.gather_rows, (np.zeros(3), np.array([0]), np.zeros(2), 0), "sizes differ"),
        (_C.gather_rows, (np.zeros(3), np.array([0]), np.zeros(1, np.float32), 0), "x and out differ"),
        (_C.gather_rows, (np.zeros(3), np.array([0]), np.zeros(1), 1), "no such axis"),
        (_C.gather_rows, (np.zeros((3, 2)).T, np.array([0]), np.zeros((1, 3)), 0), "contiguous"),
        (_C.gather_elements, (np.zeros((3, 2)), np.array([0]), np.zeros((1, 2)), 0), "sizes differ"),
        (_C.scatter_add_rows, (np.zeros(4), np.array([0]), np.zeros(1), np.zeros(3), 0), "x and out differ"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kernel, arguments, message):
    with pytest.raises(ValueError, match=message):
        kernel(*arguments)


@pytest.mark.parametrize(("start", "axis"), [(-1, 1), (3, 1), (0, 2), (0, 0)])
def test_a_part_that_does_not_fit_is_refused(start, axis):
    with pytest.raises(ValueError, match=r"^place: "):
        _C.place(np.ones((2, 3), np.float32), np.ones((2, 5), np.float32), start, axis)
