"""Fashion-MNIST: 70,000 grey 28 x 28 pictures of clothes in 10 classes (Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import numpy as np

from dlcore import settings
from dlcore.data.dataset import ImageDataset
from dlcore.data.idx import read_idx
from dlcore.errors import DataError
from dlcore.io.atomic import write_atomic

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
MEAN, STD = 0.2860, 0.3530  # of the training pixels / 255

# sha256 of each file's contents, unzipped: the official files and Debian's differ in their gzip headers.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
PACKAGE = "dataset-fashion-mnist"

log = logging.getLogger(__name__)


class FashionMNIST(ImageDataset):
    """60,000 training or 10,000 test images: samples (float32 [1, 28, 28] of mean 0 and std 1, int64 label).

    The four files are looked for in `root`, in `DLCORE_DATA`, where Debian's package puts them, and in dlcore's cache.
    Where they are in none of these, they are fetched once into the cache: from the authors' repository, else from the
    Debian package; their sha256 is checked.

    Example:
        >>> train, test = FashionMNIST(), FashionMNIST(train=False)

    Raises:
        DataError: the files cannot be had (the message lists every place tried), or are damaged.
    """

    def __init__(self, root: str | Path | None = None, train: bool = True) -> None:
        folder, part = find_folder(root), "train" if train else "t10k"
        images = _read(folder, f"{part}-images-idx3-ubyte", (28, 28))[:, None]
        labels = _read(folder, f"{part}-labels-idx1-ubyte", ()).astype(np.int64)
        if labels.size and labels.max() >= len(CLASSES):
            raise DataError(f"{folder}: label {labels.max()} is outside the {len(CLASSES)} classes")
        super().__init__(images, labels, classes=CLASSES, mean=MEAN, std=STD)


def _read(folder: Path, name: str, item_shape: tuple[int, ...]) -> np.ndarray:
    array = read_idx(_file(folder, name))
    if array.dtype != np.uint8 or array.ndim == 0 or array.shape[1:] != item_shape:
        raise DataError(f"{folder / name}: expected uint8 {['N', *item_shape]}, got {array.dtype} {list(array.shape)}")
    return array


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else plain.with_name(name + ".gz")


def _complete(folder: Path) -> bool:
    return all(_file(folder, name).exists() for name in SHA256)


def find_folder(root: str | Path | None = None) -> Path:
    """Find the folder with the four files, fetching them into the cache when nothing else is left.

    Raises:
        DataError: every place failed; the message lists them, and what to install.
    """
    cache: Path = settings.get("CACHE_DIR") / "fashion-mnist"
    given = [Path(place) for place in (root, settings.get("DATA")) if place]
    places = [*given, *(place / "fashion-mnist" for place in given), SYSTEM_FOLDER, cache]
    for place in places:
        if _complete(place):
            return place
    failures = [f"{place}: not there" for place in places]
    for name, fetch in FETCHERS.items():
        log.info("Fashion-MNIST: fetching 31 MB from %s", name)
        try:
            return _store(cache, fetch())
        except (OSError, EOFError, zlib.error, subprocess.SubprocessError, DataError) as error:
            failures.append(f"{name}: {_first_line(error)}")
    raise DataError(
        f"Fashion-MNIST cannot be had; tried {'; '.join(failures)}. Install Debian's package {PACKAGE}, or put "
        f"{', '.join(name + '.gz' for name in SHA256)} into a folder and give it as root= or DLCORE_DATA"
    )


def _store(folder: Path, files: dict[str, bytes]) -> Path:
    """Check the fetched .gz files and keep them in `folder`."""
    for name, expected in SHA256.items():
        found = hashlib.sha256(gzip.decompress(files.get(name, b""))).hexdigest()
        if found != expected:
            raise DataError(f"{name}.gz has sha256 {found} (unzipped), expected {expected}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(folder / f"{name}.gz", [data])
    return folder


def _fetch_web() -> dict[str, bytes]:
    files = {}
    for name in SHA256:
        with urlopen(f"{URL}/{name}.gz", timeout=10) as reply:
            files[name] = reply.read()
    return files


def _fetch_debian() -> dict[str, bytes]:
    """Download and unpack the Debian package without installing it, so without being root."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(f"{tool} is not here")
    with TemporaryDirectory() as work:
        try:
            _run(["apt-get", "download", PACKAGE], work)
        except DataError:
            if os.geteuid() != 0:
                raise
            _run(["apt-get", "update"], work)  # a fresh machine has no package lists
            _run(["apt-get", "download", PACKAGE], work)
        for package in Path(work).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), "unpacked"], work)
        return {path.stem: path.read_bytes() for path in Path(work).rglob("*-ubyte.gz")}


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        raise DataError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")


def _first_line(error: Exception) -> str:
    return f"{str(error) or type(error).__name__}".splitlines()[0]


FETCHERS: dict[str, Callable[[], dict[str, bytes]]] = {URL: _fetch_web, f"Debian's package {PACKAGE}": _fetch_debian}
