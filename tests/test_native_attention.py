"""The attention kernels of `_C` against the references in float64, over several tiles of rows and keys."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch, testing
from dlcore.op import OPS

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")
dispatch.get_backend("cpu")

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}
CASES = {  # q, k, v, bias, attributes
    "one row": [(2, 1, 8), (2, 150, 8), (2, 150, 8), None, {}],
    "one key": [(2, 5, 3), (2, 1, 3), (2, 1, 4), None, {}],
    "few rows": [(2, 16, 20), (2, 300, 20), (2, 300, 24), (16, 300), {}],
    "few rows, causal": [(2, 7, 9), (2, 200, 9), (2, 200, 21), None, {"causal": True}],
    "a tile": [(3, 72, 32), (3, 144, 32), (3, 144, 32), None, {}],
    "tiles": [(2, 200, 24), (2, 300, 24), (2, 300, 17), None, {}],
    "wide": [(1, 20, 256), (1, 30, 256), (1, 30, 250), None, {}],
    "causal": [(2, 300, 16), (2, 300, 16), (2, 300, 16), None, {"causal": True}],
    "causal, more keys": [(2, 80, 16), (2, 310, 16), (2, 310, 16), None, {"causal": True}],
    "causal, more rows": [(2, 310, 16), (2, 80, 16), (2, 80, 16), None, {"causal": True}],
    "bias": [(2, 3, 80, 16), (2, 3, 150, 16), (2, 3, 150, 16), (3, 80, 150), {"scale": -0.3}],
    "bias, causal": [(2, 90, 8), (2, 160, 8), (2, 160, 8), (1, 90, 160), {"causal": True}],
    "shared keys": [(2, 3, 4, 9, 8), (2, 3, 1, 11, 8), (1, 3, 1, 11, 8), (9, 11), {}],
    "repeated queries": [(7, 8), (2, 3, 11, 8), (3, 11, 8), None, {}],
}
case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FULL = {"causal": False, "scale": None}


def rand(shape, dtype=np.float32, seed=0):
    return None if shape is None else np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def native(name, *operands, **attrs):
    (variant,) = dispatch.variants(name, "cpu")
    found = variant.fn(*operands, **{**FULL, **attrs})
    return found if isinstance(found, tuple) else (found,)


def operands_of(case, dtype=np.float32):
    return [rand(shape, dtype, seed) for seed, shape in enumerate(case[:4])]


def gradient_operands(case, dtype=np.float32, dlse=True):
    """dy, dlse, q, k, v, bias, y and lse."""
    operands = operands_of(case, dtype)
    y, lse = [a.astype(dtype) for a in testing.oracle(OPS["attention"], operands, {**FULL, **case[4]})]
    return [rand(y.shape, dtype, 5), rand(lse.shape, dtype, 6) if dlse else None, *operands, y, lse]


def check(name, operands, attrs, dtype, factor):
    wanted = testing.oracle(OPS[name], operands, {**FULL, **attrs})
    for a, b in zip(native(name, *operands, **attrs), wanted, strict=True):
        assert (a.dtype, a.shape) == (dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=factor * EPS[dtype] * np.abs(b).max(initial=1))


@pytest.mark.parametrize("dtype", EPS)
@case
def test_values(case, dtype, isa):
    check("attention", operands_of(case, dtype), case[4], dtype, 16)


@pytest.mark.parametrize("dlse", [True, False])
@pytest.mark.parametrize("dtype", EPS)
@case
def test_gradients(case, dtype, dlse, isa):
    check("attention_grad", gradient_operands(case, dtype, dlse), case[4], dtype, 64)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["bias", "bias, causal", "shared keys"])
def test_gradient_of_the_bias(name, dtype, isa):
    check("attention_bias_grad", gradient_operands(CASES[name], dtype), CASES[name][4], dtype, 64)


@pytest.mark.parametrize("heads", [1, 9])  # a thread takes rows or keys of a head | whole heads
@pytest.mark.parametrize("causal", [False, True])
def test_bits_do_not_depend_on_threads(causal, heads, isa, threads):
    size = (heads, 400, 16)
    found = []
    for n in (1, 2, 3):
        threads(n)
        forward = native("attention", *[rand(size, seed=s) for s in range(3)], rand((400, 400)), causal=causal)
        operands = gradient_operands([size, size, size, (400, 400), {"causal": causal}])
        found.append((*forward, *native("attention_grad", *operands, causal=causal)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_bits_of_a_head_do_not_depend_on_the_others(isa):
    case = [(9, 300, 16)] * 3 + [None, {}]
    operands = gradient_operands(case)
    for name, given in [("attention", operands_of(case)), ("attention_grad", operands)]:
        alone = native(name, *[x if x is None else x[4:5] for x in given])
        for a, b in zip(native(name, *given), alone, strict=True):
            np.testing.assert_array_equal(a[4:5], b)


@pytest.mark.parametrize("n", [9, 100])
def test_operands_of_any_strides(n, isa):
    rng = np.random.default_rng(0)
    joint = rng.normal(size=(2, n, 3, 4, 8)).astype(np.float32)  # a projection to the heads of q, k and v
    q, k, v = (joint[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    bias = rng.normal(size=(n, 1, n)).astype(np.float32).transpose(1, 2, 0)
    dense = [np.ascontiguousarray(x) for x in (q, k, v, bias)]
    y, lse = native("attention", q, k, v, bias)
    assert y.transpose(0, 2, 1, 3).flags.c_contiguous  # as the layer joins heads again
    for a, b in zip((y, lse), native("attention", *dense), strict=True):
        np.testing.assert_array_equal(a, b)
    dy, dlse = y[::-1, :, ::-1], lse[:, ::-1]
    wanted = native("attention_grad", dy.copy(), dlse.copy(), *dense, y.copy(), lse)
    for a, b in zip(native("attention_grad", dy, dlse, q, k, v, bias, y, lse), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("keys", [5, 200])
def test_masked_rows_and_keys(keys, isa):
    q, k, v = (rand((n, 8), seed=n) for n in (4, keys, keys))
    bias = np.zeros((4, keys), np.float32)
    bias[1] = -np.inf
    bias[2, : keys - 1] = -np.inf  # all of its first tile
    y, lse = native("attention", q, k, v, bias)
    np.testing.assert_array_equal(y[1], 0)
    np.testing.assert_array_equal(y[2], v[-1])
    assert lse[1] == -np.inf
    dq, dk, dv = native("attention_grad", y + 1, None, q, k, v, bias, y, lse)
    assert not dq[1].any()
    assert np.isfinite(dk).all()
    assert np.isfinite(dv).all()


def test_large_logits_do_not_overflow(isa):
    q, k = np.float32([[300.0, 0], [-300, 0]]), np.float32([[300.0, 0], [-300, 0], [299, 1]])
    v = np.float32([[1], [2], [3]])
    y, lse = native("attention", q, k, v, scale=1)
    np.testing.assert_array_equal(y, [[1], [2]])
    np.testing.assert_allclose(lse, [9e4, 9e4], rtol=4e-7)


def test_not_a_number_stays_in_its_row(isa):
    q, k, v = (rand((50, 8), seed=s) for s in range(3))
    q[7, 3] = np.nan
    y, lse = native("attention", q, k, v)
    np.testing.assert_array_equal(np.isnan(y).all(1), np.arange(50) == 7)
    np.testing.assert_array_equal(np.isnan(lse), np.arange(50) == 7)


def test_layers_run_on_the_kernels(isa):
    from dlcore.profile import profile

    with dl.device("cpu"), profile() as p:
        x = dl.tensor(rand((2, 5, 8)), requires_grad=True)
        dl.nn.MultiheadAttention(8, 2)(x, causal=True).sum().backward()
    assert {variant for op, variant in p.rows if op.startswith("attention")} == {"native"}


@pytest.mark.parametrize("bad", [np.ones((3, 4), int), np.ones((3, 8), np.float32)[:, ::2], np.ones(4, np.float32)])
def test_other_arrays_are_refused(bad):
    good = np.ones((3, 4), np.float32)
    with pytest.raises((TypeError, ValueError), match=r"^attention: "):
        _C.attention(good, bad, good, None, good.copy(), np.ones(3, np.float32), False, 1.0)
