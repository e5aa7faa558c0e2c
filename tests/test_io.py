"""Saving and loading: our safetensors reader and writer against the safetensors library, and files that go wrong."""

import errno
import json
import os
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dlcore import dtypes, io
from dlcore.creation import tensor
from dlcore.errors import DataError, DTypeError
from dlcore.io import safetensors as own


def sample(dtype, shape=(3, 5)):
    rng = np.random.default_rng(0)
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtypes.dtype(dtype))


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def assert_same(a, b):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", own.CODES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 4)])
def test_agrees_with_the_library_both_ways(tmp_path, dtype, shape):
    array = sample(dtype, shape)
    io.save(tmp_path / "ours", {"x": array})
    save_file({"x": array}, tmp_path / "theirs")
    assert_same(load_file(tmp_path / "ours")["x"], array)
    assert_same(io.load_arrays(tmp_path / "theirs")["x"], array)


def test_mixed_dtypes_metadata_and_order(tmp_path):
    state = {"b.weight": sample("int8"), "a": sample("float64"), "ü": sample("float16", (7,))}
    io.save(tmp_path / "f", state, {"note": "eins \n zwei"})
    with safe_open(tmp_path / "f", "np") as file:
        assert file.metadata() == {"note": "eins \n zwei"}
    assert io.load_metadata(tmp_path / "f") == {"note": "eins \n zwei"}
    assert list(io.load_arrays(tmp_path / "f")) == list(state)
    for name, array in load_file(tmp_path / "f").items():
        assert_same(array, state[name])


def test_every_tensor_starts_at_a_multiple_of_its_item_size(tmp_path):
    io.save(tmp_path / "f", {"a": sample("int8"), "b": sample("float64"), "c": sample("float16", (7,))})
    raw = (tmp_path / "f").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    begins = {name: e["data_offsets"][0] + 8 + length for name, e in json.loads(raw[8 : 8 + length]).items()}
    assert (begins["b"] % 8, begins["c"] % 2) == (0, 0)


def test_takes_tensors_and_strided_arrays_and_loads_tensors(tmp_path):
    base = sample("float32")
    io.save(tmp_path / "f", {"t": tensor(base), "strided": base[::2, ::-1].T})
    loaded = io.load(tmp_path / "f")
    assert_same(loaded["t"].numpy(), base)
    assert_same(loaded["strided"].numpy(), base[::2, ::-1].T)


def test_nothing_saved_is_an_empty_file_that_loads(tmp_path):
    io.save(tmp_path / "f", {})
    assert io.load(tmp_path / "f") == {} == load_file(tmp_path / "f")


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlap"),
        ({"a": entry(0, 8), "b": entry(12, 16)}, 16, "gap"),
        ({"a": entry(4, 8)}, 8, "gap"),
        ({"a": entry(0, 8)}, 4, "truncated"),
        ({"a": entry(0, 8)}, 12, "the file has 12"),
        ({"a": entry(0, 8, shape=[3])}, 8, "takes 12 bytes"),
        ({"a": entry(0, 8, shape=[-2])}, 8, "integers >= 0"),
        ({"a": entry(0, 8, shape=[2.0])}, 8, "integers >= 0"),
        ({"a": entry(0, 8, shape=[True, 2])}, 8, "integers >= 0"),
        ({"a": {**entry(0, 8), "data_offsets": [8, 0]}}, 8, "takes 8 bytes"),
        ({"a": {**entry(0, 8), "data_offsets": [0, 4, 8]}}, 8, "data_offsets are"),
        ({"a": entry(0, 8, "F8_E4M3")}, 8, "F8_E4M3 is not supported"),
        ({"a": entry(0, 8, ["F32"])}, 8, "not supported"),
        ({"a": [1, 2]}, 0, "expected dtype, shape"),
        ({"a": {"dtype": "F32"}}, 0, "expected dtype, shape"),
        (b'{"a":1,"a":2}', 0, "'a' stands twice"),
        (b'{"a":', 0, "not valid JSON"),
        (b"\xff\xfe{}", 0, "not valid JSON"),
        (b"[" * 100_000, 0, "not valid JSON"),
        (b"[]", 0, "not a JSON object"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, header, data, message):
    path = raw_file(tmp_path / "f", header, bytes(data))
    with pytest.raises(DataError, match=message) as caught:
        io.load_arrays(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_truncated_checkpoint_says_so(tmp_path, keep):
    path = tmp_path / "f"
    io.save(path, {"x": sample("float32")})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="truncated"):
        io.load(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        io.load(tmp_path / "none")


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, ["a"]])
def test_metadata_must_be_strings(tmp_path, metadata):
    with pytest.raises(DataError, match="strings"):
        io.save(tmp_path / "f", {}, metadata)
    with pytest.raises(DataError, match="strings"):
        io.load_metadata(raw_file(tmp_path / "g", {"__metadata__": {"a": 1}}))


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"x": np.zeros(2, complex)}, DTypeError),
        ({"x": np.array(["a"])}, DTypeError),
        ({"x": np.zeros(2, ">f4")}, DTypeError),
        ({1: np.zeros(2)}, DataError),
        ({"__metadata__": np.zeros(2)}, DataError),
    ],
)
def test_what_the_format_lacks_is_refused_and_leaves_no_file(tmp_path, state, error):
    with pytest.raises(error, match="save:"):
        io.save(tmp_path / "f", state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "f"
    io.save(path, {"x": sample("float32")})
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chunks = iter([b"new", b"file"])
    if call == "write":
        chunks = (full() for _ in range(2))
    else:
        monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (type(path), "replace")}[call], full)
    with pytest.raises(DataError, match="No space left on device; the file there before is unchanged"):
        io.write_atomic(path, chunks)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_device_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda path, mode, _open=open: _open("/dev/full", "wb"))
    with pytest.raises(DataError, match="No space left on device; no file was left there"):
        io.save(tmp_path / "f", {"x": sample("float32")})


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(DataError, match=r"cannot write .*No such file"):
        io.save(tmp_path / "none" / "f", {})


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    io.save(tmp_path / "f", {})
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode
