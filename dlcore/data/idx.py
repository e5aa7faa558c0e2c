"""The IDX format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist, "The IDX file format"."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlcore.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> NDArray[Any]:
    """Read an IDX file, gzipped when its name ends in .gz, as an array in the machine's byte order.

    Raises:
        DataError: not an IDX file, cut short, or longer than its header says.
    """
    try:
        data = Path(path).read_bytes()
        return parse_idx(gzip.decompress(data) if str(path).endswith(".gz") else data)
    except (OSError, EOFError, zlib.error, DataError) as error:
        raise DataError(f"{path}: {error}") from error


def parse_idx(data: bytes) -> NDArray[Any]:
    """Parse IDX bytes: two zeros, a type code, the number of axes, each axis as a big-endian int32, the values."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise DataError(f"not an IDX file: it starts with {data[:4].hex() or 'nothing'}")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError("truncated IDX header")
    shape = tuple(int(axis) for axis in np.frombuffer(data, ">i4", data[3], 4))
    dtype = np.dtype(DTYPES[data[2]])
    expected = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(data) != expected:
        raise DataError(f"truncated or damaged IDX file: shape {shape} needs {expected} bytes, got {len(data)}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
