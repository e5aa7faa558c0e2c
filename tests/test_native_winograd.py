"""Convolutions by Winograd's algorithm, with each instruction set, against the ops' references in float64."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.op import OPS
from dlcore.profile import profile

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

CASES = {  # x, features, padding
    "same": ((2, 3, 10, 12), 5, (1, 1)),
    "odd": ((2, 3, 9, 11), 5, (1, 1)),
    "without padding": ((2, 5, 8, 7), 9, (0, 0)),
    "one result": ((3, 4, 3, 3), 6, (0, 0)),
    "one row": ((2, 4, 1, 20), 6, (1, 1)),
    "one pixel": ((5, 4, 1, 1), 6, (1, 1)),
    "padded by the kernel and more": ((2, 3, 4, 5), 4, (2, 3)),
    "rows of whole vectors": ((1, 4, 6, 64), 8, (1, 1)),
    "short rows of whole vectors": ((5, 20, 6, 16), 17, (1, 1)),
    "whole vectors, padded more": ((2, 3, 4, 12), 4, (2, 3)),
    "whole vectors without padding": ((2, 5, 8, 18), 9, (0, 0)),
    "several images in a block": ((33, 40, 8, 8), 33, (1, 1)),
    "blocks that end in an image": ((7, 24, 20, 24), 18, (1, 1)),
    "rows of half vectors": ((3, 8, 9, 56), 8, (1, 1)),
    "many channels": ((2, 300, 5, 7), 70, (1, 1)),
    "one channel, one feature": ((2, 1, 40, 30), 1, (1, 1)),
    "wide": ((1, 40, 5, 300), 3, (1, 1)),
    "batch 0": ((0, 3, 8, 8), 4, (1, 1)),
}


def geometry(case):
    return (1, 1), CASES[case][2], (1, 1), 1


def operands(case):
    """x, w, b, dy of a case."""
    x, features, (rows, cols) = CASES[case]
    y = x[0], features, x[2] + 2 * rows - 2, x[3] + 2 * cols - 2
    random = np.random.default_rng([*y])
    return [random.standard_normal(s).astype(np.float32) for s in (x, (features, x[1], 3, 3), (features,), y)]


def run(case, *more, bias=True):
    """y, dx and dw. more: a chain, whose other operand is of the shape of y and of x."""
    x, w, b, dy = operands(case)
    y, dx, dw = (np.full_like(a, np.nan) for a in (dy, x, w))
    _C.conv2d_winograd(x, w, b if bias else None, y, *geometry(case), *more, *([dy] if more else []))
    _C.conv2d_dx_winograd(dy, w, dx, *geometry(case), *more, *([x] if more else []))
    _C.conv2d_dw_winograd(dy, x, dw, *geometry(case))
    return y, dx, dw


@pytest.mark.parametrize("case", CASES)
def test_values(case, isa):
    x, w, b, dy = (a.astype(np.float64) for a in operands(case))
    attrs = dict(zip(("stride", "padding", "dilation", "groups"), geometry(case), strict=True))
    want = (
        OPS["conv2d"].reference(np, x, w, b, **attrs),
        OPS["conv2d_dx"].reference(np, dy, w, size=x.shape[2:], **attrs),
        OPS["conv2d_dw"].reference(np, dy, x, kernel=(3, 3), **attrs),
    )
    for a, b in zip(run(case), want, strict=True):
        assert np.abs(a - b).max(initial=0) <= 3e-6 * np.abs(b).max(initial=0)


def test_without_bias_starts_from_0(isa):
    x, w, b, dy = operands("odd")
    _C.conv2d_winograd(x, w, np.zeros_like(b), dy, *geometry("odd"))
    np.testing.assert_array_equal(run("odd", bias=False)[0], dy)


@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_threads(case, isa, threads):
    outs = []
    for count in (1, 2, 3, 5):
        threads(count)
        outs.append(run(case))
    for some in outs[1:]:
        for a, b in zip(some, outs[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_part_of_a_batch_gives_the_same(isa):
    x, w, b, dy = operands("several images in a block")
    whole = run("several images in a block")[0]
    part = np.empty_like(dy[4:6])
    _C.conv2d_winograd(x[4:6], w, b, part, *geometry("several images in a block"))
    np.testing.assert_array_equal(whole[4:6], part)


@pytest.mark.parametrize("case", CASES)
def test_a_chain_goes_on_with_the_result(case, isa, threads):
    then = _C.chain(2, [("square", [0]), ("subtract", [2, 1])], [3])
    x, _, _, dy = operands(case)
    results = run(case)
    for count in (1, 3):
        threads(count)
        for a, result, other in zip(run(case, then), results, (dy, x), strict=False):
            np.testing.assert_array_equal(a, result * result - other)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "dtype"),
    [
        ((3, 2), (1, 1), (1, 1), 1, "f4"),
        ((3, 3), (1, 2), (1, 1), 1, "f4"),
        ((3, 3), (1, 1), (2, 1), 1, "f4"),
        ((3, 3), (1, 1), (1, 1), 2, "f4"),
        ((3, 3), (1, 1), (1, 1), 1, "f8"),
    ],
)
def test_what_it_is_not_for(kernel, stride, dilation, groups, dtype):
    x, w = np.zeros((1, 2, 9, 9), dtype), np.zeros((2, 2 // groups, *kernel), dtype)
    attrs = {"stride": stride, "padding": (0, 0), "dilation": dilation, "groups": groups}
    y = np.zeros(OPS["conv2d"].resolve([x.shape, w.shape, None], attrs)[1][0], dtype)
    with pytest.raises(ValueError, match="Winograd's algorithm is for float32, kernels of 3 x 3"):
        _C.conv2d_winograd(x, w, None, y, *attrs.values())
    with pytest.raises(ValueError, match="Winograd's algorithm is for float32, kernels of 3 x 3"):
        _C.conv2d_dx_winograd(y, w, x, *attrs.values())
    with pytest.raises(ValueError, match="Winograd's algorithm is for float32, kernels of 3 x 3"):
        _C.conv2d_dw_winograd(y, x, w, *attrs.values())


USED = {  # x, features, stride, dtype
    "winograd": ((12, 8, 16, 16), 8, 1, "float32"),
    "winograd of many channels": ((3, 40, 16, 16), 32, 1, "float32"),
    "few channels": ((12, 7, 16, 16), 8, 1, "float32"),
    "few features": ((12, 8, 16, 16), 7, 1, "float32"),
    "few tiles": ((11, 8, 16, 16), 8, 1, "float32"),
    "few tiles of many channels": ((1, 40, 24, 28), 32, 1, "float32"),
    "tiles of which a quarter is there": ((48, 32, 2, 2), 32, 1, "float32"),
    "strided": ((12, 8, 32, 32), 8, 2, "float32"),
    "float64": ((12, 8, 16, 16), 8, 1, "float64"),
}


@pytest.mark.parametrize("case", USED)
def test_which_convolutions_use_it(case):
    shape, features, stride, dtype = USED[case]
    with dl.device("cpu"):
        x, w = dl.ones(shape, dtype=dtype), dl.ones((features, shape[1], 3, 3), dtype=dtype)
        with profile() as found:
            dl.conv2d(x, w, stride=stride, padding=1)
    assert list(found.rows) == [("conv2d", "winograd" if case.startswith("winograd") else "native")]


@pytest.mark.parametrize(
    ("op", "size", "batch", "channels", "variant"),
    [
        ("conv2d_dx", 16, 24, 8, "winograd"),
        ("conv2d_dx", 16, 23, 8, "native"),
        ("conv2d_dx", 16, 24, 7, "native"),
        ("conv2d_dw", 3, 1, 24, "winograd"),
        ("conv2d_dw", 2, 64, 24, "native"),
        ("conv2d_dw", 4, 1, 23, "native"),
    ],
)
def test_which_gradients_use_it(op, size, batch, channels, variant):
    with dl.device("cpu"):
        x, w = (
            dl.tensor(np.ones(shape, np.float32), requires_grad=True)
            for shape in ((batch, channels, size, size), (24, channels, 3, 3))
        )
        y = dl.conv2d(x, w, padding=1).sum()
        with profile() as found:
            y.backward()
    assert (op, variant) in found.rows
