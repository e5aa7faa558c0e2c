"""The checked build: planted faults are found at their lines, correct kernels are not reported; counters."""

import re
import shutil
from pathlib import Path

import pytest

from dlcore.errors import KernelError
from dlcore.sim import build, engine

KERNELS = Path(__file__).parent / "kernels"
FAULTS = KERNELS / "faults.cu"
pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="the emulator is built with g++")
ORDERS = [("forward", 0), ("reverse", 0), ("random", 1)]


@pytest.fixture(scope="module")
def faults():
    image = engine.Image(build.kernel(FAULTS, "checked"))
    yield image
    image.close()


def launch(image, kernel, *, blocks=1, cooperative=False, read_only=False, unwritten=(), shared=512):
    x = engine.empty(256)
    x[:] = 0
    x.flags.writeable = not read_only
    image.launch(kernel, blocks, 64, x, 0, shared=shared, cooperative=cooperative, unwritten=unwritten)
    return x


def marked(kernel):
    """Places in faults.cu that are marked "fault", in the kernel or the device function that it calls."""
    text = FAULTS.read_text()
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"FAULTY({kernel})"))
    called = re.search(r"\{ (\w+)<", lines[first])
    if called:
        first = next(i for i, line in enumerate(lines) if f"DL_DEVICE void {called[1]}(" in line)
    last = next(i for i in range(first, len(lines)) if lines[i] == "}")
    return {f"faults.cu:{i + 1}" for i in range(first, last) if lines[i].endswith("// fault")}


TWO_BLOCKS = {"blocks": 2}
PLANTED = [
    ("no_barrier_before_read", "shared-race", {}),
    ("no_barrier_before_reuse", "shared-race", {}),
    ("two_writers", "shared-race", {}),
    ("no_syncwarp", "shared-race", {}),
    ("syncwarp_for_two_warps", "shared-race", {}),
    ("shuffle_is_no_barrier", "shared-race", {}),
    ("plain_read_of_a_counter", "shared-race", {}),
    ("blocks_add_to_the_same", "global-race", TWO_BLOCKS),
    ("block_overwrites_what_another_reads", "global-race", TWO_BLOCKS),
    ("no_barrier_in_global_memory", "global-race", {}),
    ("no_fence", "global-race", TWO_BLOCKS),
    ("no_grid_sync", "global-race", {"blocks": 2, "cooperative": True}),
    ("past_the_end", "out-of-bounds", {}),
    ("before_the_start", "out-of-bounds", {}),
    ("guard_forgotten", "out-of-bounds", {}),
    ("vector_past_the_end", "out-of-bounds", {}),
    ("past_a_shared_array", "out-of-bounds", {}),
    ("from_one_shared_array_into_the_next", "out-of-bounds", {}),
    ("past_dynamic_shared_memory", "out-of-bounds", {"shared": 256}),
    ("past_the_row", "out-of-bounds", {}),
    ("past_a_local_array", "out-of-bounds", {}),
    ("writes_an_input", "out-of-bounds", {"read_only": True}),
    ("misaligned_vector", "misaligned", {}),
    ("misaligned_ldmatrix", "misaligned", {}),
    ("unwritten_shared", "uninitialised", {}),
    ("unwritten_global", "uninitialised", {"unwritten": [0]}),
    ("left_by_the_block_before", "uninitialised", TWO_BLOCKS),
    ("waits_too_little", "async", {}),
    ("no_barrier_after_wait", "shared-race", {}),
    ("stage_overwritten_too_early", "shared-race", {}),
    ("source_overwritten_too_early", "global-race", {}),
    ("integer_overflow", "arithmetic", {}),
    ("shift_too_far", "arithmetic", {}),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: o[0])
@pytest.mark.parametrize(("kernel", "kind", "options"), PLANTED, ids=lambda p: p if isinstance(p, str) else "")
def test_a_planted_fault_is_found_at_its_line(faults, kernel, kind, options, order):
    with engine.schedule(*order), pytest.raises(KernelError) as caught:
        launch(faults, kernel, **options)
    issues = engine.issues()
    assert kind in {issue.kind for issue in issues}
    assert {issue.where for issue in issues} <= marked(kernel)
    assert {issue.kernel for issue in issues} == {kernel}
    assert issues[0].text in str(caught.value)


def test_every_kernel_of_the_file_is_tried(faults):
    assert set(faults.names()) == {kernel for kernel, _, _ in PLANTED} | set(CORRECT)


CORRECT = ["fence", "syncwarp", "right_pipeline", "narrow_writes", "constants_and_locals", "wide_structs"]
ALONE = {"syncwarp", "right_pipeline", "constants_and_locals", "wide_structs"}  # blocks would write to the same places


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: o[0])
@pytest.mark.parametrize("kernel", CORRECT)
def test_a_correct_kernel_is_not_reported(faults, kernel, order):
    with engine.schedule(*order):
        x = launch(faults, kernel, blocks=1 if kernel in ALONE else 3)
    assert engine.issues() == []
    assert kernel != "fence" or x[200] == 3
