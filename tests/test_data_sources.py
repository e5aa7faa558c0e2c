"""Where data comes from: IDX files, Fashion-MNIST's places and fetchers, digits, CSV and .npz."""

import gzip
import hashlib
import struct
from urllib.error import URLError

import numpy as np
import pytest

from dlcore import settings
from dlcore.data import CSVDataset, Digits, FashionMNIST, NPZDataset, fashion_mnist, load_csv, load_npz, read_idx
from dlcore.data.idx import parse_idx
from dlcore.errors import DataError


def idx(array, code=0x08):
    shape = struct.pack(f">{array.ndim}i", *array.shape)
    return bytes([0, 0, code, array.ndim]) + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
FILES = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(np.array([9, 0, 4], np.uint8)),
    "t10k-images-idx3-ubyte": idx(IMAGES[:2]),
    "t10k-labels-idx1-ubyte": idx(np.array([1, 2], np.uint8)),
}
ZIPPED = {name: gzip.compress(data) for name, data in FILES.items()}


def put(folder, files=FILES, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (name + suffix)).write_bytes(data)
    return folder


def unreachable():
    raise URLError("no network")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without Fashion-MNIST and without network; gives its cache folder."""
    settings.get.cache_clear()
    monkeypatch.delenv("DLCORE_DATA", raising=False)
    monkeypatch.setenv("DLCORE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(fashion_mnist, "FETCHERS", {"https://web": unreachable})
    monkeypatch.setattr(fashion_mnist, "SHA256", {n: hashlib.sha256(data).hexdigest() for n, data in FILES.items()})
    yield tmp_path / "cache" / "fashion-mnist"
    settings.get.cache_clear()


# ---- IDX


@pytest.mark.parametrize(("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0E, "f8")])
def test_idx_gives_back_every_type(tmp_path, code, dtype):
    array = np.arange(-3, 3).reshape(2, 3).astype(dtype)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array, code)))
    read = read_idx(tmp_path / "a.gz")
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\1\0\x08\1", "not an IDX file"),
        (b"\0\0\x07\1", "not an IDX file"),
        (b"\0\0\x08\3\0\0", "truncated IDX header"),
        (FILES["train-images-idx3-ubyte"][:-1], "needs 2368 bytes, got 2367"),
        (FILES["train-images-idx3-ubyte"] + b"\0", "needs 2368 bytes, got 2369"),
        (b"\0\0\x08\1\xff\xff\xff\xff", "damaged"),
    ],
)
def test_idx_refuses_damaged_data(data, message):
    with pytest.raises(DataError, match=message):
        parse_idx(data)


@pytest.mark.parametrize("damage", [lambda z: z[:-20], lambda z: b"no gzip" + z, lambda z: z[:30] + bytes(40) + z[70:]])
def test_idx_names_a_damaged_gzip_file(tmp_path, damage):
    path = tmp_path / "a.gz"
    path.write_bytes(damage(ZIPPED["train-images-idx3-ubyte"]))
    with pytest.raises(DataError, match=r"a\.gz"):
        read_idx(path)


# ---- Fashion-MNIST


def test_fashion_mnist_reads_a_folder(bare, tmp_path):
    train, test = (FashionMNIST(put(tmp_path / "mine"), train=part) for part in (True, False))
    assert (len(train), len(test)) == (3, 2)
    image, label = train[2]
    assert (image.shape, image.dtype, label, train.classes[label]) == ((1, 28, 28), np.float32, 4, "Coat")
    np.testing.assert_allclose(image[0], (IMAGES[2] / 255 - 0.2860) / 0.3530, rtol=1e-5, atol=1e-6)


def test_fashion_mnist_prefers_root_then_variable_then_system_then_cache(bare, tmp_path, monkeypatch):
    order = [tmp_path / "root", tmp_path / "data" / "fashion-mnist", tmp_path / "system", bare]
    monkeypatch.setenv("DLCORE_DATA", str(tmp_path / "data"))
    for place in reversed(order):
        assert put(place, ZIPPED, ".gz") == fashion_mnist.find_folder(tmp_path / "root")


def test_fashion_mnist_is_fetched_once_into_the_cache(bare, monkeypatch):
    calls = []
    fetch = {"https://web": unreachable, "package": lambda: calls.append(1) or ZIPPED}
    monkeypatch.setattr(fashion_mnist, "FETCHERS", fetch)
    assert len(FashionMNIST()) == len(FashionMNIST()) == 3
    assert calls == [1]
    assert fashion_mnist.find_folder() == bare


WRONG = {"longer": gzip.compress(FILES["train-labels-idx1-ubyte"] + b"x"), "html": b"<html>", "missing": None}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_fashion_mnist_keeps_nothing_that_fails_its_checksum(bare, monkeypatch, wrong):
    files = {name: data for name, data in ZIPPED.items() if name != "train-labels-idx1-ubyte"}
    files |= {} if wrong is None else {"train-labels-idx1-ubyte": wrong}
    monkeypatch.setattr(fashion_mnist, "FETCHERS", {"web": lambda: files})
    with pytest.raises(DataError, match="web: "):
        FashionMNIST()
    assert not bare.exists()


def test_fashion_mnist_lists_what_was_tried_and_what_to_install(bare, tmp_path):
    with pytest.raises(DataError) as caught:
        FashionMNIST(tmp_path / "mine")
    for part in ("mine", "system", "cache", "https://web: <urlopen error no network>", "dataset-fashion-mnist"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fashion_mnist_refuses_other_images_and_labels(bare, tmp_path):
    other = {"train-images-idx3-ubyte": idx(np.zeros((3, 8, 8), np.uint8))}
    with pytest.raises(DataError, match=r"train-images.*expected uint8 \['N', 28, 28\]"):
        FashionMNIST(put(tmp_path / "a", FILES | other))
    with pytest.raises(DataError, match="label 10"):
        FashionMNIST(put(tmp_path / "b", FILES | {"train-labels-idx1-ubyte": idx(np.full(3, 10, np.uint8))}))


def test_debian_fetch_updates_the_lists_when_root_and_unpacks(bare, monkeypatch):
    commands = []

    def run(command, folder):
        commands.append(" ".join(command[:2]))
        if command[1] == "download":
            if "apt-get update" not in commands:
                raise DataError("Unable to locate package")
            put(fashion_mnist.Path(folder), {"set.deb": b""})
        elif command[0] == "dpkg-deb":
            put(fashion_mnist.Path(folder, "unpacked", "usr"), ZIPPED, ".gz")

    monkeypatch.setattr(fashion_mnist, "_run", run)
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(fashion_mnist.os, "geteuid", lambda: 0)
    monkeypatch.setattr(fashion_mnist, "FETCHERS", {"debian": fashion_mnist._fetch_debian})
    assert len(FashionMNIST()) == 3
    assert commands == ["apt-get download", "apt-get update", "apt-get download", "dpkg-deb -x"]


def test_debian_fetch_says_which_tool_is_missing(bare, monkeypatch):
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: None)
    monkeypatch.setattr(fashion_mnist, "FETCHERS", {"debian": fashion_mnist._fetch_debian})
    with pytest.raises(DataError, match="debian: apt-get is not here"):
        FashionMNIST()


def test_a_failing_command_gives_its_first_words(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        fashion_mnist._run(["ls", "missing"], str(tmp_path))


# ---- digits


def test_digits_are_split_and_normalised():
    pytest.importorskip("sklearn")
    train, test = Digits(), Digits(train=False)
    assert (len(train), len(test)) == (1437, 360)
    x, y = train.batch(np.arange(1437))
    assert x.shape == (1437, 1, 8, 8)
    assert abs(float(x.mean())) < 1e-3
    assert float(x.std()) == pytest.approx(1, abs=1e-3)
    assert set(y) == set(range(10))


# ---- tables


def write(path, text):
    path.write_text(text)
    return path


def test_csv_columns_take_their_types(tmp_path):
    columns = load_csv(write(tmp_path / "f.csv", 'n,v,s\n1,0.5,"a, b"\n2,1e3,c\n\n'))
    assert [columns[name].dtype.kind for name in "nvs"] == ["i", "f", "U"]
    assert columns["s"].tolist() == ["a, b", "c"]
    assert load_csv(write(tmp_path / "g", "1;2\n3;4\n"), delimiter=";", header=False)["1"].tolist() == [2, 4]


def test_csv_dataset_gives_features_and_class_numbers(tmp_path):
    data = CSVDataset(write(tmp_path / "f.csv", "a,kind,b\n1,cat,2\n3,ant,4.5\n"), target="kind")
    assert (data.features, data.classes) == (("a", "b"), ("ant", "cat"))
    x, y = data[0]
    assert (x.tolist(), x.dtype, y, y.dtype) == ([1, 2], np.float32, 1, np.int64)
    assert len(CSVDataset(tmp_path / "f.csv", features=["b"])[1]) == 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n3\n", {}, "line 3: expected 2 values, got 1"),
        ("a,a\n1,2\n", {}, "distinct"),
        ("a,b\n", {}, "got 0 rows"),
        ("", {}, "got 0 rows"),
        ("a,b\n1,2\n", {"target": "c"}, "no column 'c'; there are a, b"),
        ("a,b\n1,\n", {}, "'b' is not all numbers"),
    ],
)
def test_csv_errors_name_the_place(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message):
        CSVDataset(write(tmp_path / "f.csv", text), **options)


def test_npz_dataset(tmp_path):
    np.savez(tmp_path / "f.npz", x=np.eye(3), y=np.arange(3))
    data = NPZDataset(tmp_path / "f.npz", ["x", "y"])
    assert data[1][1] == 1
    with pytest.raises(DataError, match="no array 'z'; there are x, y"):
        NPZDataset(tmp_path / "f.npz", ["z"])


def test_npz_refuses_pickles_and_damaged_files(tmp_path):
    np.savez(tmp_path / "f.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "g.npz", x=np.zeros(100))
    (tmp_path / "g.npz").write_bytes((tmp_path / "g.npz").read_bytes()[:-50])
    for path in (tmp_path / "f.npz", tmp_path / "g.npz", tmp_path / "none.npz"):
        with pytest.raises(DataError, match=path.name):
            load_npz(path)
