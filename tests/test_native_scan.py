"""Running sums and products of `_C`: rows together, rows in pieces, columns, threads, dtypes."""

import numpy as np
import pytest

import dlcore as dl

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

PIECE = 1 << 14
SIZES = [  # shape, axis
    ((7, 33), 1),  # a group of rows and some single ones
    ((8, PIECE), 1),
    ((2, 3 * PIECE + 5), 1),  # pieces
    ((1, 9 * PIECE), 1),
    ((3, 5, 300), 1),  # more columns than a unit holds
    ((4, 1, 2), 1),
    ((0, 4), 1),
    ((4, 0), 1),
]
KINDS = ["cumsum", "cumprod", "linear_scan"]


def of(kind, *operands, **attrs):
    run = dl.ops.scan.linear_scan if kind == "linear_scan" else getattr(dl, kind)
    return run(*(dl.asarray(x, device="cpu") for x in operands), **attrs).numpy()


def recurrence(kind, factors, x, axis, reverse):
    """One element after the other, in double."""
    a, x = (np.moveaxis(np.asarray(v, np.float64), axis, 0)[:: -1 if reverse else 1] for v in (factors, x))
    y, state = np.empty(x.shape), np.zeros(x.shape[1:]) + (kind == "cumprod")
    for t in range(len(x)):
        state = state * x[t] if kind == "cumprod" else (a[t] * state if kind == "linear_scan" else state) + x[t]
        y[t] = state
    return np.moveaxis(y[:: -1 if reverse else 1], 0, axis)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_values(kind, shape, axis, dtype, reverse):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, shape).astype(dtype)
    x = np.exp(0.01 * x) if kind == "cumprod" else x
    factors = np.exp(1e-4 * rng.uniform(-1, 1, shape)).astype(dtype)  # what a piece makes of its start counts
    got = of(kind, *([factors] if kind == "linear_scan" else []), x, axis=axis, reverse=reverse)
    assert got.dtype == dtype
    want = recurrence(kind, factors, x, axis, reverse)
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps if dtype == np.float32 else 1e-10, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_whole_numbers_are_exact_and_wrap_around(dtype, reverse):
    x = np.arange(-5, 35).reshape(2, 20).astype(dtype)
    flipped = x[:, ::-1] if reverse else x
    for kind in ("cumsum", "cumprod"):
        want = getattr(np, kind)(flipped, axis=1, dtype=np.int64)
        np.testing.assert_array_equal(of(kind, x, axis=1, reverse=reverse), want[:, ::-1] if reverse else want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 5 * PIECE + 3), (33, 2001), (5, 40, 1000)])
def test_bits_do_not_depend_on_threads(kind, shape, threads):
    rng = np.random.default_rng(1)
    operands = [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(1 + (kind == "linear_scan"))]
    found = []
    for n in (1, 2, 5):
        threads(n)
        found.append(of(kind, *operands, axis=1))
    assert all(np.array_equal(found[0], other, equal_nan=True) for other in found)


def test_operands_in_another_order_and_misaligned():
    x = np.arange(60, dtype=np.float32).reshape(6, 10)
    np.testing.assert_array_equal(of("cumsum", x.T, axis=0), np.cumsum(x.T, axis=0))
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.float32, 60, offset=1)
    np.testing.assert_array_equal(of("cumsum", shifted, axis=0), np.cumsum(x))


def test_a_sum_of_a_million_is_rounded_once():
    x = np.full(1_000_000, 0.1, np.float32)
    assert of("cumsum", x, axis=0)[-1] == np.float32(np.float64(np.float32(0.1)) * 1_000_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("middle", None, np.zeros(3), 0, False), "kind must be one of"),
        (("sum", None, np.zeros(3), 1, False), "no such axis"),
        (("sum", None, np.zeros(3, np.int16), 0, False), "float32, float64 or int64"),
        (("sum", None, np.zeros((3, 4)).T, 0, False), "row-major"),
        (("sum", np.zeros(3), np.zeros(3), 0, False), "factors are for linear"),
        (("linear", np.zeros(4), np.zeros(3), 0, False), "one shape and dtype"),
        (("linear", np.zeros(3, np.int64), np.zeros(3, np.int64), 0, False), "of floats"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _C.scan(*arguments)
