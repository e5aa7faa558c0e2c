"""Sorts, searches, replacements, scans and draws in the emulator: the reference's results at every kind of size."""

import numpy as np
import pytest
from conftest import beginning

import dlcore as dl
from dlcore import dispatch, dtypes, testing
from dlcore.op import OPS
from dlcore.sim import engine

pytestmark = pytest.mark.sim
EVERY = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"]
KEY = np.asarray([7, 3])


def run(name, *operands, **attrs):
    result = OPS[name](*[dl.asarray(x, device="sim") for x in operands], **attrs)
    return tuple(y.numpy() for y in result) if isinstance(result, tuple) else result.numpy()


def tied(*shape, dtype="float32"):
    """Numbers with many equal ones, zeros of both signs, infinities and NaN of both signs."""
    x = np.random.default_rng(list(shape)).integers(-20, 20, shape).astype(np.float64)
    if dtypes.kind(dtypes.dtype(dtype)) == "float":
        flat = x.reshape(-1)
        for i, special in enumerate([np.nan, -0.0, np.inf, -np.inf, 0.0, -np.nan]):
            flat[i::11] = special
    return x.astype(dtypes.dtype(dtype))


def agree(name, *operands, **attrs):
    wide = [x.astype(np.float32) if dtypes.is_half(x.dtype) else x for x in operands]
    with np.errstate(all="ignore"):
        expected = OPS[name].reference(np, *wide, **{**OPS[name].attrs, **attrs})
    found = run(name, *operands, **attrs)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, expected)), strict=True):
        a, b = (y.astype(np.float64) if y.dtype == dtypes.bfloat16 else y for y in (a, b.astype(a.dtype)))
        np.testing.assert_array_equal(a, b, strict=True)


# ---- sorts


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("n", [1, 5, 64, 2048])
def test_rows_that_a_block_sorts(n, dtype, descending, launches):
    agree("sort", tied(9 if n < 2000 else 1, n, dtype=dtype), descending=descending)
    assert [name.rpartition("_")[0] for name in launches] == ["sort_tiles"]


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("n", [4099, 9001])
def test_rows_that_are_merged(n, dtype, launches):
    agree("sort", tied(2, n, dtype=dtype), descending=n == 9001)
    run_length = 2048 if dtype in ("float64", "int64") else 4096
    assert len(launches) == 1 + int(np.ceil(np.log2(n / run_length)))


@pytest.mark.parametrize("n", [16, 17, 130, 600, 1025, 4096])
def test_rows_that_more_or_fewer_threads_of_a_block_sort(n):
    x = np.random.default_rng(n).permutation(2 * n).astype(np.float32).reshape(2, n)
    agree("sort", x, descending=n == 130)


@pytest.mark.parametrize("n", [77, 5001])
@pytest.mark.parametrize("bits", [np.uint16, np.uint32, np.uint64])
def test_values_are_the_elements_to_the_last_bit(bits, n):
    patterns = np.random.default_rng(n).integers(0, 2**64, n, np.uint64) >> np.uint64(64 - 8 * bits().itemsize)
    x = patterns.astype(bits).view(f"f{bits().itemsize}")
    x[::7], x[3::7], x[5::7] = -0.0, 0.0, np.nan
    x[6::7] = -x[5::7][: x[6::7].size]
    values, places = run("sort", x, descending=n == 77)
    np.testing.assert_array_equal(values.view(bits), x[places].view(bits))


@pytest.mark.parametrize("n", [64, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_rows_that_begin_anywhere(n, dtype):
    x = beginning(tied(2, n, dtype=dtype), 1)
    np.testing.assert_array_equal(run("sort", x)[1], np.argsort(x, stable=True))


@pytest.mark.parametrize("shape", [(300, 3), (1, 1), (5, 4, 3)])
@pytest.mark.parametrize("axis", [0, -1])
def test_each_axis_and_more_rows_than_a_block_sorts(shape, axis):
    agree("sort", tied(*shape), axis=axis)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("k", [5, 6])
@pytest.mark.parametrize(("shape", "axis"), [((7, 30), -1), ((30, 7), 0), ((2, 5000), 1)])
def test_first_elements(shape, axis, k, largest):
    agree("topk", tied(*shape), k=k, axis=axis, largest=largest)


def test_first_elements_of_several_runs():
    agree("topk", tied(2, 9001), k=2500, axis=1, largest=True)


@pytest.mark.emulator
def test_a_sort_in_any_order_of_threads_gives_the_same_bits():
    x = tied(1, 4500)
    (places,) = engine.same_bits(lambda: [run("sort", x)[1]])
    np.testing.assert_array_equal(places, np.argsort(x, stable=True))


@pytest.mark.parametrize("name", ["sort", "topk"])
def test_very_long_rows_are_left_to_the_array_library_for_a_reason(name):
    (native,) = dispatch.variants(name, "cuda")
    attrs = {**OPS[name].attrs, "k": 1, "axis": -1}
    call = dispatch.Call(OPS[name], ((2, 2**24 + 1),), dtypes.float32, None, attrs, dispatch.get_backend("sim"))
    assert "CuPy's sort" in native.refuse(call)


# ---- searches


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", EVERY)
def test_places_in_sorted_numbers(dtype, side):
    boundaries = np.sort(tied(40, dtype=dtype).astype(np.float64)).astype(dtypes.dtype(dtype))
    agree("searchsorted", boundaries, tied(5, 60, dtype=dtype), side=side)


def test_places_among_no_numbers():
    agree("searchsorted", np.zeros(0, np.float32), tied(3), side="left")


# ---- replacements


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_last_of_repeated_positions_wins(axis, dtype):
    rng = np.random.default_rng(axis)
    x = rng.integers(0, 100, (4, 5, 6)).astype(dtype)
    shape = tuple(40 if i == axis else n for i, n in enumerate(x.shape))
    index, updates = rng.integers(-4, 4, shape), rng.integers(0, 100, shape).astype(dtype)
    expected = x.copy()
    for at in np.ndindex(*shape):
        expected[(*at[:axis], index[at], *at[axis + 1 :])] = updates[at]
    np.testing.assert_array_equal(run("scatter", x, index, updates, axis=axis), expected)


# ---- scans


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [1, 129, 1027])
def test_recurrences(n, reverse, dtype):
    rng = np.random.default_rng(n)
    a, b = (rng.uniform(0.5, 1.0, (3, n)).astype(dtypes.dtype(dtype)) for _ in range(2))
    y, steps = np.zeros(3), np.zeros((3, n))
    for i in reversed(range(n)) if reverse else range(n):
        steps[:, i] = y = a[:, i].astype(np.float64) * y + b[:, i].astype(np.float64)
    testing.assert_close(run("linear_scan", a, b, reverse=reverse), steps, dtype)


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_running_sums_of_whole_numbers(name, dtype, launches):
    x = np.random.default_rng(0).integers(-9, 9, (3, 600)).astype(dtype)
    expected = getattr(np, name)(x.astype(np.int64), axis=1)
    found = run(name, x)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    assert launches[-1] == f"scan_{'sum' if name == 'cumsum' else 'product'}_i64"


# ---- draws


@pytest.mark.parametrize("size", [17, 3000])
def test_permutations_are_those_of_the_reference(size):
    agree("permutation", KEY, size=size)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("classes", [50, 52])  # rows of f32 that do not move in vectors, and that do
def test_draws_are_those_of_the_reference(classes, replacement, dtype):
    p = np.random.default_rng(0).random((3, classes)).astype(dtype)
    p[1, 7:40] = 0
    agree("multinomial", p, KEY, count=10, replacement=replacement)
