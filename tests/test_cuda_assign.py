"""Kernels that put arrays together and take them apart by any index, in the emulator; as NumPy."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes, indexing
from dlcore.op import OPS

pytestmark = pytest.mark.sim
SIZES = [np.float64, np.float32, np.float16, np.int8, bool]


def run(name, *operands, **attrs):
    placed = [dl.asarray(x, device="sim") if isinstance(x, np.ndarray) else x for x in operands]
    return OPS[name](*placed, **attrs).numpy()


def drawn(*shape, dtype=np.float32):
    return np.random.default_rng(list(shape)).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize(("shapes", "axis"), [
    ([(3, 32), (5, 32), (1, 32)], 0), ([(3, 16), (3, 1), (3, 48)], 1), ([(2, 3, 7), (2, 5, 7)], -2),
])  # fmt: skip
def test_parts_are_joined(shapes, axis, dtype, launches):
    xs = [drawn(*s, dtype=dtype) for s in shapes]
    np.testing.assert_array_equal(run("concat", *xs, axis=axis), np.concatenate(xs, axis))
    assert launches == [f"assign_b{np.dtype(dtype).itemsize}"] * len(xs)


def test_a_part_seen_transposed_is_joined():
    x, y = drawn(40, 7).T, drawn(7, 3)
    np.testing.assert_array_equal(run("concat", x, y, axis=1), np.concatenate([x, y], 1))


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("widths", [((0, 0), (1, 2)), ((2, 0), (0, 0)), ((1, 1), (16, 16)), ((0, 0), (0, 0))])
def test_padding_goes_around(widths, dtype, launches):
    x = drawn(5, 32, dtype=dtype)
    np.testing.assert_array_equal(run("pad", x, widths=widths, value=3), np.pad(x, widths, constant_values=3))
    assert len(launches) == 1 + sum(n > 0 for pair in widths for n in pair)


@pytest.mark.parametrize("value", [-0.1, np.inf])
def test_padding_keeps_its_bits(value):
    np.testing.assert_array_equal(run("pad", drawn(3).astype(np.float64), widths=((1, 0),), value=value)[0], value)


# ---- indices: each with the number of launches beside copies

X = (6, 5, 4, 3)
INDICES = [
    (np.asarray([3, -1, 3]),),
    (slice(None), np.asarray([[0, -5], [4, 1]])),
    (np.asarray([0, 1, -1]), np.asarray([2, -2, 0])),
    (slice(1, 5), np.asarray([0, 4]), np.asarray([[1], [-4]])),
    (np.asarray([0, 1]), slice(None), np.asarray([2, 3])),
    (0, slice(None), np.asarray([1, 1, 2])),
    (slice(None), 2, np.asarray([1, 1, 2])),
    (np.asarray([5, 0]), 1),
    (Ellipsis, np.asarray([2, 0, 0]), slice(None, None, -1)),
    (slice(4, None, -2), None, np.asarray([0, 0, 3]), Ellipsis, 1),
    (np.asarray([1]), np.asarray([2]), np.asarray([3]), np.asarray([0])),
    (np.zeros(0, np.int64),),
    (np.arange(6) % 3 == 0,),
]


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_with_arrays(index, dtype):
    x = drawn(*X, dtype=dtype)
    np.testing.assert_array_equal(dl.asarray(x, device="sim")[index].numpy(), x[index])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(
    "index", [*INDICES, (1, slice(None, None, 2)), (Ellipsis, slice(None, None, -1)), (None, slice(1, 3), 2)], ids=str
)
def test_the_adjoint_of_an_index_adds_up(index, dtype):
    key, arrays = indexing.encode(index, X)
    expected = np.zeros(X)
    g = drawn(*expected[index].shape).astype(dtype)
    np.add.at(expected, index, g)
    np.testing.assert_array_equal(run("getitem_grad", g, *arrays, index=key, shape=X), expected)


def test_an_index_of_rows_is_one_gather(launches):
    _ = dl.asarray(drawn(9, 8), device="sim")[np.asarray([3, 0])]
    assert launches == ["gather_rows_b16"]


def test_more_arrays_than_a_kernel_takes_are_indexed_by_the_reference(launches):
    x, ids = drawn(2, 2, 2, 2, 2), (np.asarray([0, 1]),) * 5
    np.testing.assert_array_equal(dl.asarray(x, device="sim")[ids].numpy(), x[ids])
    assert launches == []


# ---- labels


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"])
def test_one_hot_of_each_dtype(dtype, launches):
    labels = np.random.default_rng(0).integers(0, 7, (60, 3))
    found = run("one_hot", labels, num_classes=7, dtype=dtypes.dtype(dtype))
    assert found.dtype == dtypes.dtype(dtype)
    np.testing.assert_array_equal(found, np.eye(7)[labels])
    assert len(launches) == 1


@pytest.mark.parametrize("weighted", [True, False])
def test_targets_of_a_map_of_labels(weighted):
    labels = np.random.default_rng(0).integers(-1, 4, (5, 40))
    weight = np.asarray([1.0, 0.5, 2.0, 3.0], np.float32) if weighted else None
    attrs = {"num_classes": 4, "ignore_index": -1, "label_smoothing": 0.2, "dtype": dtypes.float32}
    expected = OPS["cross_entropy_targets"].reference(np, labels, weight, **attrs)
    np.testing.assert_array_equal(run("cross_entropy_targets", labels, weight, **attrs), expected)


# ---- truth and norms of what is not bool, patches of what is no float


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int32])
@pytest.mark.parametrize("name", ["any", "all"])
def test_truth_of_numbers(name, dtype):
    x = np.asarray([[0, 0, 0], [0, 2, 0], [-1, 2, 3]], dtype)
    np.testing.assert_array_equal(run(name, x, axis=1), getattr(np, name)(x, axis=1))


@pytest.mark.parametrize("ord", [1, 2, 3])
def test_norms_of_half_precision_add_up_in_single(ord):
    x = np.full((3, 500), 20, np.float16)
    np.testing.assert_allclose(run("norm", x, axis=1, ord=ord), 20 * 500 ** (1 / ord), rtol=1e-3)


def test_patches_of_ints():
    x = drawn(2, 3, 6, 5, dtype=np.int32)
    attrs = {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    np.testing.assert_array_equal(run("unfold", x, **attrs), OPS["unfold"].reference(np, x, **attrs))
