"""The `sim` backend: the cuda backend over an emulator of the CUDA execution model."""

from __future__ import annotations

from typing import NoReturn

from dlcore.errors import BackendError


def load() -> NoReturn:
    """Raises BackendError: this version has no emulator."""
    raise BackendError("backend sim: this version of dlcore has no CUDA emulator yet; use cpu or numpy")
