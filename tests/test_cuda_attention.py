"""Attention kernels in the emulator: several tiles, ragged edges, wide heads, masks, any strides."""

import numpy as np
import pytest

from dlcore import dtypes, testing
from dlcore.op import OPS

pytestmark = pytest.mark.sim


def rand(*shape, dtype="float32"):
    return np.random.default_rng(list(shape)).normal(size=shape).astype(dtypes.dtype(dtype))


def check_forward(operands, dtype="float32", **attrs):
    """Values of attention against the reference in float64, which are returned."""
    y, lse = (np.asarray(x, operands[0].dtype) for x in testing.oracle(OPS["attention"], operands, attrs))
    (got_y, got_lse), _ = testing.call(OPS["attention"], operands, attrs, "sim")
    testing.assert_close(got_y, y, dtype)
    testing.assert_close(got_lse, lse, dtype)
    return y, lse


def check(operands, dtype="float32", **attrs):
    """Values of attention and of both gradients against the references in float64."""
    q, k, v, bias = operands
    y, lse = check_forward(operands, dtype, **attrs)
    backward = [rand(*y.shape, dtype=dtype), rand(*lse.shape, dtype=dtype), q, k, v, bias, y, lse]
    for name in ("attention_grad", "attention_bias_grad"):
        expected = testing.oracle(OPS[name], backward, attrs)
        got, _ = testing.call(OPS[name], backward, attrs, "sim")
        for a, b in zip(got, expected, strict=True):
            testing.assert_close(a, b, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_whose_first_score_is_far_above_the_others(dtype):
    q, k = np.zeros((1, 20, 8), dtype), np.zeros((1, 20, 8), dtype)
    q[:, 1:], k[:, 0] = 30, 30
    check_forward([q, k, rand(1, 20, 8, dtype=dtype), None], dtype, causal=False, scale=None)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "s", "d", "e"), [(70, 130, 8, 12), (65, 3, 5, 7), (2, 66, 33, 66)])
def test_several_tiles(t, s, d, e, causal, launches):
    check([rand(2, t, d), rand(2, s, d), rand(2, s, e), None], causal=causal)
    width = 64 if e <= 64 else 128
    assert launches[0] == f"attention_forward_{width}_f32"
    assert f"attention_grad_kv_{width}_f32" in launches


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("d", "e"), [(64, 64), (128, 100), (256, 130)])
def test_heads_of_16_bits(d, e, dtype):
    check(
        [rand(1, 5, d, dtype=dtype), rand(1, 9, d, dtype=dtype), rand(1, 9, e, dtype=dtype), None], dtype, causal=True
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "s", "d", "e"), [(70, 130, 64, 16), (65, 3, 5, 7), (5, 66, 72, 128)])
def test_tiles_on_tensor_cores(t, s, d, e, causal, dtype, launches):
    operands = [rand(*shape, dtype=dtype) for shape in ((2, t, d), (2, s, d), (2, s, e))]
    check_forward([*operands, None], dtype, causal=causal)
    assert launches == [f"attention_tensor_{128 if e > 64 else 64}_{'f16' if dtype == 'float16' else 'bf16'}"]


def test_masked_rows_and_keys_on_tensor_cores():
    bias = np.where(rand(2, 67, 70) > 0, 0, -np.inf).astype(np.float16)
    bias[:, 3] = -np.inf
    operands = [rand(2, n, 24, dtype="float16") for n in (67, 70, 70)]
    check_forward([*operands, bias], "float16")


@pytest.mark.parametrize(("d", "e"), [(100, 20), (200, 256)])
def test_wide_heads(d, e):
    check([rand(3, d), rand(5, d), rand(5, e), None])


def test_masked_rows_and_keys():
    bias = np.where(rand(1, 67, 70) > 0, 0, -np.inf).astype(np.float32)
    bias[:, 3] = -np.inf
    check([rand(2, 67, 4), rand(2, 70, 4), rand(2, 70, 4), bias])


def test_leading_axes_broadcast_and_rows_are_strided():
    q, k = (rand(2, 6, 3, 8).transpose(0, 2, 1, 3) for _ in range(2))
    v, bias = rand(1, 3, 6, 8)[:, :, :, ::-1], rand(2, 1, 1, 6)
    check([q, k, v, np.broadcast_to(bias, (2, 1, 6, 6))], scale=0.3)
