"""The native convolutions and poolings, with each instruction set, against the ops' references in float64."""

import numpy as np
import pytest

from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

TOLERANCE = {np.float32: 5e-6, np.float64: 1e-13}  # of the largest element

CONV = {  # x, w, stride, padding, dilation, groups
    "1x1": ((401, 5, 6, 7), (4, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "1x1 stride 2": ((3, 5, 7, 8), (4, 5, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "3x3": ((2, 3, 9, 11), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "rows of whole vectors": ((2, 4, 16, 32), (8, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "rows of half vectors": ((5, 40, 8, 8), (33, 40, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "stride 2": ((8, 6, 33, 34), (3, 6, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "stride 3 and 4": ((2, 3, 19, 18), (4, 3, 2, 5), (3, 4), (0, 2), (1, 1), 1),
    "dilated": ((32, 3, 14, 13), (4, 3, 3, 2), (1, 1), (2, 0), (2, 3), 1),
    "dilated, strided": ((2, 3, 15, 16), (4, 3, 3, 3), (2, 3), (3, 1), (2, 2), 1),
    "padded more than the kernel": ((1, 2, 3, 2), (3, 2, 2, 1), (1, 2), (4, 3), (1, 1), 1),
    "groups": ((41, 6, 8, 9), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": ((13, 7, 12, 37), (7, 1, 3, 3), (1, 1), (1, 1), (1, 1), 7),
    "depthwise, strided": ((2, 5, 11, 12), (5, 1, 5, 3), (2, 2), (2, 1), (1, 1), 5),
    "one channel": ((4, 1, 28, 28), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one channel, strided": ((3, 1, 30, 41), (21, 1, 5, 4), (2, 3), (2, 1), (1, 2), 1),
    "one channel of some": ((17, 3, 13, 12), (12, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "one channel, large image": ((2, 1, 90, 800), (5, 1, 3, 3), (1, 2), (1, 1), (1, 1), 1),
    "one channel, unequal blocks of rows": ((2, 1, 61, 40), (6, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one channel, large kernel": ((2, 1, 20, 20), (9, 1, 7, 9), (1, 1), (3, 4), (1, 1), 1),
    "one pixel": ((3, 20, 1, 1), (17, 20, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "many channels": ((1, 200, 5, 5), (70, 200, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "many features, strided": ((2, 5, 17, 15), (130, 5, 3, 3), (2, 1), (1, 1), (1, 1), 1),
    "large kernel": ((1, 2, 30, 31), (2, 2, 19, 21), (1, 1), (9, 10), (1, 1), 1),
    "large image": ((1, 16, 130, 140), (3, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "batch 0": ((0, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
}


POOL = {  # x, kernel, stride, padding, dilation, ceil_mode
    "halving": ((2, 3, 8, 74), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "halving, narrow": ((2, 3, 12, 10), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "halving, odd": ((2, 2, 7, 35), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "halving, hanging over": ((1, 2, 7, 35), (2, 2), (2, 2), (0, 0), (1, 1), True),
    "overlapping": ((2, 2, 9, 8), (3, 2), (2, 1), (1, 1), (1, 1), False),
    "dilated": ((1, 2, 9, 11), (2, 3), (2, 3), (1, 1), (3, 2), False),
    "gaps": ((1, 1, 9, 11), (2, 2), (4, 5), (0, 1), (1, 1), True),
    "global": ((3, 5, 8, 9), (8, 9), (8, 9), (0, 0), (1, 1), False),
    "batch 0": ((0, 5, 8, 9), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "vectors, stride 1": ((1, 2, 5, 53), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "vectors, stride 2": ((2, 1, 8, 75), (3, 2), (2, 2), (1, 1), (1, 1), True),
    "vectors, stride 3, dilated": ((1, 2, 9, 101), (2, 3), (2, 3), (1, 2), (2, 2), False),
    "vectors, one row": ((1, 2, 1, 64), (1, 2), (1, 2), (0, 0), (1, 1), False),
    "wider than the image": ((1, 1, 4, 3), (2, 5), (1, 1), (1, 2), (1, 1), False),
}


def rand(*shape, dtype=np.float64):
    return np.random.default_rng([*shape]).standard_normal(shape).astype(dtype)


def attributes(case):
    return dict(zip(("stride", "padding", "dilation", "groups"), CONV[case][2:], strict=True))


def conv_operands(case, dtype):
    """x, w, b, dy of a case."""
    x, w = CONV[case][:2]
    y = OPS["conv2d"].resolve([x, w, None], attributes(case))[1][0]
    return [rand(*shape, dtype=dtype) for shape in (x, w, w[:1], y)]


def conv_all(x, w, b, dy, geometry):
    """y, dx and dw of the kernels."""
    y, dx, dw = (np.full_like(a, np.nan) for a in (dy, x, w))
    _C.conv2d(x, w, b, y, *geometry)
    _C.conv2d_dx(dy, w, dx, *geometry)
    _C.conv2d_dw(dy, x, dw, *geometry)
    return y, dx, dw


def assert_near(got, want, dtype):
    assert np.abs(got - want).max(initial=0) <= TOLERANCE[dtype] * np.abs(want).max(initial=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CONV)
def test_conv(case, dtype, isa):
    x, w, b, dy = (a.astype(np.float64) for a in conv_operands(case, dtype))
    attrs = attributes(case)
    got = conv_all(*conv_operands(case, dtype), CONV[case][2:])
    want = (
        OPS["conv2d"].reference(np, x, w, b, **attrs),
        OPS["conv2d_dx"].reference(np, dy, w, size=x.shape[2:], **attrs),
        OPS["conv2d_dw"].reference(np, dy, x, kernel=w.shape[2:], **attrs),
    )
    for a, b in zip(got, want, strict=True):
        assert_near(a, b, dtype)


def test_conv_without_bias():
    x, w, b, dy = conv_operands("3x3", np.float32)
    zero, none = (conv_all(x, w, bias, dy, CONV["3x3"][2:])[0] for bias in (np.zeros_like(b), None))
    np.testing.assert_array_equal(zero, none)


@pytest.mark.parametrize("case", CONV)
def test_conv_bits_do_not_depend_on_threads(case, isa, threads):
    x, w, b, dy = conv_operands(case, np.float32)
    outs = []
    for count in (1, 2, 3, 5):
        threads(count)
        outs.append(conv_all(x, w, b, dy, CONV[case][2:]))
    for some in outs[1:]:
        for a, b in zip(some, outs[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CONV)
def test_a_chain_goes_on_with_the_result(case, dtype, isa, threads):
    x, w, b, dy = conv_operands(case, dtype)
    geometry, then = CONV[case][2:], _C.chain(2, [("square", [0]), ("subtract", [2, 1])], [3])
    y, dx, _ = conv_all(x, w, b, dy, geometry)
    for count in (1, 3):
        threads(count)
        got = [np.full_like(y, np.nan), np.full_like(dx, np.nan)]
        _C.conv2d(x, w, b, got[0], *geometry, then, dy)
        _C.conv2d_dx(dy, w, got[1], *geometry, then, x)
        for a, result, other in zip(got, (y, dx), (dy, x), strict=True):
            np.testing.assert_array_equal(a, result * result - other)


def test_conv_of_part_of_a_batch_is_the_same():
    """A result does not depend on what else is in the batch."""
    x, w, b = rand(9, 3, 8, 8, dtype=np.float32), rand(20, 3, 3, 3, dtype=np.float32), rand(20, dtype=np.float32)
    whole, part = np.empty((9, 20, 8, 8), np.float32), np.empty((1, 20, 8, 8), np.float32)
    _C.conv2d(x, w, b, whole, (1, 1), (1, 1), (1, 1), 1)
    _C.conv2d(x[4:5], w, b, part, (1, 1), (1, 1), (1, 1), 1)
    np.testing.assert_array_equal(whole[4:5], part)


def f32(*shape):
    return np.zeros(shape, np.float32)


X, W, B, Y = f32(2, 4, 5, 5), f32(6, 4, 3, 3), f32(6), f32(2, 6, 3, 3)
READ_ONLY = Y.copy()
READ_ONLY.flags.writeable = False
PLAIN = ((1, 1), (0, 0), (1, 1), 1)
CONV_MISTAKES = {
    "channels": (X, f32(6, 3, 3, 3), B, Y, *PLAIN),
    "output size": (X, W, B, f32(2, 6, 3, 4), *PLAIN),
    "output channels": (X, W, B, f32(2, 5, 3, 3), *PLAIN),
    "batch": (X, W, B, f32(3, 6, 3, 3), *PLAIN),
    "dimensions": (X[0], W, B, Y, *PLAIN),
    "dtypes": (X, W.astype(np.float64), B, Y, *PLAIN),
    "integers": (X.astype(int), W.astype(int), None, Y.astype(int), *PLAIN),
    "byte order": (X.astype(">f4"), W, B, Y, *PLAIN),
    "strides": (X[..., ::-1], W, B, Y, *PLAIN),
    "misaligned": (np.zeros(801, np.uint8)[1:].view(np.float32).reshape(X.shape), W, B, Y, *PLAIN),
    "read-only": (X, W, B, READ_ONLY, *PLAIN),
    "overlap": (Y, f32(6, 6, 1, 1), B, Y, *PLAIN),
    "bias": (X, W, f32(5), Y, *PLAIN),
    "stride 0": (X, W, B, Y, (0, 1), *PLAIN[1:]),
    "huge stride": (X, W, B, Y, (1 << 40, 1), *PLAIN[1:]),
    "negative padding": (X, W, B, Y, (1, 1), (0, -1), (1, 1), 1),
    "huge padding": (X, W, B, Y, (1, 1), (1 << 62, 0), (1, 1), 1),
    "dilation 0": (X, W, B, Y, (1, 1), (0, 0), (1, 0), 1),
    "groups": (X, W, B, Y, (1, 1), (0, 0), (1, 1), 0),
    "groups that do not divide": (X, f32(6, 1, 3, 3), B, Y, (1, 1), (0, 0), (1, 1), 4),
    "kernel too large": (X, f32(6, 4, 6, 6), B, Y, *PLAIN),
    "no channels": (f32(2, 0, 5, 5), f32(6, 0, 3, 3), B, Y, *PLAIN),
}


@pytest.mark.parametrize("mistake", CONV_MISTAKES)
def test_conv_mistakes_raise(mistake):
    with pytest.raises(ValueError, match=r"^conv2d"):
        _C.conv2d(*CONV_MISTAKES[mistake])


THEN, TWO = _C.chain(2, [("add", [0, 1])], [2]), _C.chain(1, [("relu", [0]), ("exp", [1])], [1, 2])
TAIL_MISTAKES = {
    "no operand": (THEN,), "operands of no chain": (None, Y), "shape": (THEN, X), "dtype": (THEN, Y.astype(np.float64)),
    "strides": (THEN, Y.swapaxes(2, 3)), "two outputs": (TWO,),
}  # fmt: skip


@pytest.mark.parametrize("mistake", TAIL_MISTAKES)
def test_mistakes_of_a_tail_raise(mistake):
    with pytest.raises(ValueError, match=r"^then"):
        _C.conv2d(X, W, B, Y.copy(), *PLAIN, *TAIL_MISTAKES[mistake])


@pytest.mark.parametrize("then", [max, len, _C.matmul, 3])
def test_only_a_chain_can_go_on(then):
    with pytest.raises(TypeError, match=r"^then"):
        _C.conv2d(X, W, B, Y.copy(), *PLAIN, then)


@pytest.mark.parametrize("args", [(), (X, W, B, Y, 1, *PLAIN[1:]), (X.tolist(), W, B, Y, *PLAIN)], ids=str)
def test_wrong_conv_arguments_raise(args):
    with pytest.raises(TypeError, match=r"^conv2d"):
        _C.conv2d(*args)


# ---- pooling


def pool_case(case, dtype, dilated=True):
    """x, a shape of y, the attributes of the op, and those of the kernel."""
    shape, kernel, stride, padding, dilation, ceil_mode = POOL[case]
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    if dilated:
        attrs["dilation"] = dilation
    op = OPS["max_pool2d" if dilated else "avg_pool2d"]
    y = op.resolve([shape], op.attrs | attrs)[1][0]
    return rand(*shape, dtype=dtype), y, attrs, (kernel, stride, padding, dilation)[: 3 + dilated]


def max_pool(x, out, geometry):
    y, i = np.full(out, np.nan, x.dtype), np.full(out, -9)
    _C.max_pool2d(x, y, i, *geometry)
    return y, i


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", POOL)
def test_max_pool(case, dtype, isa):
    x, out, attrs, geometry = pool_case(case, dtype)
    x = np.round(x, 1)  # with equals
    got = max_pool(x, out, geometry)
    for a, b in zip(got, OPS["max_pool2d"].reference(np, x, **attrs), strict=True):
        np.testing.assert_array_equal(a, b)
    dy, dx = rand(*out, dtype=dtype), np.full_like(x, np.nan)
    _C.max_pool2d_grad(dy, got[1], dx, *geometry)
    assert_near(dx, OPS["max_pool2d_grad"].reference(np, dy, got[1], size=x.shape[2:], **attrs), dtype)


@pytest.mark.parametrize("case", ["halving", "overlapping"])
def test_max_pool_of_non_finite_values(case, isa):
    x, out, attrs, geometry = pool_case(case, np.float32)
    some = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    x = np.where(x > 0, some[np.arange(x.size).reshape(x.shape) % 4], x)
    for a, b in zip(max_pool(x, out, geometry), OPS["max_pool2d"].reference(np, x, **attrs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["halving", "overlapping"])
@pytest.mark.parametrize("position", [-1, 0, 10**6, 1 << 60, -(1 << 63)])
def test_positions_outside_their_window_add_nothing(case, position, isa):
    x, out, attrs, geometry = pool_case(case, np.float32)
    i, dy, dx = np.full(out, position), np.ones(out, np.float32), np.full_like(x, np.nan)
    _C.max_pool2d_grad(dy, i, dx, *geometry)
    want = OPS["max_pool2d_grad"].reference(np, dy, i, size=x.shape[2:], **attrs)
    np.testing.assert_array_equal(dx[..., 1:, 1:], 0 * want[..., 1:, 1:])
    np.testing.assert_array_equal(dx[..., 0, 0], want[..., 0, 0] if position == 0 else 0)


@pytest.mark.parametrize("case", ["dilated", "vectors, stride 3, dilated", "gaps"])
def test_positions_between_the_taps_add_nothing(case, isa):
    x, out, attrs, geometry = pool_case(case, np.float64)
    i, dy, dx = np.random.default_rng(0).integers(0, x[0, 0].size, out), rand(*out), np.full_like(x, np.nan)
    _C.max_pool2d_grad(dy, i, dx, *geometry)
    assert_near(dx, OPS["max_pool2d_grad"].reference(np, dy, i, size=x.shape[2:], **attrs), np.float64)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("case", POOL)
def test_avg_pool(case, count_padding, dtype, isa):
    x, out, attrs, geometry = pool_case(case, dtype, dilated=False)
    attrs |= {"count_include_pad": count_padding}
    y, dy, dx = np.full(out, np.nan, dtype), rand(*out, dtype=dtype), np.full_like(x, np.nan)
    _C.avg_pool2d(x, y, *geometry, count_padding)
    _C.avg_pool2d_grad(dy, dx, *geometry, count_padding)
    assert_near(y, OPS["avg_pool2d"].reference(np, x, **attrs), dtype)
    assert_near(dx, OPS["avg_pool2d_grad"].reference(np, dy, size=x.shape[2:], **attrs), dtype)


POSITIONS = np.zeros((2, 6, 3, 3), np.int64)
IMAGE = f32(2, 6, 6, 6)
POOLING = ((2, 2), (2, 2), (0, 0))
POOL_MISTAKES = {
    "channels": (IMAGE[:, :5].copy(), Y, POSITIONS, *POOLING, (1, 1)),
    "positions": (IMAGE, Y, POSITIONS[:1], *POOLING, (1, 1)),
    "int32 positions": (IMAGE, Y, POSITIONS.astype(np.int32), *POOLING, (1, 1)),
    "dtypes": (IMAGE.astype(np.float64), Y, POSITIONS, *POOLING, (1, 1)),
    "read-only": (IMAGE, READ_ONLY, POSITIONS, *POOLING, (1, 1)),
    "overlap": (Y, Y, POSITIONS, (1, 1), (1, 1), (0, 0), (1, 1)),
    "strides": (IMAGE[..., ::-1], Y, POSITIONS, *POOLING, (1, 1)),
    "kernel 0": (IMAGE, Y, POSITIONS, (0, 2), *POOLING[1:], (1, 1)),
    "stride 0": (IMAGE, Y, POSITIONS, (2, 2), (2, 0), (0, 0), (1, 1)),
    "padding": (IMAGE, Y, POSITIONS, (2, 2), (2, 2), (0, -1), (1, 1)),
    "dilation": (IMAGE, Y, POSITIONS, *POOLING, (1 << 40, 1)),
}


@pytest.mark.parametrize("mistake", POOL_MISTAKES)
def test_pool_mistakes_raise(mistake):
    with pytest.raises(ValueError, match=r"^pool2d"):
        _C.max_pool2d(*POOL_MISTAKES[mistake])
