"""Convolutions on the kernels of `kernels/conv*.cu`, in the emulator: every pass, geometry, tile edge and split."""

import itertools

import numpy as np
import pytest
from conftest import placed

import dlcore as dl
from dlcore import dispatch, dtypes, settings
from dlcore.backends.cuda import cost, launch, ops_conv
from dlcore.errors import BackendError
from dlcore.ops.conv_records import FAMILY

pytestmark = pytest.mark.sim

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
CASES = {  # x, w, attributes
    "plain": ((2, 3, 9, 11), (5, 3, 3, 3), {}),
    "edges of tiles": ((1, 8, 13, 10), (66, 8, 1, 3), {"padding": (0, 1)}),
    "large tiles": ((3, 2, 8, 8), (130, 2, 3, 3), {"padding": (1, 1)}),
    "stride": ((2, 4, 11, 9), (6, 4, 3, 2), {"stride": (2, 3), "padding": (1, 1)}),
    "stride beyond kernel": ((1, 2, 9, 8), (3, 2, 1, 2), {"stride": (2, 3)}),
    "dilation": ((1, 3, 12, 10), (4, 3, 3, 3), {"dilation": (3, 2), "padding": (2, 0)}),
    "stride and dilation": ((1, 2, 14, 13), (3, 2, 3, 3), {"stride": (4, 3), "dilation": (2, 3), "padding": (2, 1)}),
    "groups": ((2, 6, 7, 8), (9, 2, 3, 3), {"groups": 3, "padding": (1, 1)}),
    "kernel beyond image": ((1, 2, 2, 3), (2, 2, 4, 5), {"padding": (2, 2)}),
    "depthwise": ((2, 5, 8, 9), (5, 1, 3, 3), {"groups": 5, "padding": (1, 1), "stride": (1, 2)}),
}


@pytest.fixture(autouse=True)
def _sim():
    try:
        dispatch.get_backend("sim")
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def launches():
    """Names of the kernels launched."""
    names = []

    def note(kernel, *_):
        names.append(kernel.partition(".")[2])

    launch.listeners.append(note)
    yield names
    launch.listeners.remove(note)


@pytest.fixture
def force(monkeypatch):
    """Function that fixes the tile, by name, and the number of splits."""

    def fix(tile, splits=1):
        def choose(work, tiles, multiprocessors):
            found = next((t for t in tiles if t.name.startswith(tile)), tiles[0])
            return cost.Choice(found, *cost.split(work.k, found.slab, splits))

        monkeypatch.setattr(cost, "choose", choose)

    return fix


@pytest.fixture
def variant(monkeypatch):
    """Function that forces a variant of 2-d convolutions, as DLCORE_VARIANT does."""

    def choose(name):
        table = {"VARIANT": {f"conv2d{pass_}": name for pass_ in ("", "_dx", "_dw")}}
        get = settings.get
        monkeypatch.setattr(settings, "get", lambda key: table.get(key) or get(key))
        monkeypatch.setattr(dispatch.get_backend("sim"), "plans", {})

    return choose


def whole(shape, dtype, seed):
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtypes.dtype(dtype))


def passes(case, dtype, device, strided=False):
    """y, dx and dw of a case, whole numbers throughout."""
    x_shape, w_shape, changes = case
    attrs = {**PLAIN, **changes}
    conv = FAMILY[len(x_shape) - 2]
    y_shape = conv.conv.resolve([x_shape, w_shape, None], attrs)[1][0]
    x, w, b, dy = (whole(s, dtype, i) for i, s in enumerate((x_shape, w_shape, w_shape[:1], y_shape)))
    if strided:
        x, dy = (np.stack([v, np.full_like(v, np.nan)], -1)[..., 0] for v in (x, dy))
    place = placed if device == "sim" else np.asarray
    x, w, b, dy = (dl.Tensor._wrap(place(v), dispatch.get_backend(device)) for v in (x, w, b, dy))
    found = (
        conv.conv(x, w, b, **attrs),
        conv.dx(dy, w, size=x_shape[2:], **attrs),
        conv.dw(dy, x, kernel=w_shape[2:], **attrs),
    )
    return [f.numpy() for f in found]


def check(case, dtype, strided=False, before=lambda: None):
    expected = passes(case, "float64", "numpy")
    before()
    for got, wanted in zip(passes(case, dtype, "sim", strided), expected, strict=True):
        np.testing.assert_array_equal(got, wanted.astype(got.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_geometries(name, dtype):
    check(CASES[name], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_im2col(name, dtype, variant, launches):
    check(CASES[name], dtype, before=lambda: variant("im2col"))
    assert sum("im2col" in kernel for kernel in launches) == 2
    assert sum("col2im" in kernel for kernel in launches) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("multiple", [1, 3])
def test_depthwise(multiple, dtype, launches):
    attrs = {"groups": 4, "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    check(((2, 4, 9, 10), (4 * multiple, 1, 3, 2), attrs), dtype)
    assert [kernel.rpartition("_")[0] for kernel in launches] == [
        "conv_depthwise_forward", "conv_depthwise_dx", "conv_depthwise_dw",
    ]  # fmt: skip


def test_depthwise_as_a_product(variant):
    check(CASES["depthwise"], "float32", before=lambda: variant("native"))


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("tile", ["128", "64"])
@pytest.mark.parametrize("name", ["edges of tiles", "large tiles", "stride", "groups"])
def test_tiles_and_splits(name, tile, splits, force, launches):
    force(tile, splits)
    check(CASES[name], "float32")
    assert f"conv_forward_f32_{tile}" in launches
    assert ("conv_reduce_f32" in launches) == (splits > 1)


def test_splits_in_double(force, launches):
    force("64", 2)
    check(CASES["groups"], "float64")
    assert "conv_reduce_f64" in launches


@pytest.mark.parametrize("name", ["plain", "stride"])
def test_strided_operands_are_not_copied(name, launches):
    check(CASES[name], "float32", strided=True)
    assert not any("copy" in kernel for kernel in launches)


def test_three_dimensions():
    attrs = {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 2, 1), "groups": 2}
    check(((2, 4, 5, 6, 7), (6, 2, 3, 2, 3), attrs), "float32")


@pytest.mark.emulator
@pytest.mark.parametrize("order", ["reverse", "random"])
def test_bits_do_not_depend_on_the_order_of_threads(order, force):
    from dlcore.sim import engine

    force("64", 2)
    rng = np.random.default_rng(0)
    x, w = (dl.asarray(rng.normal(size=s).astype(np.float32), device="sim") for s in ((2, 5, 9, 9), (7, 5, 3, 3)))
    first = dl.conv2d(x, w).numpy()
    with engine.schedule(order, 3):
        np.testing.assert_array_equal(dl.conv2d(x, w).numpy(), first)


def test_division_by_multiplication_is_exact():
    for size in (1, 2, 3, 5, 7, 28, 49, 641, 65_535, 65_536, 2**30 - 1, 2**31 - 1):
        _, multiplier, shift = ops_conv.divisor(size)
        assert multiplier < 2**32
        edges = {0, 1, 2**31 - 1, size - 1, size, (2**31 - 1) // size * size, (2**31 - 1) // size * size - 1}
        for n in (e for e in edges if 0 <= e < 2**31):
            assert (2 * n * multiplier >> 32) >> shift == n // size


@pytest.mark.parametrize(("stride", "padding", "dilation"), list(itertools.product((1, 2, 3, 4), (0, 1, 3), (1, 2, 3))))
def test_residues_reach_every_pair_once(stride, padding, dilation):
    size, kernel = 11, 4
    found = [
        (r.first + stride * i, r.tap + r.step * j, r.output + i - r.back * j)
        for r in ops_conv.Residue.along(size, kernel, stride, padding, dilation)
        for i in range(r.inputs)
        for j in range(r.taps)
    ]
    pairs = ((h, t, h + padding - t * dilation) for h in range(size) for t in range(kernel))
    assert sorted(found) == sorted((h, t, at // stride) for h, t, at in pairs if at % stride == 0)
