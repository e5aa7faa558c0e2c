"""The checked build: planted faults are found at their lines, correct kernels are not reported; counters."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlcore.errors import KernelError
from dlcore.sim import __main__, build, engine, report

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
    ("last_reader_of_the_warp_writes", "shared-race", {}),
    ("last_reader_of_the_block_writes", "shared-race", {}),
    ("last_block_to_read_writes", "global-race", TWO_BLOCKS),
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


# ---- schedules


@pytest.mark.parametrize("mode", build.MODES)
def test_correct_kernels_give_the_same_bits_in_every_order(mode):
    image = engine.Image(build.kernel(FAULTS, mode))
    for kernel in ("syncwarp", "right_pipeline", "wide_structs"):
        engine.same_bits(lambda kernel=kernel: [launch(image, kernel)])


@pytest.mark.parametrize("kernel", ["no_barrier_before_read", "no_barrier_before_reuse", "waits_too_little"])
def test_without_any_check_the_schedule_betrays_a_race(kernel):
    image = engine.Image(build.kernel(FAULTS))

    def run():
        x = engine.empty(256)
        x[:] = np.arange(256)
        image.launch(kernel, 1, 64, x, 0, shared=512)
        return [x]

    with pytest.raises(KernelError, match="result 0 depends on the schedule"):
        engine.same_bits(run)


# ---- counters


@pytest.fixture(scope="module")
def traffic():
    image = engine.Image(build.kernel(KERNELS / "traffic.cu", "checked"))
    yield image
    image.close()


def count(image, kernel):
    """`{operation: (bytes, requests, lanes, units, ideal)}` of a launch of one warp, and the bytes read and written."""
    engine.take_counters(), engine.take_traffic()
    x, y = engine.empty(2048), engine.empty(2048)
    x[:] = y[:] = 0
    image.launch(kernel, 1, 32, x, y)
    (total,) = engine.take_traffic()
    return {c.operation: c[3:] for c in engine.take_counters()}, (total.read, total.written)


@pytest.mark.parametrize(
    ("kernel", "operation", "expected"),
    [
        ("contiguous", "ld.global", (4, 1, 32, 4, 4)),
        ("strided", "ld.global", (4, 1, 32, 8, 4)),
        ("strided", "st.global", (4, 1, 32, 32, 4)),
        ("broadcast", "ld.global", (4, 1, 32, 1, 1)),
        ("by_four", "ld.global", (16, 1, 32, 16, 16)),
        ("by_four", "st.global", (16, 1, 32, 16, 16)),
        ("off_by_one", "ld.global", (4, 1, 32, 5, 4)),
        ("half_of_the_warp", "ld.global", (4, 1, 16, 4, 2)),
        ("twice", "ld.global", (4, 2, 64, 8, 8)),
        ("ragged_loop", "st.global", (4, 4, 80, 10, 10)),
        ("transpose_32", "ld.shared", (4, 32, 1024, 1024, 32)),
        ("transpose_32", "st.shared", (4, 32, 1024, 32, 32)),
        ("transpose_33", "ld.shared", (4, 32, 1024, 32, 32)),
        ("vectors", "ld.shared", (16, 1, 32, 4, 4)),
        ("vectors_apart", "ld.shared", (16, 1, 32, 8, 4)),
        ("vectors_in_pairs", "ld.shared", (16, 1, 32, 2, 2)),
        ("matrices", "ldmatrix.shared", (16, 1, 32, 32, 4)),
        ("matrices_padded", "ldmatrix.shared", (16, 1, 32, 4, 4)),
        ("async", "cp.async.global", (16, 1, 32, 16, 16)),
        ("async", "cp.async.shared", (16, 1, 32, 4, 4)),
        ("async_of_half", "cp.async.global", (4, 2, 32, 8, 4)),
        ("counts", "atom.global", (4, 1, 32, 1, 1)),
    ],
)
def test_sectors_and_wavefronts(traffic, kernel, operation, expected):
    counters, _ = count(traffic, kernel)
    assert counters[operation] == expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("contiguous", (128, 128)),
        ("twice", (128, 128)),
        ("strided", (256, 1024)),
        ("by_four", (512, 512)),
        ("counts", (32, 32)),
    ],
)
def test_compulsory_traffic_counts_each_sector_once(traffic, kernel, expected):
    assert count(traffic, kernel)[1] == expected


def test_counters_add_up_over_blocks_and_launches_by_source_line(traffic):
    engine.take_counters(), engine.take_traffic()
    x, y = engine.empty(2048), engine.empty(2048)
    x[:] = 0
    for _ in range(3):
        traffic.launch("broadcast", 1, 64, x, y)
    line = next(i for i, text in enumerate((KERNELS / "traffic.cu").read_text().splitlines(), 1) if "x[7]" in text)
    where = f"traffic.cu:{line}"
    assert engine.take_counters() == [
        engine.Counter("broadcast", where, "ld.global", 4, 6, 192, 6, 6),
        engine.Counter("broadcast", where, "st.global", 4, 6, 192, 24, 24),
    ]
    assert engine.take_traffic() == [engine.Traffic("broadcast", 3, 96, 768)]
    assert engine.take_counters() == []


def test_the_report_marks_what_takes_more_than_it_needs():
    rows = [
        engine.Counter("k", "k.cu:7", "ld.global", 4, 10, 320, 50, 40),
        engine.Counter("k", "k.cu:8", "st.shared", 16, 10, 320, 40, 40),
    ]
    head, _, first, second = report.table(rows, [engine.Traffic("k", 2, 1280, 0)])
    assert head == "k: 2 launches; L2 1.6 kB read, 0.0 kB written; DRAM at least 1.3 kB read, 0.0 kB written"
    assert first.split() == ["k.cu:7", "ld.global", "4", "10", "32.0", "5.00", "4.00", "<-", "1.25", "x"]
    assert second.split() == ["k.cu:8", "st.shared", "16", "10", "32.0", "4.00", "4.00"]


def test_the_command_line_refuses_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("DLCORE_SIM", "checked")
    assert __main__.main(["report", "nonsense", "--shape", "3"]) == 1
    assert capsys.readouterr().err == "dlcore.sim: no op 'nonsense'; `python -m dlcore ops` lists them\n"


@pytest.mark.slow
@pytest.mark.sim
def test_the_command_line_reports_an_op():
    command = [sys.executable, "-m", "dlcore.sim", "report", "softmax", "--shape", "4x40", "--attr", "axis=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ld.global" in done.stdout
