"""Prints which package of CuPy the driver of this machine can run, as `pip install` takes it."""

from __future__ import annotations

import re
import subprocess
import sys


def cupy_package(said: str) -> str:
    """From what `nvidia-smi` prints. Raises LookupError when it names no CUDA version from 12 on."""
    found = re.search(r"CUDA[\w ]* Version *: *(\d+)\.", said)
    if not found or int(found[1]) < 12:
        raise LookupError(f"CuPy needs a driver for CUDA 12 or newer; nvidia-smi says {found[0] if found else 'none'}")
    return f"cupy-cuda{min(int(found[1]), 13)}x[ctk]"


if __name__ == "__main__":
    try:
        print(cupy_package(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout))
    except LookupError as error:
        sys.exit(str(error))
