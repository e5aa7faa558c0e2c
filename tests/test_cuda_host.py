"""The host's side of the cuda backend, in the emulator: refused values, CuPy's arrays, graphs, errors."""

import importlib
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from conftest import ON_GPU

import dlcore as dl
from dlcore import dispatch, doctor, nn, optim, settings, testing
from dlcore.backends.cuda import compiler, launch, libcuda, refusals, tune
from dlcore.errors import BackendError, IndexRangeError, KernelError
from dlcore.op import OPS
from dlcore.sim import build, engine

_C = pytest.importorskip("dlcore._C")
ROOT = Path(dl.__file__).parents[1]

pytestmark = pytest.mark.sim


@pytest.fixture
def launched():
    """Names of the kernels launched."""
    names = []
    launch.listeners.append(lambda kernel, *_: names.append(kernel))
    yield names
    launch.listeners.pop()


def tensor(values):
    return dl.tensor(values, device="sim")


# ---- values that kernels refuse

X, UPDATES, LABELS = np.ones((3, 4), np.float32), np.ones((2, 4), np.float32), [0, 4, 9]
REFUSED = {
    "take": (lambda: dl.take(tensor(X), tensor([0, 3])), "take: index 3 is out of range for axis 0 of size 3"),
    "embedding": (lambda: dl.embedding(tensor([1, -4]), tensor(X)), "embedding: index -4 .* axis 0 of size 3"),
    "along": (
        lambda: dl.take_along_axis(tensor(X), tensor([[1, 4]] * 3)), "take_along_axis: index 4 .* axis 1 of size 4"),
    "index_add": (lambda: dl.index_add(tensor(X), tensor([2, 5]), tensor(UPDATES)), "index_add: index 5 .* size 3"),
    "rows": (lambda: dl.scatter_add(tensor(X), tensor([[1, 7]] * 3), tensor(X[:, :2])), "scatter_add: index 7"),
    "elements": (
        lambda: dl.scatter_add(tensor(X), tensor([[1, 7, 1, 1]]), tensor(X[:1]), axis=0), "scatter_add: index 7"),
    "scatter": (lambda: dl.scatter(tensor(X), tensor([[1, 7]] * 3), tensor(X[:, :2])), "scatter: index 7"),
    "index": (lambda: tensor(X)[:, tensor([0, 4])], "getitem: index 4 is out of range for axis 1 of size 4"),
    "two of an index": (
        lambda: tensor(X)[tensor([0, -4]), ..., tensor([3, 2])], "getitem: index -4 is out of range for axis 0"),
    "one_hot": (lambda: dl.one_hot(tensor([2, -1]), 3), "one_hot: label -1 is out of range for 3 classes"),
    "labels": (lambda: dl.cross_entropy(tensor(X), tensor(LABELS)), "cross_entropy: label 4 .* for 4 classes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_out_of_range_is_raised_when_a_result_is_read(name):
    call, message = REFUSED[name]
    result = call()
    with pytest.raises(IndexRangeError, match=rf"{message}.* \(at position 1\)"):
        result.numpy()
    assert np.isfinite(result.numpy()).all()


def test_of_several_the_first_position_is_named():
    ids = np.full(3000, 9)
    ids[:1234] = 0
    result = dl.take(tensor(X), tensor(ids))
    with pytest.raises(IndexRangeError, match=r"index 9 .*at position 1234"):
        result.numpy()
    np.testing.assert_array_equal(result.numpy()[:, 0], ids == 0)


def test_waiting_for_the_device_raises_too_and_only_once():
    dl.take(tensor(X), tensor([5]))
    dl.take(tensor(X), tensor([0]))
    with pytest.raises(IndexRangeError):
        dispatch.get_backend("sim").synchronize()
    dispatch.get_backend("sim").synchronize()


@pytest.mark.parametrize(("index", "shown"), [(2**40, "2147483647 or more"), (-(2**40), "-2147483648 or less")])
def test_positions_beyond_32_bits_are_refused(index, shown):
    result = dl.take(tensor(X), tensor([index]))
    with pytest.raises(IndexRangeError, match=shown):
        result.numpy()


@pytest.fixture
def no_sites():
    """No op has a record yet: of two that refuse, the first to run is the first to be named."""
    driver = dispatch.get_backend("sim").driver
    driver.refusals.check()
    driver.refusals._sites.clear()


def test_a_gradient_skips_what_was_refused(no_sites):
    x = tensor(X).detach(requires_grad=True)
    dl.take(x, tensor([0, 3, -7])).sum().backward()
    with pytest.raises(IndexRangeError, match="take: index 3"):
        x.grad.numpy()
    np.testing.assert_array_equal(x.grad.numpy()[:, 0], [1, 0, 0])


@pytest.mark.parametrize(("row", "column"), [(3, 0), (0, 4)])
def test_a_gradient_of_an_index_skips_what_was_refused(row, column, no_sites):
    x = tensor(X).detach(requires_grad=True)
    x[tensor([0, row, 1]), tensor([0, column, 0])].sum().backward()
    with pytest.raises(IndexRangeError, match=f"getitem: index {row or column}"):
        x.grad.numpy()
    np.testing.assert_array_equal(x.grad.numpy(), [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


def test_an_op_without_such_a_kernel_checks_on_the_host():
    with pytest.raises(IndexRangeError, match="index_add: index 3"):
        dl.index_add(tensor(np.ones(3, np.int64)), tensor([3]), tensor([1]))


def test_more_sites_than_records_begin_again():
    found = refusals.Refusals(np.empty, lambda array: array)
    first = found.record("op", "index {} of {}", -1)
    for n in range(refusals.SITES):
        found.record("op", "index {} of {}", n)
    first[...] = 3 << 32 | 7
    with pytest.raises(IndexRangeError, match=rf"op: index 7 of {refusals.SITES - 1} \(at position 3\)"):
        found.check()


# ---- CuPy's place taken by a module over the emulator's driver library


def emulated(module, architecture=80):
    return f"SIMT:{build.kernel(compiler.folder() / f'{module}.cu')}".encode()


def cuda_over_emulator(monkeypatch, folder):
    """The cuda backend, its code as on a GPU, with `fake_cupy` for CuPy and the emulator for libcuda."""
    monkeypatch.setattr(compiler, "FATBINS", folder)
    monkeypatch.setattr(compiler, "image", emulated)
    monkeypatch.setenv("DLCORE_LIBCUDA", str(build.driver()))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setattr(dispatch, "_backends", dict(dispatch._backends))
    sys.modules.pop("dlcore.backends.cuda.device", None)
    settings.get.cache_clear()


@pytest.fixture
def cuda(monkeypatch, tmp_path):
    if ON_GPU:
        pytest.skip("needs the emulator")
    cuda_over_emulator(monkeypatch, tmp_path)
    yield dispatch.get_backend("cuda")
    sys.modules.pop("dlcore.backends.cuda.device", None)
    monkeypatch.undo()
    settings.get.cache_clear()


def device_module():
    return importlib.import_module("dlcore.backends.cuda.device")


def losses(device):
    """Of three steps of a small classifier."""
    with dl.device(device):
        dl.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Dropout(0.1), nn.Linear(20, 5))
        step = optim.AdamW(model.parameters(), lr=1e-2)
        rng, found = np.random.default_rng(0), []
        for _ in range(3):
            x, y = rng.normal(size=(33, 12)).astype(np.float32), rng.integers(0, 5, 33)
            loss = nn.cross_entropy(model(dl.tensor(x)), dl.tensor(y))
            loss.backward()
            step.step()
            step.zero_grad()
            found.append(loss.item())
        return found


def test_training_over_cupy_is_that_of_the_emulator(cuda):
    assert losses("cuda") == losses("sim")


@pytest.mark.parametrize("name", OPS)
def test_every_op_runs_on_arrays_of_cupy(name, cuda):
    op = OPS[name]
    s = testing.samples(op)[0]
    found, expected = (testing.call(op, testing.arrays(op, s), s.attrs, device)[0] for device in ("cuda", "sim"))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("name", OPS)
def test_references_run_over_cupy(name, cuda):
    op = OPS[name]
    s = testing.samples(op)[0]
    operands = [np.asarray(x) if isinstance(x, np.generic) else x for x in testing.arrays(op, s, "float16")]
    placed = [cuda.asarray(x) if isinstance(x, np.ndarray) else x for x in operands]
    expected = dispatch.get_backend("numpy").reference(op)(*operands, **op.attrs | dict(s.attrs))
    found = cuda.reference(op)(*placed, **op.attrs | dict(s.attrs))
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True):
        np.testing.assert_array_equal(cuda.to_numpy(cuda.cast(a, np.dtype(np.float32))), np.asarray(b, np.float32))


def test_scalars_and_arrays_are_placed_and_cast(cuda):
    x = cuda.asarray(np.arange(3))
    assert cuda.asarray(x).data.ptr == x.data.ptr != cuda.asarray(x, copy=True).data.ptr
    assert cuda.to_numpy(cuda.cast(x, dl.float32)).dtype == np.float32
    assert type(cuda.operand(np.float32(2))) is cuda.array_type
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)


def test_doctor_shows_the_device_and_its_launcher(cuda):
    (line,) = [line for line in doctor.report("cuda") if "multiprocessors" in line]
    assert line.startswith("  8 multiprocessors [device sm_80, kernels built for sm_80, sm_86")
    assert line.endswith("; launches through C++")


def test_auto_takes_a_gpu(cuda):
    assert dispatch.get_backend("auto") is cuda


def test_without_the_extension_kernels_are_launched_from_python(cuda, monkeypatch):
    expected = losses("sim")
    monkeypatch.delattr(dl, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "dlcore._C", None)
    backend = device_module().load()
    assert type(backend.driver.native) is libcuda.Driver
    monkeypatch.setitem(dispatch._backends, "cuda", backend)
    assert losses("cuda") == expected


@pytest.mark.parametrize("native", ["_C", "libcuda"])
def test_both_launchers_know_the_device_and_refuse_wrong_arguments(cuda, native):
    path = settings.get("LIBCUDA")
    driver = _C.Driver(path) if native == "_C" else libcuda.Driver(path)
    module = driver.load(cuda.driver.image("elementwise"))
    kernel = driver.function(module, "elementwise_negative_f32")
    kernel.set_attribute(8, 64 * 1024)
    assert (driver.attribute(16), kernel.attribute(8)) == (8, 64 * 1024)
    assert kernel.blocks_per_multiprocessor(256, 0) == 8
    with pytest.raises(TypeError, match="takes 3 arguments; got 1"):
        kernel.launch((1,), (256,), 0, 0, False, None, None)
    with pytest.raises(TypeError, match="argument 2"):
        kernel.launch((1,), (256,), 0, 0, False, None, None, None, b"")
    with pytest.raises(RuntimeError, match=r"2048 threads.*CUDA error 1"):
        kernel.launch((1,), (2048,), 0, 0, False, None, None, None, bytes(112))
    with pytest.raises(RuntimeError, match="no kernel absent"):
        driver.function(module, "absent")


def test_a_thread_without_a_context_gets_one():
    found = []
    thread = threading.Thread(target=lambda: found.append((tensor([1.0]) + 1).item()))
    thread.start()
    thread.join()
    assert found == [2]


# ---- CUDA graphs


@pytest.mark.parametrize("name", ["sim", "cuda"])
def test_a_graph_repeats_launches_on_the_values_of_the_day(name, cuda):
    driver = dispatch.get_backend(name).driver
    x = dl.tensor([1.0, 2.0], device=name)
    (x * 3 + 1).numpy()  # loads the kernels
    with driver.capture() as graph:
        y = x * 3 + 1
    for value in (5, 7):
        x.assign(dl.full(2, float(value), device=name))
        graph.replay()
        assert y.tolist() == [3 * value + 1] * 2


def test_a_graph_raises_what_its_kernels_refuse():
    driver, ids = dispatch.get_backend("sim").driver, tensor([0, 1])
    dl.take(tensor(X), ids).numpy()
    x = tensor(X)
    with driver.capture() as graph:
        y = dl.take(x, ids)
    driver.synchronize()
    ids.assign(tensor([0, 8]))
    graph.replay()
    with pytest.raises(IndexRangeError, match="take: index 8"):
        y.numpy()


def test_waiting_inside_a_capture_fails_and_leaves_everything_usable():
    backend = dispatch.get_backend("sim")
    with pytest.raises(KernelError, match="capturing"), backend.driver.capture() as graph:
        backend.synchronize()
    with pytest.raises(KernelError, match="recorded nothing"):
        graph.replay()
    assert (tensor([1.0]) + 1).item() == 2


@pytest.mark.emulator
def test_graphs_and_streams_are_freed():
    before = engine.live()
    with dispatch.get_backend("sim").driver.capture() as graph:
        pass
    assert engine.live() == before + 1
    del graph
    assert engine.live() == before


# ---- errors


def test_a_binary_for_other_devices_is_named_with_the_device(cuda, monkeypatch):
    monkeypatch.setattr(compiler, "image", lambda module, architecture: b"SASS:sm_86")
    expected = r"scan_x of scan.cu cannot be loaded: .*no kernel image.*209\) \[device sm_80, kernels built for sm_80, "
    with pytest.raises(KernelError, match=expected):
        cuda.driver.function("scan", "scan_x")


def test_a_refused_launch_is_named_with_grid_device_and_binaries(cuda):
    x = dl.tensor([1.0], device="cuda")._array
    expected = r"elementwise_negative_f32<<<\(1,\), \(2048,\), 0>>>: .*2048 threads.* \[device sm_80, kernels built for"
    with pytest.raises(KernelError, match=expected):
        launch.launch("elementwise.elementwise_negative_f32", (1,), (2048,), x, x, bytes(112), like=x)


def test_debug_names_the_kernel_that_fails_while_it_runs(monkeypatch):
    def fail():
        raise RuntimeError("an illegal memory access was encountered (CUDA error 700)")

    x = tensor([1.0])
    (x + x).numpy()  # loads the kernel
    monkeypatch.setattr(dispatch.get_backend("sim").driver, "native", types.SimpleNamespace(synchronize=fail))
    x + x
    monkeypatch.setattr(settings, "get", lambda name: name == "DEBUG")
    with pytest.raises(KernelError, match=r"elementwise_add_f32<<<\(1,\), \(256,\), 0>>>: an illegal memory access"):
        x + x


@pytest.mark.parametrize(
    ("architecture", "covered"),
    [
        (75, False),
        (80, True),
        (87, True),
        (89, True),
        (90, True),
        (103, True),
        (110, False),
        (120, True),
        (121, True),
        (130, False),
    ],
)
def test_devices_that_the_fat_binaries_run_on(architecture, covered):
    assert compiler.covers(architecture) == covered


def test_code_for_a_newer_device_of_the_family_does_not_run(monkeypatch):
    monkeypatch.setattr(compiler, "ARCHITECTURES", (86, 90))
    assert not compiler.covers(80)


def test_another_device_compiles_for_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "FATBINS", tmp_path)
    assert compiler.built_for(75) == "compiled by NVRTC for sm_75"


# ---- what is missing

NO_GPU = """
__version__ = "14.2.0"
class CUDARuntimeError(RuntimeError): pass
def getDeviceCount(): raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
class cuda:
    class runtime: CUDARuntimeError = CUDARuntimeError; getDeviceCount = getDeviceCount
"""
MISSING = {
    "no GPU": (
        NO_GPU,
        "CuPy is installed but finds no usable GPU (cudaErrorNoDevice: no CUDA-capable device is detected)",
    ),
    "old": ("__version__ = '13.6.0'", "needs CuPy 14 or newer; this is 13.6.0"),
    "broken": (
        "raise ImportError('libcudart.so: not found\\nRead more')",
        "cannot be imported (libcudart.so: not found)",
    ),
    "absent": ("raise ModuleNotFoundError(name='cupy')", "needs CuPy and an NVIDIA GPU: pip install 'dlcore[cuda]'"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_gpu_that_cannot_be_used_leaves_auto_working_and_is_explained_in_one_line(name, tmp_path):
    text, expected = MISSING[name]
    (tmp_path / "cupy.py").write_text(text)
    code = "import dlcore as dl; assert dl.ones(2).tolist() == [1, 1]; dl.ones(2, device='cuda')"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "DLCORE_BACKEND": "auto"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dlcore.errors.BackendError: backend cuda")
    assert expected in last


def test_a_missing_driver_library_is_explained(cuda, monkeypatch):
    monkeypatch.setenv("DLCORE_LIBCUDA", "libabsent.so")
    settings.get.cache_clear()
    dispatch._backends.pop("cuda")
    with pytest.raises(BackendError, match=r"backend cuda: libabsent.so: cannot open"):
        dispatch.get_backend("cuda")


# ---- choices by measurement


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """A table of times by number of splits, and how often one was looked up; nothing is on disk yet."""
    times, asked = {}, []

    def milliseconds(driver, run):
        (choice,) = run.args
        asked.append(choice.splits)
        run()
        return times.get(choice.splits, 9.0)

    dispatch.get_backend("sim")
    monkeypatch.setattr(tune, "milliseconds", milliseconds)
    monkeypatch.setattr(tune, "_path", lambda driver, module: tmp_path / f"{module}.json")
    monkeypatch.setenv("DLCORE_AUTOTUNE", "1")
    settings.get.cache_clear()
    yield times, asked
    monkeypatch.undo()
    tune._table.cache_clear()
    settings.get.cache_clear()


def product():
    a, b = np.arange(40 * 300).reshape(40, 300) % 7, np.arange(300 * 40).reshape(300, 40) % 5
    found = tensor(a.astype(np.float32)) @ tensor(b.astype(np.float32))
    np.testing.assert_array_equal(found.numpy(), a @ b)


@pytest.mark.emulator
def test_the_quickest_of_a_few_is_taken_and_kept(tuned, launched, tmp_path):
    times, asked = tuned
    times[3] = 1.0
    product()
    assert 1 < len(asked) <= tune.FEW
    assert 3 in asked
    assert [name for name in launched if name == "gemm.gemm_reduce_f32"]
    tune._table.cache_clear()  # as in another process
    product()
    assert len(asked) <= tune.FEW
    assert json.loads((tmp_path / "gemm.json").read_text()) == {"gemm.gemm_nn_f32 40x40x300x1x4": ["64", 3, 104]}


@pytest.mark.emulator
def test_events_time_the_device():
    x = tensor(np.ones(1000, np.float32))
    (x + x).numpy()  # loads the kernel
    before, spent = engine.live(), tune.milliseconds(dispatch.get_backend("sim").driver, lambda: x + x)
    assert 0 < spent < 1000
    assert engine.live() == before


@pytest.mark.emulator
def test_what_was_measured_is_kept_by_device_and_kernel():
    assert tune._path(dispatch.get_backend("sim").driver, "gemm").name.startswith("SIMT-emulator-on-the-CPU-gemm-")


# ---- captured steps as graphs


def trained(device, captured, build, steps=5):
    """Losses of some steps, the parameters after them, and the step."""
    with dl.device(device):
        dl.manual_seed(0)
        model = build()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)

        def step(x, y):
            loss = nn.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        run, rng = dl.capture(step) if captured else step, np.random.default_rng(0)
        batches = [(rng.normal(size=(6, 1, 8, 8)).astype(np.float32), rng.integers(0, 5, 6)) for _ in range(steps)]
        losses = [run(dl.tensor(x), dl.tensor(y)) for x, y in batches]
        return [x.item() for x in losses], [p.numpy() for p in model.state_dict().values()], run


def classifier():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.GELU(), nn.Dropout(0.1), nn.Linear(20, 5))


def convolutional():
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(36, 5))


class Sequences(nn.Module):
    """Rows of an image, one after the other."""

    def __init__(self):
        super().__init__()
        self.lstm, self.norm, self.attention = nn.LSTM(8, 12), nn.LayerNorm(12), nn.MultiheadAttention(12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        h = self.norm(self.lstm(x.reshape(-1, 8, 8))[0])
        return self.head((h + self.attention(h, h, h)).mean(1))


def graphs_of(run):
    return [line.call for line in run.programs[0].lines if line.name.startswith("graph of")]


@pytest.mark.parametrize("build", [classifier, convolutional, Sequences])
def test_a_captured_step_is_graphs_between_what_the_host_does(build, cuda):
    losses, parameters, _ = trained("cuda", False, build)
    found, other, run = trained("cuda", True, build)
    assert found == losses
    for a, b in zip(parameters, other, strict=True):
        np.testing.assert_array_equal(a, b)
    graphs = graphs_of(run)
    assert graphs
    assert all(g.graph is not None and g.recordings == 1 for g in graphs)


def test_a_replay_of_a_graph_launches_nothing_itself(cuda, launched):
    w = dl.ones(3, device="cuda")
    f = dl.capture(lambda x: (x * w + 1) * x)
    for k in range(4):
        before = len(launched)
        assert f(dl.full(3, k, dtype="float32", device="cuda")).tolist() == [(k + 1) * k] * 3
    assert len(launched) == before


def test_results_of_a_graph_are_not_overwritten_by_the_next_replay(cuda):
    f = dl.capture(lambda x: (x * 2, (x * 2 + 1).reshape(3, 1)))
    found = [f(dl.full(3, k, dtype="float32", device="cuda")) for k in range(4)]
    assert [[y.tolist()[0], z.tolist()[0]] for y, z in found] == [[2 * k, [2 * k + 1]] for k in range(4)]


@pytest.mark.parametrize("clipped", [False, True])
def test_gradients_that_are_kept_are_not_overwritten_by_the_next_replay(clipped, cuda):
    w = dl.tensor([1.0] * 3, device="cuda", requires_grad=True)
    optimizer = optim.SGD([w])

    @dl.capture
    def step(x):
        optimizer.zero_grad()
        (w * x * x).sum().backward()
        if clipped:
            optim.clip_grad_norm([w], 1e6)

    kept = []
    for k in range(5):
        step(dl.full(3, k, dtype="float32", device="cuda"))
        kept.append(w.grad)
    assert [g.tolist() for g in kept] == [[k * k] * 3 for k in range(5)]
    assert all(graph.graph for graph in graphs_of(step))
    assert len(step.programs) == 1


def test_a_graph_is_recorded_anew_for_parameters_that_lie_elsewhere(cuda):
    w, x = dl.ones(3, device="cuda"), dl.ones(3, device="cuda")
    f = dl.capture(lambda: (x * w + 1) * w)
    for k in range(5):
        w._array = dl.full(3, k, dtype="float32", device="cuda")._array
        assert f().tolist() == [(k + 1) * k] * 3
    (graph,) = graphs_of(f)
    assert graph.recordings == 1


def test_what_makes_no_graph_goes_launch_by_launch_and_says_so(cuda):
    f = dl.capture(lambda x: (x * 2 + 1) * x)
    columns = [dl.full((2, 3), k, dtype="float32", device="cuda").T for k in range(4)]
    assert [f(x).tolist()[2] for x in columns[:2]] == [[0.0] * 2, [3.0] * 2]
    with pytest.warns(UserWarning, match="no CUDA graph: .* not contiguous"):
        assert f(columns[2]).tolist()[2] == [10.0] * 2
    assert f(columns[3]).tolist()[2] == [21.0] * 2


# ---- reshape


SHAPES = [(12, 5), (3, 20), (2, 6, 5), (60,), (3, 1, 2, 2, 5), (-1, 4), (15, -1), (3, 5, 2, 2), (5, 2, 6)]


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_reshape_copies_by_a_kernel_where_numpy_would_copy(axes, shape, launched):
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    y = tensor(x).permute(*axes).reshape(*shape)
    expected = x.transpose(axes).reshape(shape)
    np.testing.assert_array_equal(y.numpy(), expected)
    assert bool(launched) is not np.shares_memory(expected, x)
