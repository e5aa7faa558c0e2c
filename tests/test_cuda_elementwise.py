"""Element-wise kernels in the emulator at the numbers where rules change, and of whole numbers and bools; as NumPy."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes, settings
from dlcore.errors import BackendError
from dlcore.op import OPS

pytestmark = pytest.mark.sim
INTS = [np.int32, np.int64]
FLOATS = ["float64", "float32", "float16", "bfloat16"]
UNARY = ["negative", "abs", "sign", "square", "bitwise_invert", "floor", "ceil", "trunc", "round", "positive"]
BINARY = ["add", "subtract", "multiply", "maximum", "minimum", "floor_divide", "remainder", "bitwise_and",
          "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"]  # fmt: skip
COMPARISONS = ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]
PREDICATES = ["isnan", "isinf", "isfinite"]


def run(name, *operands, **attrs):
    placed = [dl.asarray(x, device="sim") if isinstance(x, np.ndarray) else x for x in operands]
    return OPS[name](*placed, **attrs).numpy()


def agree(name, *operands):
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(*operands)
    found = run(name, *operands)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected)) if found.dtype.kind == "f" else None


# ---- whole numbers


def edges(dtype):
    limits = np.iinfo(dtype)
    return np.asarray([0, 1, -1, 2, 7, -7, 31, 32, 63, 64, limits.max, limits.min, limits.min + 1], dtype)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", UNARY + PREDICATES)
def test_whole_numbers(name, dtype, launches):
    agree(name, edges(dtype))
    assert len(launches) == 1


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", BINARY + COMPARISONS)
def test_pairs_of_whole_numbers(name, dtype, launches):
    agree(name, edges(dtype)[:, None], edges(dtype))
    assert launches == [f"whole_{name}_{'i32' if dtype is np.int32 else 'i64'}"]


@pytest.mark.parametrize("dtype", INTS)
def test_powers_of_whole_numbers(dtype):
    agree("pow", edges(dtype)[:, None], np.asarray([0, 1, 2, 3, 5, 64], dtype))


@pytest.mark.parametrize("dtype", INTS)
def test_relu_and_bounds_of_whole_numbers(dtype):
    x = edges(dtype)
    np.testing.assert_array_equal(run("relu", x), np.maximum(x, 0))
    for low, high in [(-3, 9), (None, 2), (1, None), (5, 1)]:
        np.testing.assert_array_equal(dl.clip(dl.asarray(x, device="sim"), low, high).numpy(), np.clip(x, low, high))


@pytest.mark.parametrize("name", [*COMPARISONS, "add", "multiply", "maximum", "minimum", "bitwise_and", "bitwise_or",
                                  "bitwise_xor", "logical_and", "logical_or", "logical_xor"])  # fmt: skip
def test_bools(name, launches):
    agree(name, np.asarray([False, True] * 20)[:, None], np.asarray([False, True] * 9))
    assert launches[0].endswith("_b8")


@pytest.mark.parametrize("name", ["logical_not", "bitwise_invert"])
def test_opposite_of_bools(name):
    agree(name, np.asarray([False, True] * 20))


@pytest.mark.parametrize("number", [2**62 + 1, -(2**53) - 1])
def test_a_python_int_keeps_all_its_bits(number):
    np.testing.assert_array_equal(run("add", np.arange(3), number), np.arange(3) + number)


def test_other_whole_numbers_take_the_reference(launches):
    agree("add", np.arange(3, dtype=np.int16), np.arange(3, dtype=np.int16))
    assert launches == []


# ---- floats

SPECIAL = [0.0, -0.0, 1.0, -1.0, 5.5, -5.5, 0.1, 3.0, -3.0, 1e4, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
def test_quotients_rounded_down(name, dtype):
    rng = np.random.default_rng(0)
    agree(name, np.asarray(SPECIAL, dtype)[:, None], np.asarray(SPECIAL, dtype))
    agree(name, rng.normal(size=500).astype(dtype) * 100, rng.normal(size=500).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*PREDICATES, "signbit"])
def test_predicates(name, dtype):
    agree(name, np.asarray(SPECIAL).astype(dtypes.dtype(dtype)))


@pytest.mark.parametrize("name", ["logaddexp", "hypot", "atan2"])
def test_pairs_with_infinities(name):
    a = np.asarray(SPECIAL)
    with np.errstate(all="ignore"):
        expected = getattr(np, {"atan2": "arctan2"}.get(name, name))(a[:, None], a)
    np.testing.assert_allclose(run(name, a[:, None], a), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["hardtanh", "relu6", "hardsigmoid", "hardswish", "hardshrink", "softshrink",
                                  "threshold", "celu", "selu", "tanhshrink"])  # fmt: skip
def test_activations_at_their_corners(name):
    x = np.asarray([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0, np.nan, np.inf])
    expected = OPS[name].reference(np, x, **OPS[name].attrs)
    np.testing.assert_allclose(run(name, x), expected, rtol=1e-15)


def test_the_upper_of_crossed_bounds_wins():
    x = np.asarray([0.0, 2.0, 9.0, np.nan], np.float32)
    np.testing.assert_array_equal(run("clip", x, 5.0, 1.0), [1, 1, 1, np.nan])


# ---- selections


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int32, np.int8, bool])
def test_where_of_each_size(dtype, launches):
    rng = np.random.default_rng(0)
    condition, x = rng.random((5, 32)) < 0.5, rng.integers(0, 9, (5, 32)).astype(dtype)
    other = rng.integers(0, 9, 32).astype(dtype)
    np.testing.assert_array_equal(run("where", condition, x, other), np.where(condition, x, other))
    np.testing.assert_array_equal(run("where", condition[:, :1], x.T[:5, :3], other[:3]),
                                  np.where(condition[:, :1], x.T[:5, :3], other[:3]))  # fmt: skip
    assert launches == [f"select_where_b{np.dtype(dtype).itemsize}"] * 2


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("float64", -0.1), ("float32", np.inf), ("float16", 0.1), ("bfloat16", -3.0), ("int64", -(2**60) - 1),
     ("int32", -5), ("bool", True)],
)  # fmt: skip
def test_where_with_a_python_number(dtype, number):
    x = np.zeros(40).astype(dtypes.dtype(dtype))
    condition = np.arange(40) % 3 == 0
    found = run("where", condition, x, number)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.where(condition, x, np.asarray(number).astype(x.dtype)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
@pytest.mark.parametrize("k", [-2, 0, 1, 60])
def test_triangles(k, dtype):
    x = np.arange(1, 3 * 50 * 41 + 1).reshape(3, 41, 50).astype(dtype)
    np.testing.assert_array_equal(run("tril", x, k=k), np.tril(x, k))
    np.testing.assert_array_equal(run("triu", x.swapaxes(1, 2), k=k), np.triu(x.swapaxes(1, 2), k))


# ---- what no kernel takes


def test_strict_mode_names_the_reason(monkeypatch):
    monkeypatch.setenv("DLCORE_STRICT", "1")
    settings.get.cache_clear()
    with pytest.raises(BackendError, match=r"add: no native kernel on sim .*no kernel for int16"):
        run("add", np.ones((2, 7), np.int16), np.ones((2, 7), np.int16))
    x = dl.zeros((1,) * 5, device="sim")
    with pytest.raises(BackendError, match=r"getitem: no native kernel on sim .*more than 4 arrays"):
        x[(np.zeros(1, np.int64),) * 5]
    assert x[0, ..., 0].shape == (1, 1, 1)
    monkeypatch.undo()
    settings.get.cache_clear()
