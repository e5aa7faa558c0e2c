"""Scan kernels in the emulator: rows of one thread, of several warps and of several chunks."""

import pytest

from dlcore import testing
from dlcore.op import OPS, Arr, sample

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [1, 4, 127, 129, 512, 1027])
@pytest.mark.parametrize(("name", "low", "high"), [("cumsum", -1, 1), ("cumprod", 0.99, 1.01)])
def test_rows(name, low, high, n, reverse, dtype, launches):
    testing.check_value(OPS[name], sample(Arr((3, n), low, high), axis=-1, reverse=reverse), dtype, "sim")
    suffix = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}[dtype]
    assert launches == [f"scan_{'sum' if name == 'cumsum' else 'product'}_{suffix}"]


def test_another_axis_and_more_rows_than_blocks():
    testing.check_value(OPS["cumsum"], sample((2, 5, 70), axis=1), "float32", "sim")
