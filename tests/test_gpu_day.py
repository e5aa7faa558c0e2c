"""`make gpu` rehearsed: its report tells what passed, failed, crashed and hung, and no emulated time is a GPU time."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import placed
from test_data_sources import idx

import dlcore as dl
from benchmarks import harness
from benchmarks.gpu import kernel, packages, report
from benchmarks.gpu.driver import Driver
from benchmarks.gpu.operands import Operands, exact, on_host
from benchmarks.gpu.peers import peers
from benchmarks.gpu.section import Section, execute
from benchmarks.gpu.sections import sections
from benchmarks.static.families import families
from dlcore import dispatch

ROOT = Path(__file__).parents[1]


# ---- sections


def python(code, limit=60.0):
    return Section("a section", (sys.executable, "-c", code), limit)


@pytest.mark.parametrize(
    ("code", "state", "line"),
    [
        ("print('done')", "passed", "done"),
        ("print('x\\n' * 99); 1 / 0", "failed: exit status 1", "ZeroDivisionError: division by zero"),
        ("import os; print('so far', flush=True); os.abort()", "failed: SIGABRT", "so far"),
    ],
)
def test_how_a_section_went(code, state, line, tmp_path):
    outcome = execute(python(code), tmp_path)
    assert (outcome.state, outcome.lines) == (state, [line])


def test_a_section_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(100)'])"
    start = time.monotonic()
    assert execute(python(child, limit=0.5), tmp_path).state == "failed: not done in 0 s"
    assert time.monotonic() - start < 10


def test_a_command_that_is_not_there_is_a_failure(tmp_path):
    assert execute(Section("s", ("no-such-program",), 1.0), tmp_path).state.startswith("failed: [Errno 2]")


def test_a_section_without_its_tool_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (section,) = (s for s in sections(tmp_path, rehearsal=False) if s.name == "racecheck")
    outcome = execute(section, tmp_path)
    assert (outcome.state, outcome.failed) == ("left out", False)
    assert "compute-sanitizer is not installed" in outcome.lines[0]


def test_failed_tests_are_read_from_what_pytest_writes(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="t" name="good"/><testcase classname="t" name="bad">'
        '<failure message="AssertionError: 1&#10;more">...</failure></testcase></testsuite></testsuites>'
    )
    assert report.failed_tests(tmp_path / "tests.xml") == {"t::bad": "AssertionError: 1"}


@pytest.mark.parametrize(
    ("said", "package"),
    [
        ("| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0  |", "cupy-cuda13x[ctk]"),
        ("CUDA Version                          : 12.4", "cupy-cuda12x[ctk]"),
        ("CUDA Version: 14.1", "cupy-cuda13x[ctk]"),
    ],
)
def test_cupy_is_chosen_by_the_driver(said, package):
    assert packages.cupy_package(said) == package


@pytest.mark.parametrize("said", ["CUDA Version: 11.8", "NVIDIA-SMI has failed because it couldn't communicate"])
def test_a_driver_that_is_too_old_is_told(said):
    with pytest.raises(LookupError, match="CuPy needs a driver for CUDA 12 or newer"):
        packages.cupy_package(said)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_without_a_gpu_one_line_names_the_rehearsal():
    done = subprocess.run(["make", "--no-print-directory", "gpu", "ARGS="], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == "There is no NVIDIA GPU here (no nvidia-smi). The rehearsal: make gpu ARGS=--rehearse\n"


# ---- tests on a GPU


@pytest.mark.slow
def test_a_test_that_hangs_or_breaks_the_device_costs_no_other_test(tmp_path):
    (tmp_path / "conftest.py").write_text("from benchmarks.gpu import isolate\nisolate.LIMIT = 1\n")
    (tmp_path / "test_some.py").write_text(
        "import time\nfrom dlcore.dispatch import default_backend\n"
        "def test_hangs(): time.sleep(100)\n"
        "def test_breaks():\n"
        "    def synchronize(): raise RuntimeError('an illegal memory access')\n"
        "    default_backend().synchronize = synchronize\n"
        "def test_good(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "benchmarks.gpu.isolate", "-n1", "--max-worker-restart=9"]
    environment = os.environ | {"DLCORE_BACKEND": "numpy", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, tmp_path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "crashed while running 'test_some.py::test_hangs'" in done.stdout
    assert "crashed while running 'test_some.py::test_breaks'" in done.stdout
    assert "2 failed, 2 passed" in done.stdout


@pytest.mark.parametrize("view", [lambda x: x[2:, 1:5], lambda x: x.T[::-1, ::2], lambda x: x[3:4, 3]])
def test_arrays_keep_their_strides_and_surroundings_on_a_device(view, monkeypatch):
    memory = []

    def asarray(x):
        memory.append(x.copy())
        return SimpleNamespace(data=0)  # the device's memory begins at 0

    def array(shape, dtype, start, strides):
        return np.ndarray(shape, dtype, memory[-1], start, strides)

    monkeypatch.setitem(dispatch._backends, "sim", SimpleNamespace(asarray=asarray, array_type=array))
    x = view(np.arange(42.0).reshape(6, 7))
    found = placed(x)
    np.testing.assert_array_equal(found, x)
    assert found.strides == x.strides
    assert memory[-1].nbytes == 42 * 8


# ---- a family


@pytest.fixture
def sim():
    try:
        return dispatch.get_backend("sim")
    except dispatch.BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def family(sim):
    before = dispatch._process_default[:]
    dl.set_device("sim")
    yield next(f for f in families() if f.kernel == "softmax_warp_f32")
    dispatch._process_default[:] = before


@pytest.mark.sim
def test_what_the_driver_says_of_its_device(sim):
    driver = Driver(sim)
    assert (driver.name, driver.version, driver.memory) == ("SIMT emulator on the CPU", "13.0", 16 * 2**30)
    assert 0.01 < driver.seconds(lambda: time.sleep(0.01), 2) < 1


@pytest.mark.sim
def test_a_wrong_result_is_not_timed(family, monkeypatch):
    monkeypatch.setattr(harness, "measure", None)
    wrong = family._replace(exact=lambda new, n: dl.softmax(new(n, 512), axis=-1) + 1e-3)
    with pytest.raises(harness.WrongResultError, match=r"softmax_warp_f32: error .* against float64"):
        kernel.measured(wrong, 64)


def test_an_empty_result_has_no_error():
    empty, right, wrong = np.empty((0, 3)), np.array([2.0]), np.array([1.0])
    assert harness.relative_error([empty, wrong], [empty, right]) == 0.5


@pytest.mark.sim
def test_a_library_that_cannot_is_told_and_costs_nothing(family, monkeypatch):
    def broken():
        raise TypeError("no such dtype\nmore")

    others = {"broken": broken, "wrong": lambda: lambda: [np.ones((64, 512))]}
    monkeypatch.setattr(kernel, "peers", lambda *_: others)
    row = kernel.measured(family, 64)
    assert [p.time for p in row.peers] == [None, None]
    assert row.peers[0].why == "TypeError: no such dtype"
    assert row.peers[1].why.startswith("error 3.1e+02 against float64")
    assert row.launched == ["softmax_warp_f32"]
    assert row.time.median > 0


SIZES = {"gemm": 32, "conv": 1, "lstm": 7}  # of the shortest call, otherwise 64


@pytest.mark.torch
@pytest.mark.parametrize("family", families(), ids=lambda f: f.kernel)
def test_other_libraries_compute_the_same(family):
    new, size = Operands("numpy"), SIZES.get(family.kernel.split("_")[0], 64)
    result = on_host(new.run(family.exact or family.call, size), "numpy")[0]
    ours = kernel.Check(exact(family, new, size), 0.0, kernel.tolerance(family, new, size, result), 0)
    for name, prepare in peers(family, new).items():
        peer, run = kernel.ready(name, prepare, ours)
        assert run, peer.why


# ---- all of it


@pytest.fixture
def pictures(tmp_path):
    """Fashion-MNIST's four files with a few pictures of noise."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for part, size in (("train", 16), ("t10k", 40)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(256, size=(size, 28, 28)).astype(np.uint8)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(rng.integers(10, size=size).astype(np.uint8)))
    return folder


@pytest.mark.sim
def test_the_rehearsal(sim, pictures, tmp_path):
    out = tmp_path / "gpu"
    only = "environment,compile,tests,memcheck,kernel softmax_warp_f32,overhead,demo"
    command = [sys.executable, "-m", "benchmarks", "gpu", "--rehearse", "--faults", "--only", only, "--out", out]
    environment = os.environ | {"DLCORE_DATA": str(pictures)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = json.loads((out / "report.json").read_text())
    states = {s["name"]: s["state"] for s in found["sections"]}
    wrong = {"fail": "failed: exit status 1", "crash": "failed: SIGABRT", "hang": "failed: not done in 3 s"}
    assert states == dict.fromkeys(only.split(","), "passed") | wrong
    assert [row["kernel"] for row in found["kernels"]] == ["softmax_warp_f32"]
    text = (out / "report.md").read_text()
    assert "RuntimeError: failed on purpose" in text
    assert "SIMT emulator on the CPU: compute capability 8.0, 8 multiprocessors at 1.00 GHz, 128 GB/s" in text
    assert text.count("emulated, not a GPU time") >= 3
    (row,) = (line for line in text.splitlines() if line.startswith("| softmax_warp_f32"))
    assert row.split("|")[4:6] == [" - ", " - "]
    assert (out / "roofline.png").stat().st_size > 10_000
