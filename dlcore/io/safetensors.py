"""The safetensors format, read and written with nothing but NumPy.

A file is: the header's length (8 bytes, little-endian), the header (JSON: name -> dtype, shape, data_offsets; and
`__metadata__`, strings only), the tensors' bytes (little-endian, C order) without gaps.
Source: https://huggingface.co/docs/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias

import numpy as np

from dlcore import dtypes
from dlcore.creation import tensor
from dlcore.errors import DataError, DTypeError
from dlcore.io.atomic import write_atomic
from dlcore.tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
NAMES = {code: name for name, code in CODES.items()}
METADATA = "__metadata__"
MAX_HEADER = 100_000_000  # bytes, the format's own limit

State: TypeAlias = "Mapping[str, Tensor | ArrayLike]"


def save(path: str | Path, state: State, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors or arrays to a safetensors file, atomically.

    Example:
        >>> dl.save("model.safetensors", model.state_dict())

    Raises:
        DTypeError: a dtype that the format does not have.
        DataError: a name or metadata is not a string, or the file cannot be written (what was there before stays).
    """
    write_atomic(path, _encode(state, metadata or {}))


def load(path: str | Path, device: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file as tensors on `device` (None: the default device).

    Example:
        >>> model.load_state_dict(dl.load("model.safetensors"))

    Raises:
        DataError: the file is missing, truncated, or not a valid safetensors file.
    """
    return {name: tensor(array, device=device) for name, array in load_arrays(path).items()}


def load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file as read-only NumPy arrays. Raises DataError as `load` does."""
    try:
        with open(path, "rb") as file:
            header, size = _read_header(file)
            data = file.read()
        header.pop(METADATA, None)
        _check_layout({name: _span(name, entry) for name, entry in header.items()}, size)
        return {name: _decode(entry, data) for name, entry in header.items()}
    except (OSError, DataError) as error:
        _fail(path, error)


def load_metadata(path: str | Path) -> dict[str, str]:
    """Read a file's metadata strings without its tensors. Raises DataError as `load` does."""
    try:
        with open(path, "rb") as file:
            return _check_metadata(_read_header(file)[0].get(METADATA, {}))
    except (OSError, DataError) as error:
        _fail(path, error)


def _fail(path: str | Path, error: Exception) -> NoReturn:
    raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _encode(state: State, metadata: Mapping[str, str]) -> Iterator[bytes]:
    arrays = {_check_name(name): np.asarray(value) for name, value in state.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each tensor is aligned
    ends = np.cumsum([arrays[name].nbytes for name in order], dtype=np.int64).tolist()
    spans = dict(zip(order, zip([0, *ends], ends, strict=False), strict=True))
    header: dict[str, Any] = {METADATA: _check_metadata(metadata)} if metadata else {}
    for name, array in arrays.items():
        header[name] = {"dtype": _code(name, array), "shape": array.shape, "data_offsets": spans[name]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        bits = arrays[name].view(f"u{arrays[name].itemsize}")
        yield bits.astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()


def _code(name: str, array: NDArray[Any]) -> str:
    if array.dtype.name not in CODES or not array.dtype.isnative:
        raise DTypeError(f"save: {name} has dtype {array.dtype}; safetensors has {', '.join(CODES)}")
    return CODES[array.dtype.name]


def _check_name(name: object) -> str:
    if not isinstance(name, str) or name == METADATA:
        raise DataError(f"save: a tensor's name must be a string other than {METADATA!r}, got {name!r}")
    return name


def _check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(metadata, Mapping) or not all(isinstance(s, str) for item in metadata.items() for s in item):
        raise DataError(f"safetensors metadata must map strings to strings, got {metadata!r:.80}")
    return dict(metadata)


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Read the header; give it and the number of bytes that follow it."""
    total = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or length > min(MAX_HEADER, total - 8):
        raise DataError(f"truncated, or not a safetensors file: {total} bytes cannot hold its header")
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not a safetensors file: its header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise DataError("not a safetensors file: its header is not a JSON object")
    return header, total - 8 - length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return dict(pairs)


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Check one tensor's entry and give its begin and end in the data."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{name}: expected dtype, shape and data_offsets")
    shape, offsets, code = entry["shape"], entry["data_offsets"], entry["dtype"]
    for field in (shape, offsets):
        if not isinstance(field, list) or not all(type(n) is int and n >= 0 for n in field):
            raise DataError(f"{name}: shape and data_offsets must be lists of integers >= 0")
    if not isinstance(code, str) or code not in NAMES:
        raise DataError(f"{name}: dtype {code} is not supported; expected one of {', '.join(NAMES)}")
    expected = math.prod(shape) * dtypes.dtype(NAMES[code]).itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != expected:
        raise DataError(f"{name}: {code}{shape} takes {expected} bytes, data_offsets are {offsets}")
    return offsets[0], offsets[1]


def _check_layout(spans: Mapping[str, tuple[int, int]], size: int) -> None:
    """Check that the tensors follow one another without gap or overlap and fill the data."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != position:
            raise DataError(f"{name}: starts at byte {begin} of the data, expected {position} (a gap or an overlap)")
        position = end
    if position != size:
        raise DataError(f"truncated or damaged: the header describes {position} bytes of data, the file has {size}")


def _decode(entry: dict[str, Any], data: bytes) -> NDArray[Any]:
    dtype = dtypes.dtype(NAMES[entry["dtype"]])
    bits = np.frombuffer(data, f"<u{dtype.itemsize}", math.prod(entry["shape"]), entry["data_offsets"][0])
    return bits.astype(bits.dtype.newbyteorder("="), copy=False).view(dtype).reshape(entry["shape"])
