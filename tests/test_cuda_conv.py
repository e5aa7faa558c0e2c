"""Convolutions on the kernels of `kernels/conv*.cu`, in the emulator: every pass, geometry, tile edge and split."""

import itertools

import numpy as np
import pytest
from conftest import placed

import dlcore as dl
from dlcore import dispatch, dtypes, settings
from dlcore.backends.cuda import conv_patch, cost, ops_conv
from dlcore.backends.cuda.ops_elementwise import SUFFIXES
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
def setting(monkeypatch):
    """Function that changes a setting, as an environment variable does."""

    def change(name, value):
        get = settings.get
        monkeypatch.setattr(settings, "get", lambda key: value if key == name else get(key))
        monkeypatch.setattr(dispatch.get_backend("sim"), "plans", {})

    return change


@pytest.fixture
def variant(setting):
    """Function that forces a variant of 2-d convolutions, as DLCORE_VARIANT does."""
    return lambda name, passes=("", "_dx", "_dw"): setting("VARIANT", {f"conv2d{p}": name for p in passes})


@pytest.fixture
def product(variant):
    """Function that forces the products of matrices of a dtype."""
    return lambda dtype: variant("tensor" if dtypes.is_half(dtypes.dtype(dtype)) else "native")


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
def test_geometries(name, dtype, product):
    check(CASES[name], dtype, before=lambda: product(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_im2col(name, dtype, variant, launches):
    check(CASES[name], dtype, before=lambda: variant("im2col"))
    assert sum("im2col" in kernel for kernel in launches) == 2
    assert sum("col2im" in kernel for kernel in launches) == 1


FEW = {
    "one channel": (
        (3, 1, 13, 17),
        (17, 1, 3, 3),
        {"padding": (1, 1)},
    ),  # more pixels than a block has, and 16 channels
    "stride and dilation": ((2, 3, 9, 10), (5, 3, 2, 2), {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)}),
    "volumes": ((1, 2, 3, 4, 5), (4, 2, 2, 1, 3), {"stride": (1, 2, 1), "padding": (1, 0, 1), "dilation": (1, 1, 1)}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", FEW)
def test_few_channels(name, dtype, launches):
    check(FEW[name], dtype, strided=True)
    assert launches[0] == f"conv_few_forward_{SUFFIXES[dtypes.dtype(dtype)]}"


@pytest.mark.parametrize(
    ("dtype", "channels", "outputs", "direct"),
    [
        ("float32", 3, 4, True),
        ("float32", 4, 4, False),
        ("float16", 1, 4, True),
        ("float16", 2, 4, False),
        ("float32", 3, 500, False),
    ],
)
def test_when_channels_are_few(dtype, channels, outputs, direct, launches):
    dl.conv2d(*(dl.zeros(s, dtype=dtype, device="sim") for s in ((1, channels, 3, 3), (outputs, channels, 3, 3))))
    assert any("few" in kernel for kernel in launches) == direct


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("multiple", [1, 3])
def test_depthwise(multiple, dtype, launches):
    attrs = {"groups": 4, "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    check(((2, 4, 9, 10), (4 * multiple, 1, 3, 2), attrs), dtype)
    assert [kernel.rpartition("_")[0] for kernel in launches] == [
        "conv_depthwise_forward", "conv_depthwise_dx", "conv_depthwise_dw",
    ]  # fmt: skip


DEPTHWISE = {
    "squares": ((3, 3, 16, 16), (3, 1, 3, 3), {"padding": (1, 1)}),
    "tiles": ((1, 2, 70, 132), (2, 1, 3, 3), {"padding": (2, 0)}),
    "large filter": ((2, 2, 21, 19), (4, 1, 7, 5), {"padding": (3, 2)}),
    "stride": ((2, 3, 23, 68), (3, 1, 3, 3), {"stride": (2, 2), "padding": (1, 1)}),
    "stride and dilation": ((1, 2, 41, 150), (2, 1, 3, 2), {"stride": (4, 2), "dilation": (6, 3), "padding": (5, 2)}),
    "stride beyond kernel": ((2, 2, 17, 9), (2, 1, 1, 2), {"stride": (2, 3)}),
    "volumes": ((2, 2, 5, 6, 7), (4, 1, 3, 3, 3),
                {"stride": (2, 1, 1), "padding": (1, 1, 1), "dilation": (2, 1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", DEPTHWISE)
def test_tiles_of_depthwise(name, dtype, launches):
    x, w, attrs = DEPTHWISE[name]
    one = (1,) * (len(x) - 2)
    plain = {"stride": one, "padding": (0,) * len(one), "dilation": one}
    check((x, w, {**plain, **attrs, "groups": x[1]}), dtype)
    assert all("depthwise" in kernel for kernel in launches)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_chunks_of_depthwise_images_are_added_up(dtype, launches):
    check(((180, 2, 5, 5), (2, 1, 3, 3), {"groups": 2}), dtype)
    assert launches[-1] == f"conv_depthwise_sum_{SUFFIXES[dtypes.dtype(dtype)]}"


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2)])
def test_rows_that_no_window_sees_spoil_no_gradient(kernel):
    x = np.full((1, 2, 10, 4), np.inf, np.float32)
    x[:, :, : kernel[0]] = 1
    dy = dl.ones((1, 2, 1, 5 - kernel[1]), device="sim")
    found = FAMILY[2].dw(dy, dl.asarray(x, device="sim"), kernel=kernel, **{**PLAIN, "groups": 2, "stride": (9, 1)})
    np.testing.assert_array_equal(found.numpy(), np.full((2, 1, *kernel), 5 - kernel[1]))


def test_windows_too_large_for_shared_memory_go_another_way(launches):
    check(((1, 2, 130, 3), (2, 1, 2, 1), {"groups": 2, "dilation": (70, 1)}), "float32")
    assert not any("depthwise" in kernel for kernel in launches)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("tile", ["128", "64"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["edges of tiles", "large tiles", "stride", "groups"])
def test_tiles_and_splits(name, dtype, tile, splits, force, product, launches):
    force(tile, splits)
    check(CASES[name], dtype, before=lambda: product(dtype))
    suffix = SUFFIXES[dtypes.dtype(dtype)]
    assert {f"conv_forward_{suffix}_{tile}", f"conv_dw_{suffix}_{tile}"} <= set(launches)
    assert (f"conv_reduce_{suffix}" in launches) == (splits > 1)


@pytest.mark.parametrize(("dtype", "tile"), [("float64", "64"), ("bfloat16", "64"), ("bfloat16", "128")])
def test_splits_of_other_types(dtype, tile, force, product, launches):
    force(tile, 2)
    check(CASES["groups"], dtype, before=lambda: product(dtype))
    assert f"conv_reduce_{SUFFIXES[dtypes.dtype(dtype)]}" in launches


@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        (ops_conv.SIMT, "float32"),
        (ops_conv.SIMT, "float64"),
        (ops_conv.TENSOR, "float16"),
        (ops_conv.TENSOR, "bfloat16"),
        (ops_conv.PATCH, "float16"),
        (ops_conv.PATCH, "bfloat16"),
        (ops_conv.TF32, "float32"),
    ],
)
def test_every_tile_that_may_be_chosen_has_a_kernel(way, dtype):
    suffix, tiles = way.kernels(dtypes.dtype(dtype))
    function = dispatch.get_backend("sim").driver.function
    for tile in tiles:
        function(way.module, f"{way.family}_forward_{suffix}_{tile.name.removesuffix('_any')}", 0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["plain", "stride"])
def test_strided_operands_are_taken_as_they_are(name, dtype, launches):
    check(CASES[name], dtype, strided=True)
    of_strided = launches.copy()
    launches.clear()
    check(CASES[name], dtype)
    assert of_strided == launches


def test_pixels_of_dy_at_unequal_steps_are_copied():
    dy, x = (dl.asarray(whole(s, "float32", i), device="sim") for i, s in enumerate(((2, 3, 6, 5), (2, 2, 6, 5))))
    found = FAMILY[2].dw(dy.mT, x.mT, kernel=(1, 1), **PLAIN)
    expected = np.einsum("nopq,ncpq->oc", dy.numpy(), x.numpy())
    np.testing.assert_array_equal(found.numpy()[..., 0, 0], expected)


# ---- each pixel once for all taps

PATCHES = {  # x, w, attributes; channels are whole chunks, rows of y whole pairs
    "plain": ((2, 16, 9, 12), (8, 16, 3, 3), {}),
    "whole rows": ((3, 16, 9, 16), (24, 16, 3, 3), {"padding": (1, 1)}),
    "edges of tiles": ((1, 40, 13, 19), (136, 40, 2, 4), {"padding": (0, 1)}),
    "stride": ((2, 24, 11, 10), (16, 24, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "stride beyond kernel": ((1, 16, 9, 8), (8, 16, 4, 2), {"stride": (2, 3), "padding": (0, 2)}),
    "dilation": ((1, 16, 12, 10), (8, 16, 3, 3), {"dilation": (3, 2), "padding": (2, 1)}),
    "groups": ((2, 48, 7, 8), (24, 16, 3, 3), {"groups": 3, "padding": (1, 1)}),
    "many images": ((6, 32, 4, 4), (8, 32, 3, 3), {"padding": (1, 1)}),
    "kernel beyond image": ((3, 8, 2, 3), (8, 8, 4, 4), {"padding": (2, 2)}),
    "volumes": ((2, 16, 3, 5, 6), (8, 16, 2, 3, 3),
                {"stride": (1, 1, 1), "padding": (1, 0, 1), "dilation": (1, 1, 1)}),
}  # fmt: skip


@pytest.fixture
def patch(setting):
    """Function that forces these kernels for convolutions of any rank."""
    ops = [f"conv{rank}d{suffix}" for rank in (2, 3) for suffix in ("", "_dx", "_dw")]
    return lambda: setting("VARIANT", dict.fromkeys(ops, "patch"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PATCHES)
def test_patches(name, dtype, patch, launches):
    check(PATCHES[name], dtype, before=patch)
    used = {kernel for kernel in launches if kernel.startswith("conv")}
    assert all(kernel.startswith(("conv_patch", "conv_channels_last")) for kernel in used)  # w is channels last


@pytest.mark.parametrize("splits", [1, 2, 5])
@pytest.mark.parametrize("tile", ["128", "64"])
@pytest.mark.parametrize("name", ["edges of tiles", "whole rows", "stride", "groups"])
def test_tiles_and_splits_of_patches(name, tile, splits, force, patch, launches):
    force(tile, splits)
    check(PATCHES[name], "float16", before=patch)
    assert f"conv_patch_forward_f16_{tile}" in launches
    assert ("conv_patch_reduce_f16" in launches) == (splits > 1)


@pytest.mark.parametrize("tile", ["128", "64"])
def test_splits_of_bfloat16_patches(tile, force, patch, launches):
    force(tile, 2)
    check(PATCHES["groups"], "bfloat16", before=patch)
    assert {f"conv_patch_forward_bf16_{tile}", "conv_patch_reduce_bf16"} <= set(launches)


@pytest.mark.parametrize("name", ["plain", "whole rows", "groups"])
def test_patches_of_strided_operands(name, patch):
    check(PATCHES[name], "float16", strided=True, before=patch)


@pytest.mark.parametrize("axis", range(4))
def test_patches_of_flipped_operands(axis, patch):
    def dw(prepare):
        arrays = (whole(s, "float16", i) for i, s in enumerate(((2, 8, 4, 8), (2, 16, 4, 10))))
        dy, x = (dl.Tensor._wrap(prepare(np.flip(a, axis)), dispatch.get_backend("sim")) for a in arrays)
        return FAMILY[2].dw(dy, x, kernel=(3, 3), **{**PLAIN, "padding": (1, 0)}).numpy()

    patch()
    np.testing.assert_array_equal(dw(np.asarray), dw(np.ascontiguousarray))


@pytest.mark.parametrize(("x", "w"), [((0, 32, 8, 8), (32, 32, 3, 3)), ((2, 32, 8, 8), (0, 32, 3, 3))])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_images_and_no_filters(dtype, x, w, variant):
    if dtype == "float32":
        variant("tf32", ("", "_dx"))
    images, filters = (dl.tensor(np.ones(s, dtype), device="sim", requires_grad=True) for s in (x, w))
    y = dl.conv2d(images, filters)
    y.sum().backward()
    assert y.shape == (x[0], w[0], 6, 6)
    assert not images.grad.numpy().any()
    assert not filters.grad.numpy().any()


@pytest.mark.parametrize("name", ["edges of tiles", "stride", "groups"])
def test_tf32(name, variant, launches):
    check(PATCHES[name], "float32", before=lambda: variant("tf32", ("", "_dx")))
    assert "conv_patch_forward_tf32_128" in launches
    assert not any(kernel.startswith("conv_forward") for kernel in launches)


def test_splits_of_tf32(variant, force, launches):
    force("128", 2)
    check(PATCHES["groups"], "float32", before=lambda: variant("tf32", ("", "_dx")))
    assert "conv_patch_reduce_f32" in launches


def test_tf32_rounds(variant):
    variant("tf32", ("",))
    x = dl.full((1, 4, 2, 2), 1 + 2**-11, device="sim")
    assert dl.conv2d(x, dl.ones((1, 4, 1, 1), device="sim")).numpy().tolist() == [[[[4 + 2**-8] * 2] * 2]]


@pytest.mark.parametrize(
    ("why", "x", "w", "passes"),
    [
        ("", (2, 32, 8, 8), (32, 32, 3, 3), ("", "_dx", "_dw")),
        ("channels are no whole chunks", (2, 36, 8, 8), (36, 36, 3, 3), ()),
        ("most channels of a slab would be zeros", (2, 8, 8, 8), (32, 8, 3, 3), ("_dx", "_dw")),
        ("few taps", (2, 32, 8, 8), (32, 32, 1, 2), ()),
        ("rows of y are no pairs", (2, 32, 8, 7), (32, 32, 3, 3), ("", "_dx")),
        ("few pixels", (2, 32, 3, 3), (32, 32, 3, 3), ()),
    ],
)
def test_when_pixels_are_brought_once(why, x, w, passes, launches):
    conv, attrs = FAMILY[2], {**PLAIN, "padding": (w[-1] // 2, w[-1] // 2)}
    images, filters = (dl.zeros(shape, dtype="float16", device="sim") for shape in (x, w))
    y = conv.conv(images, filters, **attrs)
    conv.dx(y, filters, size=x[2:], **attrs)
    conv.dw(y, images, kernel=w[2:], **attrs)
    used = [kernel for kernel in launches if kernel.startswith(("conv_patch", "conv_forward", "conv_dw"))]
    found = dict(zip(("", "_dx", "_dw"), used, strict=True))
    assert tuple(name for name, kernel in found.items() if kernel.startswith("conv_patch")) == passes, why


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 3])
def test_one_tap_is_a_product_of_images_as_they_are(groups, dtype, launches):
    check(((2, 24, 4, 6), (72, 24 // groups, 1, 1), {"groups": groups}), dtype, strided=True)
    used = [kernel for kernel in launches if kernel.startswith(("gemm", "conv"))]
    assert [kernel.split("_")[0] for kernel in used[:2]] == ["gemm", "gemm"]
    assert any(kernel.startswith("conv_dw") for kernel in used)


@pytest.mark.parametrize("changes", [{"stride": (2, 2)}, {"padding": (1, 1)}])
def test_one_tap_of_some_pixels_is_no_product(changes, launches):
    check(((2, 16, 6, 8), (16, 16, 1, 1), changes), "float16")
    assert not any(kernel.startswith("gemm") for kernel in launches)


def test_a_gradient_for_pixels_outside_of_dy_is_no_infinity_times_zero(patch):
    x = np.full((1, 16, 6, 12), np.inf, np.float16)
    x[..., :3, :3] = x[..., :3, 8:11] = 1  # what the two windows see
    dy = np.ones((1, 8, 1, 2), np.float16)
    dy[0, 1, 0, 0] = np.inf
    patch()
    dy, x = dl.asarray(dy, device="sim"), dl.asarray(x, device="sim")
    found = FAMILY[2].dw(dy, x, kernel=(3, 3), **{**PLAIN, "stride": (4, 8)}).numpy()
    np.testing.assert_array_equal(found[0], np.full((16, 3, 3), 2))
    np.testing.assert_array_equal(found[1], np.full((16, 3, 3), np.inf))


@pytest.mark.parametrize("copied", [0, 2, 8])
@pytest.mark.parametrize(
    ("out", "kernel", "stride"),
    [((1, 56, 56), (1, 3, 3), 1), ((1, 14, 16), (1, 3, 3), 2), ((4, 8, 8), (3, 3, 3), 1), ((1, 1, 600), (1, 1, 9), 1)],
)
@pytest.mark.parametrize("tile", [t for t in cost.HALF if t.n <= 128], ids=lambda t: t.name)
def test_boxes_fit_and_cover_all_pixels(tile, out, kernel, stride, copied):
    cut = conv_patch.cut_of(6, out, kernel, (stride,) * 3, (1, 1, 1), copied)
    box = conv_patch.box_of(tile, cut)
    assert cut.shared(tile, box) <= 99 * 1024
    assert box.columns() <= (128 if copied else tile.n)
    assert all(count * size >= n for count, size, n in zip(box.along(out), box.size, out, strict=True))
    assert conv_patch.wasted(tile, box, cut) < 0.25
    if copied:
        assert box.size[2] % copied == 0
        assert 6 % box.images == 0


def test_windows_too_large_for_shared_memory_are_taken_in_another_order(launches):
    x, w = (dl.zeros(s, dtype="float16", device="sim") for s in ((1, 32, 40, 40), (8, 32, 3, 3)))
    dl.conv2d(x, w, stride=9, dilation=9)
    assert not any(kernel.startswith("conv_patch") for kernel in launches)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_kernel_of_more_offsets_than_a_mask_has_bits_goes_by_im2col(dtype, launches):
    wide = {"padding": (0, 20), "dilation": (1, 5)}
    check(((2, 2, 3, 33), (3, 2, 2, 6), wide), dtype)  # spans 2 and 26 pixels
    assert not any("im2col" in kernel for kernel in launches)
    check(((2, 2, 3, 33), (3, 2, 2, 7), wide), dtype)  # 2 and 31
    assert sum("im2col" in kernel for kernel in launches) == 2


RANKS = {  # function, x, w, attributes
    "1d": (dl.conv1d, (2, 4, 11), (6, 2, 3), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}),
    "3d": (dl.conv3d, (2, 4, 5, 6, 7), (6, 2, 3, 2, 3),
           {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 2, 1), "groups": 2}),
    "transposed 1d": (dl.conv_transpose1d, (2, 4, 7), (4, 3, 3),
                      {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}),
    "transposed 2d": (dl.conv_transpose2d, (1, 3, 4, 5), (3, 2, 3, 2),
                      {"stride": 2, "padding": (1, 0), "output_padding": (0, 1), "dilation": (2, 1)}),
    "transposed 3d": (dl.conv_transpose3d, (1, 2, 3, 4, 3), (2, 3, 2, 3, 1),
                      {"stride": (1, 2, 2), "padding": (0, 1, 0), "output_padding": (0, 1, 1)}),
}  # fmt: skip


def value_and_gradients(name, dtype, device):
    function, *shapes, attrs = RANKS[name]
    x, w = (dl.tensor(whole(s, dtype, i), device=device, requires_grad=True) for i, s in enumerate(shapes))
    y = function(x, w, **attrs)
    (y * dl.asarray(whole(y.shape, dtype, 2), device=device)).sum().backward()
    return [found.numpy() for found in (y.detach(), x.grad, w.grad)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", RANKS)
def test_every_rank_runs_on_kernels(name, dtype, setting):
    expected = value_and_gradients(name, "float64", "numpy")
    setting("STRICT", True)
    for got, wanted in zip(value_and_gradients(name, dtype, "sim"), expected, strict=True):
        np.testing.assert_array_equal(got, wanted.astype(got.dtype))


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
