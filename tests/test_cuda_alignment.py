"""Results have the same bits wherever the operands begin in memory, those of products in every layout: which lane adds
what depends on shapes alone.
"""

import numpy as np
import pytest
from conftest import beginning, on_host, placed

from dlcore import dtypes, testing
from dlcore.backends.cuda import ops_optim
from dlcore.op import OPS

pytestmark = pytest.mark.sim
FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]
WAYS = {"warp": (9, 120), "block": (4, 1160), "long": (2, 4600)}
ROWS = {"softmax": 1, "log_softmax": 1, "softmax_grad": 2, "log_softmax_grad": 2}
NORMS = {"layer_norm": (1, 2), "rms_norm": (1, 1), "layer_norm_grad": (2, 1), "rms_norm_grad": (2, 1)}
GROUP_NORMS = {"group_norm": (1, 2), "group_norm_grad": (2, 1)}
IMAGES = [(2, 8, 40), (2, 4, 9, 24), (40, 144)]
REDUCTIONS = ["sum", "mean", "prod", "max", "min", "var", "std", "logsumexp", "norm"]


def rand(*shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(0.9, 1.1, shape).astype(dtype)


def results(name, operands, attrs, offset):
    """Bytes of an op's results, of operands that begin `offset` elements after a multiple of 16 bytes."""
    moved = [beginning(x, offset) if isinstance(x, np.ndarray) else x for x in operands]
    return [y.numpy().tobytes() for y in testing.call(OPS[name], moved, attrs, "sim")[0]]


def check(name, operands, **attrs):
    assert results(name, operands, attrs, 0) == results(name, operands, attrs, 1)


@pytest.fixture(params=FLOATS, ids=lambda d: d.name)
def dtype(request):
    return request.param


@pytest.mark.parametrize("shape", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", ROWS)
def test_softmax(name, shape, dtype):
    check(name, [rand(*shape, dtype=dtype)] * ROWS[name], axis=-1)


@pytest.mark.parametrize("shape", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_rows(name, shape, dtype):
    full, channels = NORMS[name]
    check(name, [rand(*shape, dtype=dtype)] * full + [rand(shape[-1], dtype=dtype)] * channels, eps=1e-5)


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@pytest.mark.parametrize("name", GROUP_NORMS)
def test_group_norms(name, shape, dtype):
    full, channels = GROUP_NORMS[name]
    operands = [rand(*shape, dtype=dtype)] * full + [rand(shape[1], dtype=dtype)] * channels
    check(name, operands, groups=2, eps=1e-5)


@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_batch_norm(shape, dtype):
    x, channel = rand(*shape, dtype=dtype), rand(shape[1], dtype=dtype)
    check("batch_norm", [x, channel, channel], eps=1e-5)
    check("batch_norm_grad", [x, channel, channel, x, channel, channel, channel], eps=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
@pytest.mark.parametrize("shape", [(40, 120), (10, 1160), (5, 4600)], ids=WAYS)
def test_cross_entropy(shape, smoothing, dtype):
    x, weight, labels = rand(*shape, dtype=dtype), rand(shape[-1], dtype=dtype), np.arange(shape[0])
    attrs = {"ignore_index": -100, "label_smoothing": smoothing, "reduction": "none"}
    check("cross_entropy", [x, labels, weight], **attrs)
    wide = dtypes.float64 if dtype == dtypes.float64 else dtypes.float32
    loss, lse = np.ones(shape[:1], wide), np.full(shape[:1], 8.0, wide)
    check("cross_entropy_grad", [None, loss, x, lse, labels, weight], **attrs)


@pytest.mark.parametrize("shape", [*WAYS.values(), (1, 65_600)], ids=[*WAYS, "parts"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_rows(name, shape, dtype):
    check(name, [rand(*shape, dtype=dtype)], axis=(1,), **{"var": {"correction": 0}}.get(name, {}))


@pytest.mark.parametrize("name", ["sum", "var", "logsumexp"])
def test_reductions_of_columns(name, dtype):
    check(name, [rand(70, 48, dtype=dtype)], axis=(0,))


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_scans(name, dtype):
    check(name, [rand(2, 1160, dtype=dtype)], axis=1, reverse=False)


@pytest.mark.parametrize("shape", [(64, 4096, 64), (128, 1024, 128), (512, 32, 1024), (4, 2048, 256)], ids=str)
def test_products_whose_sums_are_split_or_not(shape, dtype):
    m, k, n = shape
    check("matmul", [rand(m, k, dtype=dtype), rand(k, n, dtype=dtype)])


def cancelling(m, k, n, dtype):
    """Factors whose product is 0 but for what rounding leaves, which tells one order of additions from another."""
    rng = np.random.default_rng([m, k, n])
    a, b, half = rng.normal(size=(m, k)), rng.normal(size=(k, n)), k // 2
    a[:, half:] = 0
    a[:, half : 2 * half], b[half : 2 * half] = a[:, :half], -b[:half]
    order = rng.permutation(k)
    return (30 * a[:, order]).astype(dtype), (30 * b[order]).astype(dtype)


def product(a, b):
    return testing.call(OPS["matmul"], [a, b], {}, "sim")[0][0].numpy()


FEW = [(1, 1000, 300), (3, 520, 257), (16, 264, 64), (300, 333, 5), (40, 640, 16)]
MANY = [(64, 4096, 64), (67, 2048, 64), (64, 2048, 67), (72, 2047, 64), (67, 2047, 64)]


@pytest.mark.parametrize("shape", [*FEW, *MANY], ids=str)
def test_products_of_transposed_views(shape, dtype):
    a, b = cancelling(*shape, dtype)
    first = product(a, b)
    assert first.any()
    for left, right in [(np.asfortranarray(a), b), (a, np.asfortranarray(b)), (a[::-1].copy()[::-1], b)]:
        assert product(left, right).tobytes() == first.tobytes()


def test_products_of_batches_in_any_order(dtype):
    a, b = rand(2, 3, 2, 5, 600, dtype=dtype), rand(600, 40, dtype=dtype)
    turned = a.transpose(2, 1, 0, 3, 4).copy().transpose(2, 1, 0, 3, 4)
    b = np.broadcast_to(b, (2, 3, 2, 600, 40))
    assert product(turned, b).tobytes() == product(a, b).tobytes()


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=lambda d: d.name)
def test_lamb(dtype):
    def step(offset):
        arrays = [placed(beginning(rand(5000, dtype=dtype, seed=seed), offset)) for seed in range(4)]
        states = {"exp_avg": arrays[2:3], "exp_avg_sq": arrays[3:], "trust": [placed(np.zeros((), dtype))]}
        settings = {"lr": 1000.0, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1, "step": 2}
        ops_optim.lamb(arrays[:1], arrays[1:2], states, **settings)
        return on_host(arrays[0]).tobytes()

    assert step(0) == step(1)


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_at_its_samples(name):
    op = OPS[name]
    for s in testing.samples(op):
        check(name, testing.arrays(op, s, np.float32), **dict(s.attrs))
