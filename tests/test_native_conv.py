"""The native convolutions and poolings, with each instruction set, against the ops' references in float64."""

import numpy as np
import pytest

from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

TOLERANCE = {np.float32: 5e-6, np.float64: 1e-13}  # of the largest element

CONV = {  # x, w, stride, padding, dilation, groups
    "1x1": ((3, 5, 6, 7), (4, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "1x1 stride 2": ((3, 5, 7, 8), (4, 5, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "3x3": ((2, 3, 9, 11), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "rows of whole vectors": ((2, 4, 16, 32), (8, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "rows of half vectors": ((5, 40, 8, 8), (33, 40, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "stride 2": ((2, 6, 33, 34), (3, 6, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "stride 3 and 4": ((2, 3, 19, 18), (4, 3, 2, 5), (3, 4), (0, 2), (1, 1), 1),
    "dilated": ((2, 3, 14, 13), (4, 3, 3, 2), (1, 1), (2, 0), (2, 3), 1),
    "dilated, strided": ((2, 3, 15, 16), (4, 3, 3, 3), (2, 3), (3, 1), (2, 2), 1),
    "padded more than the kernel": ((1, 2, 3, 2), (3, 2, 2, 1), (1, 2), (4, 3), (1, 1), 1),
    "groups": ((3, 6, 8, 9), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": ((2, 7, 12, 37), (7, 1, 3, 3), (1, 1), (1, 1), (1, 1), 7),
    "depthwise, strided": ((2, 5, 11, 12), (5, 1, 5, 3), (2, 2), (2, 1), (1, 1), 5),
    "one channel": ((4, 1, 28, 28), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one pixel": ((3, 20, 1, 1), (17, 20, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "many channels": ((1, 200, 5, 5), (70, 200, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "large kernel": ((1, 2, 30, 31), (2, 2, 19, 21), (1, 1), (9, 10), (1, 1), 1),
    "large image": ((1, 16, 130, 140), (3, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "batch 0": ((0, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
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


@pytest.mark.parametrize("args", [(), (X, W, B, Y, 1, *PLAIN[1:]), (X.tolist(), W, B, Y, *PLAIN)], ids=str)
def test_wrong_conv_arguments_raise(args):
    with pytest.raises(TypeError, match=r"^conv2d"):
        _C.conv2d(*args)
