"""What a built wheel holds, with a compiler and without one."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")]


def build(folder: Path, **environment: str) -> tuple[list[str], str]:
    """Names in a wheel built from a copy of the sources, and what the build printed."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "build", "*.so", "*.egg-info", "runs", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", folder, source]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist(), done.stdout + done.stderr


def test_a_wheel_carries_extension_kernels_and_types(tmp_path):
    names, _ = build(tmp_path, DLCORE_ISAS="baseline")
    assert any(n.startswith("dlcore/_C.") and n.endswith((".so", ".pyd")) for n in names)
    assert {"dlcore/kernels/README.md", "dlcore/kernels/include/dl.cuh", "dlcore/sim/csrc/simt.h"} <= set(names)
    assert {"dlcore/py.typed", "dlcore/backends/cpu/gemm.py"} <= set(names)
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "csrc/"))]


def test_without_a_compiler_the_install_works_and_says_so_once(tmp_path):
    names, output = build(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert not any(n.endswith(".so") for n in names)
    assert output.count("dlcore: no C++17 compiler found") == 1


def test_a_required_extension_without_a_compiler_fails(tmp_path):
    with pytest.raises(AssertionError, match="DLCORE_BUILD=require"):
        build(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++", DLCORE_BUILD="require")


def test_an_unknown_instruction_set_is_refused_in_one_line():
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DLCORE_ISAS": "baseline,avx51"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert re.fullmatch(r"dlcore: DLCORE_ISAS names 'avx51'; valid on this machine: .*baseline\n", done.stderr)
