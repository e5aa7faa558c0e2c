"""The element-wise kernels of `_C`: values, special values, strides, instruction sets, threads."""

import math

import numpy as np
import pytest

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}
erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x):
    return np.where(x < 0, np.exp(-np.abs(x)), 1.0) / (1 + np.exp(-np.abs(x)))


def softplus(x, b=1.0):
    return np.where(x < 0, 0, x) + np.log1p(np.exp(-np.abs(b * x))) / b


def bounded(x, low, high):
    raised = np.where(x < low, low, x)
    return np.where(raised > high, high, raised)


def hardsigmoid(x):
    return bounded(x / x.dtype.type(6) + x.dtype.type(0.5), 0, 1)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x * sigmoid(x)


def gelu_slope(x):
    return 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


def gelu_tanh_slope(x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x)


def silu_slope(x):
    return sigmoid(x) * (1 + x * sigmoid(-x))


EXACT = {  # operands, and the function they must equal to the last bit
    "add": (2, np.add), "subtract": (2, np.subtract), "multiply": (2, np.multiply), "divide": (2, np.divide),
    "maximum": (2, np.maximum), "minimum": (2, np.minimum), "clip": (3, bounded), "negative": (1, np.negative),
    "abs": (1, np.abs), "square": (1, np.square), "sqrt": (1, np.sqrt), "reciprocal": (1, np.reciprocal),
    "relu": (1, lambda x: np.where(x < 0, np.zeros_like(x), x)), "relu_grad": (2, lambda g, y: np.where(y > 0, g, 0)),
    "leaky_relu": (2, lambda x, a: np.where(x > 0, x, x * a)), "less": (2, np.less), "less_equal": (2, np.less_equal),
    "greater": (2, np.greater),
    "lerp": (3, lambda a, b, w: a + w * (b - a)), "tanh_grad": (2, lambda g, y: g * (1 - y * y)),
    "sigmoid_grad": (2, lambda g, y: g * y * (1 - y)), "greater_equal": (2, np.greater_equal),
    "equal": (2, np.equal), "not_equal": (2, np.not_equal), "sign": (1, np.sign), "floor": (1, np.floor),
    "ceil": (1, np.ceil), "trunc": (1, np.trunc), "round": (1, np.round), "hardsigmoid": (1, hardsigmoid),
    "hardswish": (1, lambda x: x * hardsigmoid(x)), "hardshrink": (2, lambda x, b: np.where(np.abs(x) <= b, 0, x)),
    "softshrink": (2, lambda x, b: x - bounded(x, -b, b)), "threshold": (3, lambda x, b, c: np.where(x <= b, c, x)),
}  # fmt: skip
CLOSE = {  # operands, and the function they come close to
    "sin": (1, np.sin), "cos": (1, np.cos), "rsqrt": (1, lambda x: 1 / np.sqrt(x)),
    "exp": (1, np.exp), "log": (1, np.log), "expm1": (1, np.expm1),
    "log1p": (1, np.log1p), "tanh": (1, np.tanh), "sigmoid": (1, sigmoid), "erf": (1, erf), "gelu": (1, gelu),
    "gelu_tanh": (1, gelu_tanh), "silu": (1, silu), "mish": (1, lambda x: x * np.tanh(softplus(x))),
    "elu": (2, lambda x, a: np.where(x > 0, x, a * np.expm1(x))), "softplus": (2, softplus),
    "logsigmoid": (1, lambda x: -softplus(-x)), "softsign": (1, lambda x: x / (1 + np.abs(x))),
    "gelu_grad": (2, lambda g, x: g * gelu_slope(x)), "gelu_tanh_grad": (2, lambda g, x: g * gelu_tanh_slope(x)),
    "silu_grad": (2, lambda g, x: g * silu_slope(x)), "pow": (2, np.power), "logaddexp": (2, np.logaddexp),
    "tanhshrink": (1, lambda x: x - np.tanh(x)), "celu": (2, lambda x, b: np.where(x > 0, x, b * np.expm1(x / b))),
    "selu": (1, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
}  # fmt: skip
TABLE = EXACT | CLOSE
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1e-20, -1e-20, 88.0, -88.0, 105.0])


def operands(name, shape, dtype, seed=0):
    rng, low = np.random.default_rng([seed, *shape]), 0.1 if name in ("softplus", "log", "sqrt", "pow") else -4
    return [rng.uniform(low, 4, shape).astype(dtype) for _ in range(TABLE[name][0])]


def expected(name, arrays):
    wide = [np.asarray(a, np.float64) for a in arrays]
    with np.errstate(all="ignore"):
        return TABLE[name][1](*(arrays if name in EXACT else wide))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TABLE)
def test_values_of_every_length_of_tail(name, dtype, isa):
    for n in (*range(18), 33, 1021):
        xs = operands(name, (n,), dtype)
        got = getattr(_C, name)(*xs)
        want = expected(name, xs)
        if name in EXACT:
            np.testing.assert_array_equal(got, want.astype(got.dtype))
        else:
            np.testing.assert_allclose(got, want, rtol=16 * EPS[dtype], atol=16 * EPS[dtype])


@pytest.mark.parametrize("name", ["exp", "log", "expm1", "log1p", "tanh", "sigmoid", "erf", "softplus", "logsigmoid"])
def test_relative_error_over_the_range(name, isa):
    x = np.concatenate([np.linspace(-30, 30, 20001), np.logspace(-30, 1, 999), -np.logspace(-30, 0, 999)])
    x = x[x > 0] if name == "log" else x[x > -1] if name == "log1p" else x
    xs = [x.astype(np.float32)] + [np.float32(1)] * (TABLE[name][0] - 1)
    xs = [xs[0], *(np.full_like(xs[0], v) for v in xs[1:])]
    np.testing.assert_allclose(getattr(_C, name)(*xs), expected(name, xs), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.parametrize("largest", [1, 100, 8192, 1e6, 3e38])
def test_angles_of_any_size_are_within_four_ulp(name, largest, isa):
    x = np.random.default_rng(0).uniform(-largest, largest, 200_000).astype(np.float32)
    x[:2000] = (np.arange(2000) * (np.pi / 2)).astype(np.float32)  # beside zeros
    want = getattr(np, name)(x.astype(np.float64))
    error = np.abs(getattr(_C, name)(x) - want) / np.spacing(np.abs(want).astype(np.float32))
    assert error.max() < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(TABLE.keys() - {"gelu_grad", "gelu_tanh_grad", "silu_grad", "celu"}))
def test_nan_infinities_and_extremes_as_numpy(name, dtype, isa):
    grid = np.meshgrid(*[SPECIAL.astype(dtype)] * TABLE[name][0])
    xs = [np.ascontiguousarray(g.ravel()) for g in grid]
    with np.errstate(all="ignore"):
        want = np.asarray(expected(name, xs))
        want = want.astype(want.dtype if want.dtype == bool else dtype)
    got = getattr(_C, name)(*xs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_celu_of_extremes_as_numpy(dtype, isa):
    """Of all but the smallest quotients, which underflow."""
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(_C.celu(SPECIAL.astype(dtype), 0.5), expected("celu", [SPECIAL, 0.5]), rtol=1e-5)


@pytest.mark.parametrize("name", ["gelu_grad", "gelu_tanh_grad", "silu_grad"])
def test_gradients_far_out_are_zero_or_one(name, isa):
    x = np.array([-1e4, -300, 300, 1e4], np.float32)
    np.testing.assert_array_equal(getattr(_C, name)(np.ones(4, np.float32), x), [0, 0, 1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["round", "floor", "ceil", "trunc"])
def test_halves_and_what_has_no_fraction_are_rounded_as_numpy(name, dtype, isa):
    x = np.concatenate([np.arange(-9, 9) / 2, 2.0 ** np.arange(20, 60), -(2.0 ** np.arange(20, 60)) + 0.5]).astype(
        dtype
    )
    np.testing.assert_array_equal(getattr(_C, name)(x), getattr(np, name)(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cube_is_a_product_whatever_is_beside_it(dtype, isa):
    x = np.linspace(-3, 3, 67).astype(dtype)
    mixed = np.where(np.arange(67) % 5 == 0, 2.5, 3).astype(dtype)
    np.testing.assert_array_equal(_C.pow(x, 3.0), x * x * x)
    np.testing.assert_array_equal(_C.pow(x, mixed)[mixed == 3], (x * x * x)[mixed == 3])


def layouts(x):
    """Equal values in other memory orders."""
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    sparse = wide[tuple(slice(0, 2 * n, 2) for n in x.shape)]
    sparse[...] = x
    return [x, np.asfortranarray(x), np.ascontiguousarray(x[::-1])[::-1], sparse]


SHAPES = [
    ((5, 7), (7,)), ((5, 1), (1, 7)), ((3,), (3, 2, 1)), ((2, 3, 4, 5), (3, 1, 1)), ((4, 1), (2, 1, 1)), ((1, 1), (1,)),
    ((6, 1100), (6, 1)), ((0, 3), (3,)), ((2, 1, 3), (2, 5, 1)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_broadcasting_and_strides_as_numpy(shapes, dtype):
    a, b = (np.random.default_rng(0).normal(size=s).astype(dtype) for s in shapes)
    for x in layouts(a):
        for y in layouts(b):
            got = _C.subtract(x, y)
            np.testing.assert_array_equal(got, a - b)
            assert got.flags.c_contiguous
            np.testing.assert_array_equal(_C.less(x, y), a < b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_takes_a_broadcast_condition(dtype):
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(6, 33)).astype(dtype), rng.normal(size=33).astype(dtype), rng.random((6, 1)) < 0.5
    for condition in layouts(c):
        np.testing.assert_array_equal(_C.where(condition, a, b), np.where(c, a, b))
    np.testing.assert_array_equal(_C.where(a > 0, a, 0.0), np.where(a > 0, a, 0))


def test_operands_without_axes():
    x = np.array(2.0, np.float32)
    assert _C.add(x, x).shape == ()
    assert _C.add(x, x) == 4


def test_scalars_take_the_dtype_of_the_arrays():
    x = np.arange(5, dtype=np.float32)
    got = _C.multiply(2.5, x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, 2.5 * x)


def test_misaligned_operands():
    raw = np.arange(41, dtype=np.uint8).tobytes()
    x = np.frombuffer(raw, np.float32, 10, offset=1)
    np.testing.assert_array_equal(_C.add(x, x), x + x)


@pytest.mark.parametrize("name", ["exp", "divide", "gelu_grad", "less"])
@pytest.mark.parametrize("shape", [(70001,), (37, 1999)])
def test_bits_do_not_depend_on_threads(name, shape, isa, threads):
    xs = operands(name, shape, np.float32)
    xs[-1] = xs[-1][:1] if len(shape) > 1 and len(xs) > 1 else xs[-1]
    threads(1)
    one = getattr(_C, name)(*xs)
    threads(3)
    np.testing.assert_array_equal(one, getattr(_C, name)(*xs))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: _C.add(x), TypeError, "add: wrong number of operands"),
        (lambda x: _C.add(1.0, 2.0), TypeError, "add: expected an array"),
        (lambda x: _C.add(x, x.astype(np.float64)), TypeError, "of one dtype"),
        (lambda x: _C.add(x.astype(int), x.astype(int)), TypeError, "expected float32 or float64"),
        (lambda x: _C.add(x, x[:2]), ValueError, "add: shapes do not broadcast"),
        (lambda x: _C.add(x, "a"), TypeError, "must be real number"),
    ],
)
def test_bad_operands_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(3, np.float32))
