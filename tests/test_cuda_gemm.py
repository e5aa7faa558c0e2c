"""Products on the kernels of `kernels/gemm*.cu`, in the emulator: every layout, tile, edge, epilogue and split."""

import numpy as np
import pytest
from conftest import on_host, placed

import dlcore as dl
from dlcore import dispatch, dtypes, settings, testing
from dlcore.backends.cuda import cost, launch
from dlcore.errors import BackendError

pytestmark = pytest.mark.sim
SIZES = [(1, 1, 1), (64, 64, 8), (127, 66, 9), (65, 129, 17), (130, 68, 40), (7, 200, 3)]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


@pytest.fixture
def force(monkeypatch):
    """Function that fixes the tile, by name, and the number of splits."""

    def fix(tile, splits=1):
        def choose(work, tiles, multiprocessors):
            found = next((t for t in tiles if t.name.startswith(tile)), tiles[0])
            return cost.Choice(found, *cost.split(work.k, found.slab, splits))

        monkeypatch.setattr(cost, "choose", choose)
        monkeypatch.setattr(cost, "is_skinny", lambda *_: False)

    return fix


def whole(shape, dtype="float32", seed=0):
    """Whole numbers whose sums of products are exact."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtypes.dtype(dtype))


def framed(x, margin=3):
    """The same values inside memory that is NaN elsewhere."""
    wide = np.full((x.shape[0] + 2, x.shape[1] + margin), np.nan, x.dtype)
    wide[1:-1, : x.shape[1]] = x
    return wide[1:-1, : x.shape[1]]


def on_sim(x):
    return dl.Tensor._wrap(placed(x), dispatch.get_backend("sim"))


def product(a, b):
    return (on_sim(a) @ on_sim(b)).numpy()


def expected(a, b):
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)


TILES = {"float32": ["128", "64"], "float64": ["64"], "float16": ["256", "128", "64"], "bfloat16": ["256", "128", "64"]}
CASES = [(dtype, tile) for dtype in DTYPES for tile in TILES[dtype]]


@pytest.mark.parametrize("margin", [0, 3, 8])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize(("dtype", "tile"), CASES)
def test_edges_of_tiles(dtype, tile, layout, margin, force):
    force(tile)
    for m, n, k in SIZES:
        a, b = whole((m, k), dtype, 1), whole((k, n), dtype, 2)
        left = framed(a, margin) if layout[0] == "n" else framed(a.T.copy(), margin).T
        right = framed(b, margin) if layout[1] == "n" else framed(b.T.copy(), margin).T
        np.testing.assert_array_equal(product(left, right), expected(a, b), err_msg=f"{m} {n} {k}")


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize(("dtype", "tile"), CASES)
def test_whole_vectors(dtype, tile, layout, force, launches):
    force(tile)
    a, b = whole((136, 72), dtype, 1), whole((72, 272), dtype, 2)
    left = a if layout[0] == "n" else a.T.copy().T
    right = b if layout[1] == "n" else b.T.copy().T
    np.testing.assert_array_equal(product(left, right), expected(a, b))
    assert launches[0].startswith(f"gemm_{layout}_")
    assert f"_{tile}" in launches[0]


@pytest.mark.parametrize("splits", [2, 3, 5])
@pytest.mark.parametrize(("dtype", "tile"), CASES)
def test_splits(dtype, tile, splits, force, launches):
    force(tile, splits)
    for m, n, k in [(65, 130, 203), (9, 64, 160)]:
        a, b, bias = whole((m, k), dtype, 1), whole((n, k), dtype, 2), whole((n,), dtype, 3)
        y = dl.linear(on_sim(a), on_sim(b), on_sim(bias), activation="relu").numpy()
        wide = expected(a.astype(np.float64), b.T) + bias.astype(np.float64)
        np.testing.assert_array_equal(y, np.maximum(wide, 0).astype(y.dtype))
    assert sum("reduce" in name for name in launches) == 2


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh", "sigmoid"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tile"), CASES)
def test_epilogues(dtype, tile, bias, activation, force):
    force(tile)
    rng = np.random.default_rng(0)
    for n in (20, 35):
        operands = [rng.normal(size=s).astype(dtypes.dtype(dtype)) for s in ((66, 13), (n, 13), (n,))]
        if not bias:
            operands[2] = None
        attrs = {"activation": activation}
        (got,), _ = testing.call(dl.linear, operands, attrs, "sim")
        testing.assert_close(got.numpy(), testing.oracle(dl.linear, operands, attrs)[0], dtype)


@pytest.mark.parametrize("margin", [0, 3, 8])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_few_rows_or_columns(dtype, layout, margin, launches):
    sizes = [(few, lines, k) for few in (1, 3, 16) for lines, k in ((1, 1), (40, 65), (300, 17), (16, 520))]
    for m, n, k in [*sizes, *((n, m, k) for m, n, k in sizes)]:
        a, b = whole((m, k), dtype, 1), whole((k, n), dtype, 2)
        left = framed(a, margin) if layout[0] == "n" else framed(a.T.copy(), margin).T
        right = framed(b, margin) if layout[1] == "n" else framed(b.T.copy(), margin).T
        np.testing.assert_array_equal(product(left, right), expected(a, b), err_msg=f"{m} {n} {k}")
    rows = {"1", "4", "16"} if dtype == "float32" else {"8", "16"}
    assert {name.removesuffix("_any").rpartition("_")[2] for name in launches} == rows
    assert all(name.endswith("_any") for name in launches) == (margin == 3)
    assert not any("gemm_n" in name or "gemm_t" in name for name in launches)


@pytest.mark.parametrize("shape", [(3, 20), (300, 5)])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh", "sigmoid"])
def test_epilogues_of_few_rows_or_columns(shape, activation, launches):
    rng = np.random.default_rng(0)
    operands = [rng.normal(size=s).astype(np.float32) for s in ((shape[0], 13), (shape[1], 13), shape[1:])]
    (got,), _ = testing.call(dl.linear, operands, {"activation": activation}, "sim")
    testing.assert_close(got.numpy(), testing.oracle(dl.linear, operands, {"activation": activation})[0], "float32")
    assert "skinny" in launches[-1]


@pytest.fixture
def variant(monkeypatch):
    """Function that forces a variant of the products, as DLCORE_VARIANT does."""

    def choose(name):
        table = {"VARIANT": {"matmul": name, "linear": name}}
        get = settings.get
        monkeypatch.setattr(settings, "get", lambda key: table.get(key) or get(key))
        monkeypatch.setattr(dispatch.get_backend("sim"), "plans", {})

    return choose


@pytest.mark.parametrize("tile", ["128", "256"])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_tf32_rounds_operands_to_ten_bits(layout, tile, variant, force, launches):
    variant("tf32")
    force(tile)
    a, b = whole((70, 36)) + np.float32(2**-11), whole((36, 130), seed=1)
    left = a if layout[0] == "n" else a.T.copy().T
    right = b if layout[1] == "n" else b.T.copy().T
    rounded = ((a.view(np.uint32) + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32)
    np.testing.assert_array_equal(product(left, right), rounded @ b)
    assert launches[-1] == f"gemm_nt_tf32_{tile}"


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_tf32_keeps_infinities_and_nans(bits, variant):
    variant("tf32")
    x = np.uint32(bits).view(np.float32)
    a, b = np.zeros((2, 4), np.float32), np.eye(4, dtype=np.float32)
    a[1, 2] = x
    np.testing.assert_array_equal(product(a, b)[:, 2], [0, x])


def test_tf32_says_what_it_does_not_take(variant):
    variant("tf32")
    with pytest.raises(BackendError, match="K is no multiple of 4"):
        product(whole((3, 5)), whole((5, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_broadcast(dtype):
    for left, right in [((3, 1), (2,)), ((2, 3), (1,)), ((2, 1, 2), (3, 1)), ((), (4,)), ((5,), ())]:
        a, b = whole((*left, 9, 5), dtype, 1), whole((*right, 5, 12), dtype, 2)
        np.testing.assert_array_equal(product(a, b), expected(a, b))
    every_other = whole((3, 18, 10), dtype, 3)[:, ::2, ::2]
    a = whole((3, 20, 9), dtype, 1)
    np.testing.assert_array_equal(product(a, every_other), expected(a, every_other))
    np.testing.assert_array_equal(product(every_other.mT, a.mT), expected(every_other.mT, a.mT))


def test_heads_of_attention_are_not_copied(launches):
    q, k = (whole((2, 17, 3, 8), seed=i).transpose(0, 2, 1, 3) for i in (1, 2))
    np.testing.assert_array_equal(product(q, k.swapaxes(-1, -2)), expected(q, k.swapaxes(-1, -2)))
    assert ["skinny" in name or "gemm_nt" in name for name in launches] == [True]


@pytest.mark.emulator
@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize(("dtype", "tile"), CASES)
def test_bits_do_not_depend_on_the_order_of_threads(dtype, tile, order, force):
    from dlcore.sim import engine

    force(tile, 2)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(dtypes.dtype(dtype)) for s in ((70, 80), (80, 136)))
    first = product(a, b)
    with engine.schedule(order, 5):
        np.testing.assert_array_equal(product(a, b), first)


def test_nothing_to_add_up_leaves_the_bias():
    y = dl.linear(dl.zeros((3, 0), device="sim"), dl.zeros((2, 0), device="sim"), dl.ones(2, device="sim"))
    np.testing.assert_array_equal(y.numpy(), np.ones((3, 2), np.float32))


def test_whole_numbers_are_left_to_the_reference(launches):
    assert (dl.ones((2, 3), "int32", "sim") @ dl.ones((3, 2), "int32", "sim")).numpy().tolist() == [[3, 3], [3, 3]]
    assert launches == []


def choice(m, n, k, batches=1, tiles=cost.F32):
    itemsize = 2 if tiles is cost.HALF else 4
    return cost.choose(cost.Work(m, n, k, batches, itemsize), tiles, 108)


def test_large_products_take_large_tiles_unsplit():
    assert choice(4096, 4096, 4096)[:2] == (cost.F32[0], 1)


@pytest.mark.parametrize("tiles", [cost.HALF, cost.TF32])
def test_on_tensor_cores_large_products_take_wide_tiles_unless_much_of_them_is_left_over(tiles):
    assert choice(4096, 4096, 4096, tiles=tiles)[:2] == (tiles[1], 1)
    assert choice(16384, 640, 2048, tiles=tiles)[:2] == (tiles[0], 1)


def test_small_products_take_small_tiles():
    assert choice(256, 256, 256).tile.name == "64"


def test_few_tiles_and_long_sums_are_split():
    assert choice(128, 128, 8192).splits >= 8
    assert choice(64, 64, 64).splits == 1


def test_long_sums_for_few_lines_are_not_left_to_a_few_warps():
    assert cost.is_skinny(1, 1000, 10**6, dtypes.float32)
    assert not cost.is_skinny(1, 1, 10**6, dtypes.float32)
    assert not cost.is_skinny(17, 1000, 100, dtypes.float32)
    assert not cost.is_skinny(1, 1000, 100, dtypes.float64)


def test_batches_fill_the_device_without_splits():
    assert choice(64, 64, 512, batches=512).splits == 1


@pytest.mark.parametrize(("k", "splits"), [(0, 1), (1, 4), (64, 3), (1000, 7), (8, 8)])
def test_slices_cover_k_once(k, splits):
    count, length = cost.split(k, 8, splits)
    assert count * length >= k > (count - 1) * length or k == 0
    assert length % 8 == 0
    assert 1 <= count <= splits


def test_half_the_time_on_twice_the_device():
    work = cost.Work(8192, 8192, 1024, 1, 4)
    picked = cost.choose(work, cost.F32, 64)
    assert cost.cycles(work, picked, 128) == pytest.approx(cost.cycles(work, picked, 64) / 2, rel=0.05)


LADDER = {
    "ladder_1_naive": (32, 8, (32, 8)),
    "ladder_2_tiled": (32, 32, (32, 32)),
    "ladder_3_blocked": (64, 64, (64,)),
    "ladder_4_pipelined": (64, 64, (64,)),
}


@pytest.mark.parametrize("kernel", LADDER)
def test_ladder(kernel):
    across, down, block = LADDER[kernel]
    for m, n, k in [(1, 4, 1), (33, 68, 7), (64, 64, 40), (70, 132, 65)]:
        a, b = whole((m, k), seed=1), whole((k, n), seed=2)
        arrays = [placed(x) for x in (a, b, np.empty((m, n), np.float32))]
        grid = -(-n // across), -(-m // down)
        launch.launch(f"gemm_ladder.{kernel}", grid, block, *arrays, m, n, k, like=arrays[2])
        np.testing.assert_array_equal(on_host(arrays[2]), a @ b)
