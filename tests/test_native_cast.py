"""The casts of `_C`, and where the `cpu` backend uses them, bit for bit as NumPy and ml_dtypes."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")
cast = pytest.importorskip("dlcore.backends.cpu.cast").cast

pytestmark = pytest.mark.filterwarnings("ignore:.*in cast:RuntimeWarning")  # NumPy's, of signalling NaN

HALVES = ["float16", "bfloat16"]
F32 = np.dtype(np.float32)


def patterns():
    """Every 16-bit pattern."""
    return np.arange(1 << 16, dtype=np.uint16)


def floats(half):
    """All values of a 16-bit float, what lies halfway to the next and just beside that, and any bits."""
    near = patterns().view(half).astype(F32).view(np.uint32)
    halfway = near + np.uint32(0x1000 if half == np.float16 else 0x8000)
    some = np.random.default_rng(0).integers(0, 1 << 32, 300_001, dtype=np.uint32)
    return np.concatenate([near, halfway, halfway - np.uint32(1), halfway + np.uint32(1), some]).view(F32)


def assert_same(got, want):
    """Of one dtype and equal to the bit, but for which NaN it is."""
    assert got.dtype == want.dtype
    nan = np.isnan(want.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float64)), nan)
    np.testing.assert_array_equal(got[~nan].view(f"u{got.itemsize}"), want[~nan].view(f"u{want.itemsize}"))


@pytest.mark.parametrize("name", HALVES)
def test_every_half_widens_exactly(name, isa):
    x = patterns().view(dtypes.dtype(name))
    assert_same(cast(x, F32), x.astype(F32))


@pytest.mark.parametrize("name", HALVES)
def test_floats_round_to_the_nearest_half_ties_to_even(name, isa):
    half = dtypes.dtype(name)
    x = floats(half)
    assert_same(cast(x, half), x.astype(half))


@pytest.mark.parametrize("name", ["float64", "int64", "int32", "uint8", "bool"])
def test_other_types_as_numpy(name, isa):
    x = np.random.default_rng(0).integers(-(1 << 62), 1 << 62, 10_007).astype(name) * np.ones(1, name)
    x = np.concatenate([x, x[:9]])
    assert_same(cast(x, F32), x.astype(F32))


def test_float64_of_float32(isa):
    x = floats(np.dtype(np.float16))
    assert_same(cast(x, np.dtype(np.float64)), x.astype(np.float64))


@pytest.mark.parametrize("n", [*range(20), 33, 5000])
def test_every_length_of_tail(n, isa):
    bits, x = np.zeros(n, np.uint16), np.arange(n, dtype=np.float32)
    _C.f32_to_f16(x, bits)
    np.testing.assert_array_equal(bits, x.astype(np.float16).view(np.uint16))


def test_what_has_no_kernel_is_numpys():
    x = np.arange(-3000, 3000, dtype=np.float32)
    for dtype in (np.int64, np.bool_, np.int8):
        assert_same(cast(x, np.dtype(dtype)), x.astype(dtype))


def test_strides_and_memory_orders():
    x = np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32)
    for view in (x.T, x[::2], x[:, ::-1], np.asfortranarray(x)):
        assert_same(cast(view, np.dtype(np.float16)), view.astype(np.float16))


def test_misaligned_arrays():
    x = np.frombuffer(bytes(range(256)) * 100, np.float32, 5000, offset=1)
    assert_same(cast(x, np.dtype(np.float16)), x.astype(np.float16))


def test_an_array_of_the_dtype_is_itself():
    x = np.zeros(5000, np.float32)
    assert cast(x, F32) is x


@pytest.mark.parametrize("name", HALVES)
def test_astype_and_its_gradient(name):
    with dl.device("cpu"):
        x = dl.tensor(np.random.default_rng(0).normal(size=(60, 70)).astype(np.float32), requires_grad=True)
        x.astype(name).sum().backward()
        assert_same(x.astype(name).numpy(), x.numpy().astype(dtypes.dtype(name)))
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), np.ones((60, 70), np.float32))


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (np.zeros(4, np.float32), np.zeros(4, np.float32), "sizes that its name says"),
        (np.zeros(4, np.float64), np.zeros(4, np.uint16), "sizes that its name says"),
        (np.zeros(4, np.float32), np.zeros(3, np.uint16), "x and out differ"),
        (np.zeros((4, 4), np.float32)[:, ::2], np.zeros((4, 2), np.uint16), "contiguous"),
    ],
)
def test_bad_arrays_are_refused(x, out, message):
    with pytest.raises(ValueError, match=message):
        _C.f32_to_f16(x, out)
