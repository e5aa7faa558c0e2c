"""`torch.compile` as a peer: it needs a C++ compiler, and a folder for what it builds."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import shutil
import tempfile

from benchmarks.row import Run
from benchmarks.steps import Spec, theirs


def step(spec: Spec, model: object) -> Run | None:
    """A compiled step of a copy of the model; if another copy's fails, a line that says why, and None."""
    _use_temporary_cache()
    try:
        theirs(spec, copy.deepcopy(model), compiled=True)()
    except Exception as error:  # whatever the compiler lacks
        print(f"torch.compile does not work here, so it is left out: {str(error).splitlines()[0]}")
        return None
    return theirs(spec, copy.deepcopy(model), compiled=True)


@functools.cache
def _use_temporary_cache() -> None:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
