"""Backends, variants, devices and listeners."""

import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch, dtypes, settings
from dlcore.debug import check_outputs
from dlcore.dispatch import Call, get_backend, implement, listening, variants
from dlcore.errors import ArgumentError, BackendError, DeviceError, KernelError
from dlcore.op import OPS
from dlcore.profile import profile


@pytest.fixture
def setting(monkeypatch):
    def put(name: str, value: str) -> None:
        monkeypatch.setenv(settings.PREFIX + name, value)
        settings.get.cache_clear()
        get_backend("numpy").plans.clear()

    yield put
    monkeypatch.undo()
    settings.get.cache_clear()
    get_backend("numpy").plans.clear()


@pytest.fixture
def fast_tanh():
    """A variant of tanh on numpy that takes only vectors."""

    def only_vectors(call: Call) -> str | None:
        return None if len(call.shapes[0]) == 1 else "takes only vectors"

    implement("tanh", "numpy", "fast", only_vectors)(lambda x: np.tanh(x) + 1)
    get_backend("numpy").plans.clear()
    yield
    variants("tanh", "numpy").pop(0)
    get_backend("numpy").plans.clear()


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(BackendError, match="unknown backend 'tpu'; expected one of auto, cuda, cpu, numpy, sim"):
        dl.zeros(2, device="tpu")


def test_a_missing_gpu_is_named():
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"^backend cuda"):
        get_backend("cuda")


def test_the_emulator_needs_a_compiler(tmp_path):
    pytest.importorskip("dlcore._C")
    bare = {"PATH": str(tmp_path), "DLCORE_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    doctor = [sys.executable, "-m", "dlcore", "doctor", "--device", "sim"]
    found = subprocess.run(doctor, env=bare, capture_output=True, text=True)
    assert found.returncode == 1
    assert re.match(r"dlcore: .*compiler", found.stderr), found.stderr


def test_device_block_switches_and_restores():
    before = dl.zeros(1).device
    with dl.device("numpy"):
        assert dl.zeros(1).device == "numpy"
    assert dl.zeros(1).device == before


def test_device_block_leaves_other_threads_alone():
    found = []
    with dl.device("numpy"):
        thread = threading.Thread(target=lambda: found.append(dl.zeros(1).device))
        thread.start()
        thread.join()
    assert found == [dl.zeros(1).device]


def test_an_op_follows_its_operands(device):
    with dl.device("numpy"):
        assert (dl.ones(2, device=device) + 1).device == device


def test_mixed_devices_are_refused():
    pytest.importorskip("dlcore._C")
    with pytest.raises(DeviceError, match=r"^add: operands live on different devices \(cpu, numpy\); move them with"):
        dl.ones(2, device="cpu") + dl.ones(2, device="numpy")


def test_a_variant_runs_where_it_does_not_refuse(fast_tanh):
    x = dl.zeros(3, device="numpy")
    assert OPS["tanh"](x).tolist() == [1, 1, 1]
    assert OPS["tanh"](x.reshape(1, 3)).tolist() == [[0, 0, 0]]


def test_forced_reference(fast_tanh, setting):
    setting("VARIANT", "tanh=reference")
    assert OPS["tanh"](dl.zeros(1, device="numpy")).tolist() == [0]


def test_forced_variant_that_refuses_raises(fast_tanh, setting):
    setting("VARIANT", "tanh=fast")
    with pytest.raises(BackendError, match=r"^tanh: variant 'fast' .*takes only vectors"):
        OPS["tanh"](dl.zeros((1, 1), device="numpy"))


def test_strict_refuses_the_reference_fallback(setting):
    pytest.importorskip("dlcore._C")
    setting("STRICT", "1")
    get_backend("cpu").plans.clear()
    with pytest.raises(BackendError, match=r"^matmul: no native kernel on cpu \(native: no kernel for int64\)"):
        dl.ones((2, 2), "int64", "cpu") @ dl.ones((2, 2), "int64", "cpu")


def test_listener_sees_each_op_once(device):
    events = []
    with listening(events.append):
        dl.ones((2, 3), device=device) @ dl.ones((3, 4), device=device)
    assert [e.op.name for e in events] == ["matmul"]
    assert events[0].outputs[0].shape == (2, 4)
    dl.ones(1, device=device) + 1
    assert len(events) == 1


def test_profile_counts_flops_and_bytes(device):
    with profile() as p:
        dl.ones((2, 3), device=device) @ dl.ones((3, 4), device=device)
    (row,) = p.rows.values()
    assert (row.calls, row.flops, row.nbytes) == (1, 2 * 2 * 3 * 4, 4 * (6 + 12 + 8))
    assert "matmul" in str(p)


def test_debug_traps_a_nan_from_nowhere():
    with (
        listening(check_outputs),
        pytest.raises(ArgumentError, match=r"^log \(reference on numpy\): NaN in the output"),
    ):
        OPS["log"](dl.tensor([-1.0], device="numpy"))


def test_debug_lets_a_nan_pass_through():
    with listening(check_outputs):
        OPS["exp"](dl.tensor([float("nan")], device="numpy"))


def test_debug_traps_a_kernel_with_the_wrong_dtype():
    implement("exp", "numpy", "wrong")(lambda x: x.astype(np.float64))
    get_backend("numpy").plans.clear()
    with listening(check_outputs), pytest.raises(KernelError, match=r"^exp \(wrong on numpy\): returned float64"):
        OPS["exp"](dl.ones(2, device="numpy"))
    variants("exp", "numpy").pop(0)
    get_backend("numpy").plans.clear()


@pytest.fixture
def seen():
    """Types of the operands of every call of `add`, by a variant that takes numbers."""
    kinds = []

    def add(a, b):
        kinds.append((type(a), type(b)))
        return np.add(a, b)

    implement("add", "numpy", "numbers", numbers=True)(add)
    get_backend("numpy").plans.clear()
    yield kinds
    variants("add", "numpy").pop(0)
    get_backend("numpy").plans.clear()


@pytest.mark.parametrize(
    ("operands", "expected"),
    [
        ((np.ones(2, np.float32), 2.5), (np.ndarray, float)),
        ((2.5, np.ones(2, np.float32)), (float, np.ndarray)),
        ((np.ones(2, np.float32), 2), (np.ndarray, np.ndarray)),
        ((1.5, 2.5), (np.ndarray, np.ndarray)),
    ],
    ids=["second", "first", "int", "no array"],
)
def test_only_floats_beside_an_array_arrive_as_numbers(seen, operands, expected):
    with dl.device("numpy"):
        dl.add(*[dl.asarray(x) if isinstance(x, np.ndarray) else x for x in operands])
    assert seen == [expected]


def test_plans_do_not_grow_without_bound(monkeypatch):
    backend = get_backend("numpy")
    backend.plans.clear()
    monkeypatch.setattr(dispatch, "MAX_PLANS", 10)
    for n in range(40):
        dl.zeros(n, device="numpy") + 1
    assert len(backend.plans) <= 11


@pytest.mark.parametrize(("dtype", "wide"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_wide_operands_do_not_promote_the_others(dtype, wide):
    logits, lse = np.zeros((2, 3), dtypes.dtype(dtype)), np.zeros(2, np.float64)
    promoted, casts = dispatch.promotion(OPS["cross_entropy_grad"], [None, lse, logits, lse, np.zeros(2, np.int64)])
    assert promoted == dtypes.dtype(dtype)
    assert dict(casts) == ({} if wide == "float64" else {1: dtypes.float32, 3: dtypes.float32})
