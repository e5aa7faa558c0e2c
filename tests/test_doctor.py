"""`python -m dlcore doctor` and `env`."""

import subprocess
import sys
from pathlib import Path

import pytest

from dlcore.__main__ import main
from dlcore.dispatch import get_backend
from dlcore.doctor import path
from dlcore.op import OPS


def test_doctor_names_every_op_once(capsys):
    assert main(["doctor", "--device", "numpy", "--ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines[lines.index("") + 1 :]]
    assert sorted(named) == sorted(OPS)


def test_doctor_shows_native_paths(capsys):
    pytest.importorskip("dlcore._C")
    assert main(["doctor", "--device", "cpu", "--ops"]) == 0
    assert any(line.split() == ["matmul", "native"] for line in capsys.readouterr().out.splitlines())


def test_doctor_on_a_missing_backend_fails_with_one_line(capsys):
    assert main(["doctor", "--device", "cuda"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dlcore: backend cuda")
    assert captured.err.count("\n") == 1


def test_doctor_works_without_the_package_of_bfloat16():
    code = "import sys; sys.modules['ml_dtypes'] = None; from dlcore.__main__ import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert "numpy  ready" in done.stdout


def test_env_shows_settings(capsys, monkeypatch):
    monkeypatch.setenv("DLCORE_STRICT", "1")
    assert main(["env"]) == 0
    assert "DLCORE_STRICT: set to '1'" in capsys.readouterr().out


def test_the_op_table_in_the_docs_is_current():
    written = (Path(__file__).parents[1] / "docs" / "ops.md").read_text()
    code = "from dlcore.__main__ import main; main(['ops'])"  # a fresh process: tests define ops of their own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == written, "run: python -m dlcore ops > docs/ops.md"


def test_an_op_that_only_views_needs_no_kernel():
    assert path(OPS["reshape"], get_backend("numpy")) == ("view", [])


@pytest.mark.sim
def test_a_kernel_of_bools_is_shown_for_ops_of_bools():
    assert path(OPS["logical_and"], get_backend("sim"))[0] == "whole"
