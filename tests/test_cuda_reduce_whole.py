"""Reductions of ints and bools in the emulator, by each kind of kernel; as NumPy."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.backends.cuda import launch
from dlcore.op import OPS

pytestmark = pytest.mark.sim
DTYPES = [np.int64, np.int32, bool]


@pytest.fixture
def launches():
    """Names of the kernels of reductions that were launched."""
    names = []

    def note(kernel, *_):
        if kernel.startswith("reduce."):
            names.append(kernel.partition(".")[2])

    launch.listeners.append(note)
    yield names
    launch.listeners.remove(note)


def drawn(*shape, dtype):
    rng = np.random.default_rng(list(shape))
    if dtype is bool:
        return rng.random(shape) < 0.7
    limits = np.iinfo(dtype)
    x = rng.integers(-1000, 1000, shape).astype(dtype)
    x.reshape(-1)[::17], x.reshape(-1)[::23] = limits.max, limits.min
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "argmax", "argmin"])
@pytest.mark.parametrize(
    ("shape", "axis", "kind"), [((5, 33), 1, "warp"), ((2, 1500), 1, "block"), ((70, 41), 0, "columns")]
)
def test_each_kind_of_kernel(name, dtype, shape, axis, kind, launches):
    x = drawn(*shape, dtype=dtype)
    found = getattr(dl, name)(dl.asarray(x, device="sim"), axis=axis).numpy()
    expected = getattr(np, name)(x, axis=axis)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert [launched.split("_")[1] for launched in launches] == [kind]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_row_is_summed_in_two_passes(dtype, launches):
    x = drawn(70_000, dtype=dtype)
    assert dl.asarray(x, device="sim").sum().item() == x.sum()
    assert len(launches) == 2


def test_sums_to_a_shape_keep_the_dtype():
    x = drawn(4, 3, 5, dtype=np.int32) % 100
    found = OPS["sum_to"](dl.asarray(x, device="sim"), shape=(3, 1)).numpy()
    np.testing.assert_array_equal(found, x.sum(axis=(0, 2), keepdims=True, dtype=np.int32)[0], strict=True)
