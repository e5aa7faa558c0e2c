"""The example that `make demo` runs: what it prints and writes, and that its weights repeat to the last bit."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import missing
from test_data_sources import idx

import dlcore as dl
from dlcore import io
from dlcore.errors import DataError
from dlcore.train import read_jsonl

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
LAST_LINES = r"weights sha256: ([0-9a-f]{64})\ntest accuracy: ([01]\.\d{4}) \((\d+) images, \d+ s, backend (\w+)\)\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fashion-MNIST's four files with a few hundred made-up pictures: class c is bright in row 2c."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for part, size in [("train", 192), ("t10k", 60)]:
        labels = rng.integers(10, size=size).astype(np.uint8)
        images = rng.integers(100, size=(size, 28, 28)).astype(np.uint8)
        images[np.arange(size), 2 * labels] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def run(out, folder, *options, backend):
    reason = missing(backend)
    if reason:
        pytest.skip(reason)
    command = [sys.executable, ROOT / "examples" / "fashion_mnist.py", "--out", out, "--data", folder, *options]
    environment = os.environ | {"DLCORE_BACKEND": backend, "PYTHONPATH": str(Path(io.__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    match = re.search(LAST_LINES + r"\Z", done.stdout)
    assert match, done.stdout
    return match.groups()


def losses(out):
    return [row["loss"] for row in read_jsonl(out / "log.jsonl") if row["kind"] == "step"]


def test_it_learns_and_writes_its_files(tmp_path, folder):
    _, accuracy, images, backend = run(tmp_path, folder, "--epochs", "8", "--batch-size", "32", backend="cpu")
    assert (images, backend) == ("60", "cpu")
    assert float(accuracy) > 0.8
    assert {"model.safetensors", "epochs.csv", "log.jsonl", "curve.png", "predictions.png", "checkpoints"} == {
        path.name for path in tmp_path.iterdir()
    }
    assert "0.weight" in io.load(tmp_path / "model.safetensors")


def test_without_the_images_it_trains_on_digits_and_says_so(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    example = runpy.run_path(str(ROOT / "examples" / "fashion_mnist.py"))

    def absent(*_, **__):
        raise DataError("Fashion-MNIST cannot be had")

    monkeypatch.setitem(example["load_data"].__globals__, "FashionMNIST", absent)
    train, test = example["load_data"](None)
    assert (len(train), len(test)) == (1437, 360)
    assert "scikit-learn's 8 x 8 digits" in capsys.readouterr().out
    assert example["build_model"](8)(dl.asarray(test.batch(np.arange(3))[0])).shape == (3, 10)


def test_same_seed_same_weights_for_any_number_of_threads(tmp_path, folder):
    short = ("--epochs", "1", "--batch-size", "32")
    first, *others = (
        run(tmp_path, folder, *short, *options, backend="cpu")[0]
        for options in ([], ["--threads", "1"], ["--threads", "2"], ["--seed", "1"])
    )
    assert others[:2] == [first] * 2
    assert others[2] != first


def test_an_interrupted_run_is_resumed_to_the_same_weights(tmp_path, folder):
    short = ("--epochs", "2", "--batch-size", "32")
    straight = run(tmp_path / "a", folder, *short, backend="cpu")[0]
    run(tmp_path / "b", folder, *short, "--steps", "8", backend="cpu")
    assert run(tmp_path / "b", folder, *short, "--resume", backend="cpu")[0] == straight


def test_numpy_follows_the_same_curve(tmp_path, folder):
    for backend in ("cpu", "numpy"):
        run(tmp_path / backend, folder, "--steps", "4", "--batch-size", "16", backend=backend)
    assert len(losses(tmp_path / "cpu")) == 4
    np.testing.assert_allclose(losses(tmp_path / "cpu"), losses(tmp_path / "numpy"), rtol=1e-4)
