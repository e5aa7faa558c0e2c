"""Files that are either wholly written or not touched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dlcore.errors import DataError


def write_atomic(path: str | Path, chunks: Iterable[bytes]) -> None:
    """Write `chunks` to `path` so that a reader, or a machine that loses power, finds the old file or the new one.

    A temporary file in the same folder is written, flushed to disk and renamed; then the folder is flushed.

    Raises:
        DataError: the file cannot be written (a full disk, a missing folder); what was there before is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        _write_through(temporary, chunks)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        kept = "the file there before is unchanged" if path.exists() else "no file was left there"
        raise DataError(f"cannot write {path}: {error.strerror or error}; {kept}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path, chunks: Iterable[bytes]) -> None:
    with open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
