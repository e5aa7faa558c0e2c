"""Whether `torch.compile` works here: it needs a C++ compiler and a folder for what it builds."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile

import torch


@functools.cache
def works() -> bool:
    """Try it once; say so if it does not. What it builds goes to a folder that is deleted at exit."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    try:
        torch.compile(lambda x: x * x + 1)(torch.ones(4))
    except Exception as error:  # whatever a compiler may lack
        print(f"torch.compile does not work here, so it is left out: {str(error).splitlines()[0]}")
        return False
    return True
