"""How a GPU gets its kernels: fat binaries, else NVRTC, whose binaries are kept on disk."""

import pytest

from dlcore import settings
from dlcore.backends.cuda import compiler, options
from dlcore.errors import KernelError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DLCORE_CACHE_DIR", str(tmp_path))
    settings.get.cache_clear()
    yield
    monkeypatch.undo()
    settings.get.cache_clear()


@pytest.fixture
def compiled(monkeypatch):
    """What a pretended NVRTC was asked to compile."""
    asked = []

    def pretended(text, module, architecture):
        asked.append((module, architecture))
        return f"cubin of {module} for {architecture}".encode()

    monkeypatch.setattr(compiler, "_nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(compiler, "compile_with_nvrtc", pretended)
    return asked


def test_a_kernel_is_compiled_once_for_each_architecture_and_state(compiled, monkeypatch):
    assert compiler.image("scan", 80) == compiler.image("scan", 80) == b"cubin of scan for 80"
    assert compiler.image("scan", 90) == b"cubin of scan for 90"
    monkeypatch.setattr(compiler, "source", lambda module: "changed")
    compiler.image("scan", 80)
    assert compiled == [("scan", 80), ("scan", 90), ("scan", 80)]


@pytest.mark.parametrize(("architecture", "expected"), [(86, b"fat"), (75, b"cubin of scan for 75")])
def test_fat_binaries_are_taken_by_devices_that_they_cover(architecture, expected, compiled, monkeypatch, tmp_path):
    (tmp_path / "scan.fatbin").write_bytes(b"fat")
    monkeypatch.setattr(compiler, "FATBINS", tmp_path)
    assert compiler.image("scan", architecture) == expected


def test_other_sources_win_over_fat_binaries(compiled, monkeypatch, tmp_path):
    (tmp_path / "scan.fatbin").write_bytes(b"fat")
    (tmp_path / "scan.cu").write_text("// mine")
    monkeypatch.setattr(compiler, "FATBINS", tmp_path)
    monkeypatch.setenv("DLCORE_KERNELS", str(tmp_path))
    settings.get.cache_clear()
    assert compiler.image("scan", 80) == b"cubin of scan for 80"


def test_without_nvrtc_it_is_said_what_to_install(monkeypatch):
    compiler._nvrtc.cache_clear()
    monkeypatch.setattr(compiler.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(KernelError, match="pip install nvidia-cuda-nvrtc"):
        compiler._nvrtc()


@pytest.mark.parametrize(("module", "count"), [("gemm", 5), ("gemm_tensor", 4), ("elementwise", 4)])
def test_the_wheel_has_code_for_every_architecture(module, count, monkeypatch):
    monkeypatch.setattr(compiler, "ARCHITECTURES", found := options.in_wheel(module))
    assert len(found) == count
    assert all(map(compiler.covers, options.ARCHITECTURES))


def test_what_no_op_launches_has_no_code_in_the_wheel():
    assert options.in_wheel("gemm_ladder") == ()


def test_every_include_of_a_kernel_is_put_in_its_place():
    for module in compiler.modules():
        assert '#include "' not in compiler.source(module).replace('#include "simt.h"', "")


@pytest.fixture
def nvrtc():
    try:
        return compiler._nvrtc()
    except KernelError as error:
        pytest.skip(str(error))


@pytest.mark.nvcc
@pytest.mark.parametrize("module", ["gather", "scan", "pool"])
def test_nvrtc_makes_binaries(module, nvrtc):
    assert compiler.image(module, 80).startswith(b"\x7fELF")


@pytest.mark.nvcc
def test_what_does_not_compile_is_named_with_its_line(nvrtc):
    with pytest.raises(KernelError, match=r"wrong\.cu does not compile for sm_80: wrong\.cu\(2\): error: .*missing"):
        compiler.compile_with_nvrtc("\n__device__ int x = missing;", "wrong", 80)
