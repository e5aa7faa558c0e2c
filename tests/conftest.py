"""Which backends a test runs on, and with which instruction sets and threads."""

from collections.abc import Callable, Iterator

import pytest

from dlcore import dispatch
from dlcore.errors import BackendError

BACKENDS = ["numpy", "cpu", pytest.param("sim", marks=pytest.mark.sim)]


def missing(backend: str) -> str | None:
    try:
        dispatch.get_backend(backend)
    except (BackendError, ModuleNotFoundError) as error:
        return str(error)
    return None


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


@pytest.fixture(params=isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The instruction set of the native kernels; a test runs once with each."""
    from dlcore import _C

    before = _C.isa()
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Function that sets the number of threads, until the end of the test."""
    from dlcore import _C

    before = _C.num_threads()
    yield _C.set_num_threads
    _C.set_num_threads(before)
