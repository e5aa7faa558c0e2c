"""Every kernel file compiled for the device and loaded, so that no later section waits for a compiler."""

from __future__ import annotations

import sys
import time
from typing import Any

from dlcore.backends.cuda import compiler
from dlcore.dispatch import default_backend
from dlcore.errors import KernelError


def main(*chosen: str) -> None:
    """Print seconds or the error of each file, or of those named; exit with 1 when one failed."""
    backend: Any = default_backend()
    failed = False
    for module in chosen or compiler.modules():
        start = time.monotonic()
        try:
            backend.driver.native.load(backend.driver.image(module))
            print(f"{module}.cu: {time.monotonic() - start:.1f} s", flush=True)
        except (KernelError, RuntimeError) as error:
            print(f"{type(error).__name__}: {module}.cu: {error}", flush=True)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
