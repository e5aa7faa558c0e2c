"""The two engines agree: what g++ and the emulator make of a kernel, and what nvcc and the PTX interpreter do."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dlcore.errors import KernelError
from dlcore.sim import build, engine, ptx

ROOT = Path(__file__).parent
KERNELS = ROOT / "kernels"
pytestmark = [
    pytest.mark.nvcc,
    pytest.mark.skipif(not shutil.which("nvcc"), reason="compiled with nvcc"),
    pytest.mark.skipif(not shutil.which("g++"), reason="the emulator is built with g++"),
]


@pytest.fixture(scope="module", params=["sm_80", "sm_90"])
def compiled(request, tmp_path_factory):
    """Function that compiles a file of tests/kernels to a PTX module."""
    folder, modules = tmp_path_factory.mktemp("ptx"), {}

    def module(name):
        if name not in modules:
            out = folder / f"{name}.ptx"
            flags = [f"-arch={request.param}", "-fmad=false", "-lineinfo", f"-I{ROOT.parent / 'kernels/include'}"]
            subprocess.run(["nvcc", "-ptx", *flags, KERNELS / name, "-o", out], check=True, capture_output=True)
            modules[name] = ptx.Module(out.read_text())
        return modules[name]

    return module


@pytest.fixture(scope="module")
def emulated():
    image = engine.Image(build.kernel(KERNELS / "basic.cu"))
    yield image
    image.close()


@pytest.fixture(scope="module")
def checked():
    image = engine.Image(build.kernel(KERNELS / "basic.cu", "checked"))
    yield image
    image.close()


RNG = np.random.default_rng(0)
FLOATS = np.array([0, 1, 1 + 2**-9, 1 + 3 * 2**-11, 1 + 2**-8, 65519, 65520, 1e-7, 1e-40, -3.1, np.inf], np.float32)
NORMAL = RNG.standard_normal(256).astype(np.float32)
HALF = NORMAL.astype(np.float16).view(np.uint16)
BRAIN = (NORMAL.view(np.uint32) >> 16).astype(np.uint16)
INTS = np.arange(1000, dtype=np.int32)


def zeros(count, dtype):
    return np.zeros(count, dtype)


LAUNCHES = {  # kernel: grid, block, arguments, options
    "add": (4, 64, [NORMAL, NORMAL[::-1].copy(), zeros(256, "f4"), 200], {}),
    "coordinates": ((2, 3, 2), (5, 2, 3), [zeros(360, "i4")], {}),
    "sums": (1, 96, [NORMAL, INTS, zeros(1, "f4"), zeros(1, "i4")], {}),
    "reverse_static": (1, 64, [INTS, zeros(64, "i4")], {}),
    "reverse_dynamic": (1, 96, [INTS, zeros(1000, "i4"), 1000], {"shared": 4000}),
    "unwritten": (3, 32, [zeros(32, "u4")], {"shared": 128}),
    "votes": (1, 64, [zeros(6, "i4")], {}),
    "shuffles": (1, 64, [zeros(384, "i4")], {}),
    "atomics": (2, 64, [zeros(4, "i4"), np.array([0, 0, 100, 0], "u4"), zeros(2, "u8"), zeros(128, "i4")], {}),
    "copy_async": (1, 32, [NORMAL, zeros(256, "f4"), 30], {"shared": 1024}),
    "through_the_grid": (5, 64, [zeros(1, "u4"), zeros(5, "i4"), zeros(10, "i4")], {"cooperative": True}),
    "tile_f16": (1, 32, [HALF, HALF[::-1].copy(), zeros(128, "f4")], {}),
    "tile_bf16": (1, 32, [BRAIN, BRAIN[::-1].copy(), zeros(128, "f4")], {}),
    "tile_tf32": (1, 32, [NORMAL, NORMAL[::-1].copy(), zeros(128, "f4")], {}),
    "transposed_matrix": (1, 32, [HALF, zeros(32, "u4")], {}),
    "halves": (1, 32, [FLOATS, zeros(22, "u4"), zeros(22, "f4"), 11], {}),
}


@pytest.mark.parametrize("kernel", LAUNCHES)
def test_same_bits_from_both_engines(compiled, emulated, kernel):
    grid, block, args, options = LAUNCHES[kernel]
    runs = [[a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(2)]
    emulated.launch(kernel, grid, block, *runs[0], **options)
    compiled("basic.cu").launch(kernel, grid, block, runs[1], **options)
    for k, (a, b) in enumerate(zip(*runs, strict=True)):
        if isinstance(a, np.ndarray) and not (kernel == "through_the_grid" and k == 0):  # the barrier's own counter
            assert a.tobytes() == b.tobytes(), k


def test_every_kernel_is_launched(compiled):
    assert set(compiled("basic.cu").kernels) == LAUNCHES.keys()


OWN_COUNTS = {
    "unwritten": "the checked emulator stops: it reads what nobody wrote",
    "through_the_grid": "the emulator's grid barrier touches no memory",
    "halves": "nvcc loads an element once that the source reads twice",
}


def on_device(values):
    """A copy that begins at a multiple of 256 bytes, so that sectors are the same for both engines."""
    array = engine.empty(values.shape, values.dtype)
    array[...] = values
    return array


@pytest.mark.parametrize("kernel", sorted(LAUNCHES.keys() - OWN_COUNTS.keys()))
def test_same_counts_by_source_line_from_both_engines(compiled, checked, kernel):
    grid, block, args, options = LAUNCHES[kernel]
    runs = [[on_device(a) if isinstance(a, np.ndarray) else a for a in args] for _ in range(2)]
    engine.take_counters()
    checked.launch(kernel, grid, block, *runs[0], **options)
    result = compiled("basic.cu").launch(kernel, grid, block, runs[1], **options)
    assert sorted(result.counters) == sorted(engine.take_counters())


STOPS = {
    "divergent_barrier": "barrier reached by 32 of 64 threads of the block; the others wait at another barrier",
    "exit_before_barrier": "barrier reached by 40 of 64 threads of the block; the others have exited",
    "lane_not_in_mask": "the member mask lacks the thread itself",
    "vote_and_shuffle": "deadlock",
    "reads_absent_lane": "shfl.sync reads lane 17, which does not take part",
    "deadlock": "deadlock",
    "wild_pointer": "out-of-bounds write",
    "trap": "reached a trap",
    "misaligned_copy": "misaligned",
}


@pytest.mark.parametrize("kernel", STOPS)
def test_a_kernel_that_cannot_go_on(compiled, kernel):
    lines = (KERNELS / "stops.cu").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if re.search(rf"\b{kernel}\(", line))
    end = lines.index(f"DL_EXPORT({kernel})")
    marked = [n + 1 for n in range(start, end) if lines[n].endswith("// fault")]
    out = np.zeros(256, np.int32)
    with pytest.raises(KernelError, match=STOPS[kernel]) as caught:
        compiled("stops.cu").launch(kernel, 1, 64, [out, 0], shared=4096)
    assert re.search(rf"stops.cu:({'|'.join(map(str, marked))})\)", str(caught.value))
