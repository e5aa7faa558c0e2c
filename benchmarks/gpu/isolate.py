"""A plugin for pytest-xdist on a GPU: a test that hangs, or after which the device answers no more, costs its worker
and not the tests after it.

A fault inside a kernel makes every later call of the process fail; a new worker begins with a new context.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator

import pytest

from dlcore.dispatch import default_backend

LIMIT = 300  # seconds of one test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test under a limit, then ask the device whether it still works."""
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__ or sys.stderr)
    result = yield
    faulthandler.cancel_dump_traceback_later()
    try:
        default_backend().synchronize()
    except RuntimeError:
        os._exit(1)
    return result
