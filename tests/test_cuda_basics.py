"""CUDA kernels of copies and reductions, at the shapes that decide which kernel runs; against NumPy in float64."""

import itertools

import numpy as np
import pytest
from conftest import beginning, on_host, placed

import dlcore as dl
from dlcore import dtypes, testing
from dlcore.backends.cuda import launch

pytestmark = pytest.mark.sim
FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]
REDUCTIONS = ["sum", "mean", "prod", "max", "min", "var", "std", "logsumexp", "argmax", "argmin"]


@pytest.fixture
def launched():
    """Names of the kernels launched so far in this test."""
    names = []
    launch.listeners.append(lambda kernel, *_: names.append(kernel))
    yield names
    launch.listeners.pop()


def tensor(values, dtype=None):
    return dl.tensor(values, dtype=dtype, device="sim")


def oracle(op, x, axis):
    wide = x.astype(np.float64)
    if op == "logsumexp":
        return np.log(np.sum(np.exp(wide), axis))
    return getattr(np, op)(wide, axis)


def close(found, expected, dtype):
    if dtypes.kind(found.dtype) == "int":
        np.testing.assert_array_equal(found.numpy(), expected)
    else:
        testing.assert_close(found, expected, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize(
    ("shape", "axis", "kind"),
    [((5, 33), 1, "warp"), ((2, 1500), 1, "block"), ((2, 1536), 1, "block"), ((70, 41), 0, "columns")],
)
def test_reductions_of_each_kind_of_kernel(op, dtype, shape, axis, kind, launched):
    values = np.random.default_rng(0).uniform(0.97, 1.03, shape)
    x = tensor(values, dtype)
    close(getattr(dl, op)(x, axis=axis), oracle(op, x.numpy(), axis), dtype)
    assert [name.split("_")[1] for name in launched if name.startswith("reduce.")] == [kind]


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(300, 48), (7, 16)])
def test_columns_have_the_same_bits_wherever_they_begin(shape, dtype):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    tensor(0.0)  # the backend
    found = [dl.asarray(beginning(values, k), device="sim").sum(axis=0).numpy() for k in (0, 1)]
    assert found[0].tobytes() == found[1].tobytes()
    testing.assert_close(found[0], values.astype(np.float64).sum(0), dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_a_long_row_is_summed_in_two_passes(dtype, launched):
    values = np.random.default_rng(0).uniform(-1, 1, 70_000)
    x = tensor(values, dtype)
    testing.assert_close(x.sum(), x.numpy().astype(np.float64).sum(), dtype)
    assert len(launched) == 2


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_a_long_row_of_prime_length_is_summed_whole(dtype, launched):
    x = tensor(np.random.default_rng(0).uniform(-1, 1, 65_537), dtype)
    testing.assert_close(x.sum(), x.numpy().astype(np.float64).sum(), dtype)
    assert launched[0].startswith("reduce.reduce_block_sum")


def test_reductions_of_more_rows_than_blocks():
    values = np.random.default_rng(0).normal(size=(130, 1100)).astype(np.float32)
    testing.assert_close(tensor(values).sum(axis=1), values.astype(np.float64).sum(1), values.dtype)


@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_of_exponentials_far_apart(axis):
    values = np.linspace(1000, -1000, 90, dtype=np.float32).reshape(2, 45)
    expected = values.max(axis) if axis == 0 else values[:, 0]
    testing.assert_close(dl.logsumexp(tensor(values), axis=axis), expected, values.dtype)


@pytest.mark.parametrize("kind", ["columns", "block"])
@pytest.mark.parametrize("op", ["any", "all"])
@pytest.mark.parametrize("fill", [True, False])
def test_truth_of_long_axes(op, kind, fill):
    values = np.full((40, 1100), fill)
    values[17, 300] = not fill
    axis = {"columns": 0, "block": 1}[kind]
    np.testing.assert_array_equal(getattr(dl, op)(tensor(values), axis=axis).numpy(), getattr(np, op)(values, axis))


@pytest.mark.parametrize("op", ["max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins_and_the_first_of_equals_is_found(op, axis):
    values = np.ones((40, 1100), np.float32)
    values[3, 700] = values[9, 800] = np.nan
    expected = getattr(np, op)(values, axis)
    np.testing.assert_array_equal(getattr(dl, op)(tensor(values), axis=axis).numpy(), expected)


# ---- copies

EVERY = [*FLOATS, dtypes.int32, dtypes.int64, dtypes.bool_]


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(EVERY, 2)), ids=lambda d: d.name)
def test_casts_are_those_of_numpy(source, target):
    values = np.asarray([[0, 1, 2, 5, -3], [7, 8, 0, 1, 100]]).astype(source)
    found = tensor(values).mT.astype(target)
    np.testing.assert_array_equal(found.numpy(), values.T.astype(target))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, bool], ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(33, 17), (2, 40, 20), (3, 5), (64, 32)])
def test_contiguous_copies(dtype, shape):
    from dlcore.backends.cuda.ops_copy import contiguous

    tensor(0.0)  # the backend
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype).swapaxes(-1, -2)
    found = contiguous(placed(values))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(on_host(found), values)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16], ids=lambda d: d.__name__)
def test_a_transpose_of_a_matrix_that_begins_between_vectors(dtype):
    from dlcore.backends.cuda.ops_copy import contiguous

    tensor(0.0)  # the backend
    values = beginning(np.arange(160 * 80).reshape(160, 80).astype(dtype), 1)
    np.testing.assert_array_equal(contiguous(values.T), values.T)


def test_a_copy_of_more_axes_than_kernels_walk():
    x = tensor(np.arange(2**9, dtype=np.float32).reshape((2,) * 9)).permute(8, 6, 4, 2, 0, 7, 5, 3, 1)
    np.testing.assert_array_equal(x.sum(axis=(0, 3)).numpy(), x.numpy().sum((0, 3)))


# ---- element-wise walks


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("left", "right"),
    [((1000,), (1000,)), ((7, 24), (24,)), ((7, 24), (7, 1)), ((7, 23), (23,)), ((2, 1, 8), (3, 1)), ((), (9,))],
)
def test_broadcasts_in_vectors_and_out_of_them(left, right, dtype):
    rng = np.random.default_rng(0)
    a, b = tensor(rng.normal(size=left), dtype), tensor(rng.normal(size=right), dtype)
    testing.assert_close(a - b, a.numpy().astype(np.float64) - b.numpy().astype(np.float64), dtype)
    testing.assert_close(a * 0.5, a.numpy().astype(np.float64) * 0.5, dtype)


def test_an_operand_that_begins_between_vectors_is_read_element_by_element():
    x = tensor(np.arange(101, dtype=np.float32))
    np.testing.assert_array_equal((x[1:] + x[:-1]).numpy(), np.arange(1, 200, 2))


@pytest.mark.emulator
def test_an_argument_of_the_wrong_kind_is_refused():
    x = tensor(np.zeros(4, np.float32))._array
    expected = "elementwise_negative_f32: argument 1 is of kind l but the kernel takes 8 bytes of kind P"
    with pytest.raises(TypeError, match=expected):
        launch.launch("elementwise.elementwise_negative_f32", (1,), (256,), x, 3, b"", like=x)
    with pytest.raises(TypeError, match=r"elementwise_negative_f32: takes 3 arguments; got 1"):
        launch.launch("elementwise.elementwise_negative_f32", (1,), (256,), x, like=x)


@pytest.mark.emulator
def test_a_refused_launch_names_kernel_grid_and_block_and_leaves_everything_usable():
    from dlcore.errors import KernelError

    x = tensor(np.zeros(4, np.float32))._array
    expected = r"copy_transpose_b4<<<\(1,\), \(2048,\), 0>>>: .*a block of 2048 threads; at most 1024"
    with pytest.raises(KernelError, match=expected):
        launch.launch("copy.copy_transpose_b4", (1,), (2048,), x, x, 2, 2, 0, 0, like=x)
    assert (tensor([1.0]) + 1).item() == 2
