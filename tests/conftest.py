"""Which backends a test runs on."""

import pytest

from dlcore import dispatch
from dlcore.errors import BackendError

BACKENDS = ["numpy", "cpu"]


def missing(backend: str) -> str | None:
    try:
        dispatch.get_backend(backend)
    except (BackendError, ModuleNotFoundError) as error:
        return str(error)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", BACKENDS)


@pytest.fixture(autouse=True)
def _need_backend(request: pytest.FixtureRequest) -> None:
    if "device" in request.fixturenames:
        reason = missing(request.getfixturevalue("device"))
        if reason:
            pytest.skip(reason)
