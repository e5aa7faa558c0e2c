"""3-d convolutions and max pooling of `cpu`, by 2-d ones, against the references in float64."""

import numpy as np
import pytest

from dlcore import dispatch
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

TOLERANCE = {np.float32: 3e-6, np.float64: 2e-14, np.float16: 5e-4}
CASES = {  # x, w, stride, padding, dilation, groups
    "3x3x3": ((2, 3, 5, 6, 7), (4, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "Winograd's": ((2, 8, 6, 20, 20), (9, 8, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "one tap": ((2, 3, 4, 5, 6), (5, 3, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "depth alone": ((1, 2, 9, 3, 4), (3, 2, 4, 1, 1), (2, 1, 1), (2, 0, 0), (1, 1, 1), 1),
    "strided, dilated": ((2, 4, 11, 9, 10), (6, 4, 3, 2, 3), (2, 3, 1), (1, 0, 2), (3, 1, 2), 1),
    "groups": ((2, 6, 5, 6, 7), (9, 2, 2, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 3),
    "stride beyond the kernel": ((1, 2, 9, 5, 5), (2, 2, 2, 2, 2), (4, 2, 2), (1, 0, 0), (1, 1, 1), 1),
}


def rand(*shape, dtype):
    return np.random.default_rng([*shape]).standard_normal(shape).astype(dtype)


def operands(case, dtype):
    """x, w, b, dy and the attributes of a case."""
    x, w, *rest = CASES[case]
    attrs = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=True))
    dy = OPS["conv3d"].resolve([x, w, None], attrs)[1][0]
    return [rand(*shape, dtype=dtype) for shape in (x, w, w[:1], dy)], attrs


def native(name):
    dispatch.get_backend("cpu")
    (variant,) = dispatch.variants(name, "cpu")
    return variant.fn


def all_three(run, x, w, b, dy, attrs):
    """y, dx, dw. run(op): an implementation."""
    y = run("conv3d")(x, w, b, **attrs)
    dx = run("conv3d_dx")(dy, w, size=x.shape[2:], **attrs)
    return y, dx, run("conv3d_dw")(dy, x, kernel=w.shape[2:], **attrs)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, dtype, isa):
    given, attrs = operands(case, dtype)
    got = all_three(native, *given, attrs)
    reference = lambda name: lambda *a, **k: OPS[name].reference(np, *a, **k)  # noqa: E731
    want = all_three(reference, *(a.astype(np.float64) for a in given), attrs)
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, dtype)
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(b).max()


def test_operands_in_another_order_without_bias():
    (x, w, _, dy), attrs = operands("3x3x3", np.float32)
    turned = [np.asfortranarray(a) for a in (x, w)]
    for a, b in zip(
        all_three(native, *turned, None, np.asfortranarray(dy), attrs),
        all_three(native, x, w, np.zeros(len(w), np.float32), dy, attrs),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["Winograd's", "strided, dilated"])
def test_bits_do_not_depend_on_threads(case, threads):
    given, attrs = operands(case, np.float32)
    found = []
    for count in (1, 2, 5):
        threads(count)
        found.append(all_three(native, *given, attrs))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- max pooling

POOL = {  # x, kernel, stride, padding, dilation, ceil_mode
    "halving": ((2, 3, 6, 8, 10), (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), False),
    "overlapping, padded": ((2, 2, 5, 7, 20), (3, 3, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1), True),
    "dilated": ((1, 2, 9, 8, 7), (2, 3, 2), (3, 2, 1), (1, 0, 1), (3, 2, 2), False),
    "depth alone": ((1, 2, 7, 3, 4), (3, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), False),
}


def pool_of(case):
    """The shape of x and the attributes."""
    shape, *rest = POOL[case]
    return shape, dict(zip(("kernel", "stride", "padding", "dilation", "ceil_mode"), rest, strict=True))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", POOL)
def test_max_pool(case, dtype, isa):
    shape, attrs = pool_of(case)
    x = np.round(rand(*shape, dtype=dtype), 1)  # with equals
    x.flat[::7], x.flat[3::50], x[0, 0, :3] = np.inf, np.nan, -np.inf
    y, i = native("max_pool3d")(x, **attrs)
    for got, want in zip((y, i), OPS["max_pool3d"].reference(np, x, **attrs), strict=True):
        np.testing.assert_array_equal(got, want)
    dy = rand(*y.shape, dtype=dtype)
    dx = native("max_pool3d_grad")(dy, i, size=shape[2:], **attrs)
    want = OPS["max_pool3d_grad"].reference(np, dy.astype(np.float64), i, size=shape[2:], **attrs)
    assert dx.dtype == dtype
    assert np.abs(dx - want).max() <= TOLERANCE[dtype] * np.abs(want).max()


@pytest.mark.parametrize("case", POOL)
def test_positions_outside_their_window_add_nothing(case):
    shape, attrs = pool_of(case)
    dy = rand(*native("max_pool3d")(rand(*shape, dtype=np.float64), **attrs)[0].shape, dtype=np.float64)
    i = np.random.default_rng(0).integers(-1, np.prod(shape[2:]), dy.shape)
    dx = native("max_pool3d_grad")(dy, i, size=shape[2:], **attrs)
    np.testing.assert_allclose(dx, OPS["max_pool3d_grad"].reference(np, dy, i, size=shape[2:], **attrs), atol=1e-12)
