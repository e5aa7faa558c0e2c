"""Which backends a test runs on, and with which instruction sets and threads."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dlcore import dispatch, settings
from dlcore.backends.cuda.launch import listeners
from dlcore.errors import BackendError


def missing(backend: str) -> str | None:
    try:
        dispatch.get_backend(backend)
    except (BackendError, ModuleNotFoundError) as error:
        return str(error)
    return None


ON_GPU = settings.get("BACKEND") == "cuda"
if ON_GPU:  # the kernels' own tests say `sim`; so they run on the GPU
    dispatch._backends["sim"] = dispatch.get_backend("cuda")
BACKENDS = ["numpy", "cpu", pytest.param("sim", marks=pytest.mark.sim), *([] if missing("cuda") else ["cuda"])]


def placed(array: np.ndarray) -> object:
    """An array as the kernels' backend has it, with its strides and what lies around it in memory."""
    backend = dispatch.get_backend("sim")
    if backend.array_type is np.ndarray:
        return array
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    start = backend.asarray(whole.ravel("K").view(np.uint8)).data + (array.ctypes.data - whole.ctypes.data)
    return backend.array_type(array.shape, array.dtype, start, array.strides)


def beginning(values, offset):
    """The same array, beginning `offset` elements after a multiple of 16 bytes."""
    memory = np.empty(values.nbytes + 16 + 16 * values.itemsize, np.uint8)
    start = -memory.ctypes.data % 16 + offset * values.itemsize
    array = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    array[...] = values
    return array


def on_host(array: object) -> np.ndarray:
    """The values of an array of the kernels' backend."""
    return dispatch.get_backend("sim").to_numpy(array)


# ---- which CUDA kernels the tests launched; `--every-kernel` fails a run that left one out

_launched: set[str] = set()
listeners.append(lambda kernel, *_: _launched.add(kernel))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-kernel", action="store_true", help="fail if a kernel of kernels/*.cu was never launched")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    _launched.update(getattr(node, "workeroutput", {}).get("launched", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["launched"] = sorted(_launched)
    elif session.config.getoption("--every-kernel"):
        absent = sorted(every_kernel() - _launched)
        print(f"\n{len(_launched)} CUDA kernels launched, {len(absent)} not", *absent, sep="\n  ")
        session.exitstatus = session.exitstatus or (pytest.ExitCode.TESTS_FAILED if absent else 0)


def every_kernel() -> set[str]:
    """Names, as `launch` takes them, of all kernels in kernels/*.cu."""
    from dlcore.backends.cuda import compiler
    from dlcore.sim import build, engine

    names = set()
    for module in compiler.modules():
        image = engine.Image(build.kernel(compiler.folder() / f"{module}.cu"))
        names |= {f"{module}.{name}" for name in image.names()}
        image.close()
    return names


def isas() -> list[str]:
    """Instruction sets that the native extension has for this machine."""
    try:
        from dlcore import _C
    except ImportError:
        return []
    return _C.available_isas()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", BACKENDS)


@pytest.fixture(autouse=True)
def _need_backend(request: pytest.FixtureRequest) -> None:
    if "device" in request.fixturenames:
        reason = missing(request.getfixturevalue("device"))
        if reason:
            pytest.skip(reason)
    elif request.node.get_closest_marker("sim") and missing("sim"):
        pytest.skip(missing("sim"))
    if ON_GPU and request.node.get_closest_marker("emulator"):
        pytest.skip("needs the emulator")


@pytest.fixture
def launches() -> Iterator[list[str]]:
    """Names of the CUDA kernels launched, without their module's."""
    names: list[str] = []

    def note(kernel, *_) -> None:
        names.append(kernel.partition(".")[2])

    listeners.append(note)
    yield names
    listeners.remove(note)


@pytest.fixture(params=isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The instruction set of the native kernels; a test runs once with each."""
    from dlcore import _C

    before = _C.isa()
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(before)
    assert np.longdouble(2) * 3 == 6, "a kernel left the x87 unusable"


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Function that sets the number of threads, until the end of the test."""
    from dlcore import _C

    before = _C.num_threads()
    yield _C.set_num_threads
    _C.set_num_threads(before)
