"""Build of the native extension `dlcore._C`; everything else about the package is in pyproject.toml.

Environment:
    DLCORE_BUILD=require|never  fail when there is no compiler | do not build the extension
    DLCORE_SANITIZE=LIST        build with -fsanitize=LIST ("address,undefined" or "thread"), at -O1
    DLCORE_ISAS=LIST            instruction sets to build, of avx512,avx2,baseline (default: all)
    DLCORE_FATBIN=1             compile the CUDA kernels with nvcc into the wheel (minutes), not where they run
"""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent

# Sources compiled once, besides bind*.cpp. Any other csrc/*.cpp is a kernel family, compiled per instruction set.
ONCE = ("chain", "contiguous", "heap", "isa", "launcher", "memory", "parallel", "scan", "strided")

FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
FLAGS += [
    "-fvisibility-inlines-hidden",
    "-ffunction-sections",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
    "-pthread",
]  # the last two warnings: in GCC's own headers

# no names of local functions, no functions that nobody calls
STRIP = ["-s", "-Wl,--gc-sections"] if sys.platform == "linux" else []

X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        "-mavx512f",
        "-mavx512dq",
        "-mavx512bw",
        "-mavx512vl",
        "-mfma",
        "-mf16c",
        "-mavx2",
        "-mprefer-vector-width=512",
    ],
}
X86 = platform.machine().lower() in ("x86_64", "amd64")
# MMX registers are those of the x87, which LAPACK uses; GCC moves doubles through them and leaves them in use
ISA_FLAGS = {"baseline": ["-mno-mmx"]} | X86_FLAGS if X86 else {"baseline": []}


def chosen_isas():
    """Instruction sets to build, best first: all that this kind of machine has, or those of DLCORE_ISAS."""
    known = [isa for isa in ("avx512", "avx2", "baseline") if isa in ISA_FLAGS]
    asked = os.environ["DLCORE_ISAS"].split(",") if os.environ.get("DLCORE_ISAS") else known
    for name in asked:
        if name not in known:
            raise SystemExit(f"dlcore: DLCORE_ISAS names {name!r}; valid on this machine: {', '.join(known)}")
    return [isa for isa in known if isa in asked]


ISAS = chosen_isas()

PROBE = "typedef float vec __attribute__((vector_size(16)));\ntemplate <class T> inline constexpr T zero = T{};\n"
NO_COMPILER = "no C++17 compiler found"
NO_HEADERS = "Python's C headers not found (Debian: python3-dev)"
CONSEQUENCE = "the native `cpu` backend is not built, the pure NumPy backend will be used"


def compiled_once(stem):
    return stem in ONCE or stem.startswith("bind")


def sanitizer_flags():
    names = os.environ.get("DLCORE_SANITIZE")
    # the checks left out make templates of vector code take minutes to compile; ASan sees what they would
    dear = "-fno-sanitize=null,pointer-overflow,object-size,alignment"
    return ["-O1", "-g1", f"-fsanitize={names}", dear, "-fno-omit-frame-pointer"] if names else []


class BuildExtension(build_ext):
    """Compile each kernel family once per instruction set, link all into one module."""

    def run(self):
        self._absent = False
        super().run()

    def build_extension(self, ext):
        missing = self._what_is_missing()
        if missing is None:
            self._link(ext, self._compile_all(ext))
        elif os.environ.get("DLCORE_BUILD") == "require":
            raise CompileError(f"dlcore: {missing}, and DLCORE_BUILD=require")
        else:
            self._absent = True
            print(f"dlcore: {missing}; {CONSEQUENCE}", file=sys.stderr)

    def copy_extensions_to_source(self):
        if not self._absent:
            super().copy_extensions_to_source()

    def get_outputs(self):
        return [] if getattr(self, "_absent", False) else super().get_outputs()

    def get_output_mapping(self):
        return {} if getattr(self, "_absent", False) else super().get_output_mapping()

    def _what_is_missing(self):
        if not self._compiles(PROBE):
            return NO_COMPILER
        if not self._compiles("#include <Python.h>\n"):
            return NO_HEADERS
        return None

    def _compiles(self, code):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(code)
            silence = os.dup(2)
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
            try:
                self.compiler.compile(
                    [str(source)], output_dir=folder, include_dirs=self.include_dirs, extra_postargs=["-std=c++17"]
                )
            except (CompileError, OSError):
                return False
            finally:
                os.dup2(silence, 2)
                os.close(silence)
            return True

    def _compile_all(self, ext):
        jobs = [
            (source, isa)
            for source in ext.sources
            for isa in (["baseline"] if compiled_once(Path(source).stem) else ISAS)
        ]
        jobs.sort(key=lambda job: -Path(job[0]).stat().st_size)  # the longest first
        with ThreadPoolExecutor(max_workers=2) as pool:
            return [obj for objects in pool.map(lambda job: self._compile(ext, *job), jobs) for obj in objects]

    def _compile(self, ext, source, isa):
        # bindings gain nothing by -O3 but size, nor do kernels for what all x86 processors have
        stem = Path(source).stem
        smaller = ["-O2"] if stem.startswith("bind") or (X86 and isa == "baseline" and stem not in ONCE) else []
        return self.compiler.compile(
            [source],
            output_dir=os.path.join(self.build_temp, isa),
            macros=[("DL_ISA", isa), ("DL_ISAS(X)", " ".join(f"X({name})" for name in ISAS)), *ext.define_macros],
            include_dirs=ext.include_dirs,
            extra_postargs=[*FLAGS, *smaller, "-g0", *sanitizer_flags(), *ISA_FLAGS[isa]],
        )

    def _link(self, ext, objects):
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=["-pthread", *(sanitizer_flags() or STRIP)],
            build_temp=self.build_temp,
            target_lang="c++",
        )


class BuildPackage(build_py):
    """Carry the kernels, the emulator's sources and perhaps compiled kernels inside a wheel, under `dlcore/`."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "dlcore")
        shutil.copytree(ROOT / "kernels", package / "kernels", dirs_exist_ok=True)
        shutil.copytree(ROOT / "csrc" / "simt", package / "sim" / "csrc", dirs_exist_ok=True)
        if os.environ.get("DLCORE_FATBIN") == "1":
            (package / "fatbin").mkdir(exist_ok=True)
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                list(pool.map(lambda source: compile_fatbin(source, package / "fatbin"), sorted(KERNELS.glob("*.cu"))))


KERNELS = ROOT / "kernels"


def compile_fatbin(source, folder):
    """One binary for all architectures, of a file whose kernels ops launch."""
    options = runpy.run_path(str(ROOT / "dlcore" / "backends" / "cuda" / "options.py"))
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in options["in_wheel"](source.stem)]
    if not codes:
        return
    command = ["nvcc", "-fatbin", "-O3", "--compress-mode=size", *options["OPTIONS"], *codes]
    command += [f"-I{KERNELS / 'include'}", str(source), "-o", str(folder / f"{source.stem}.fatbin")]
    subprocess.run(command, check=True)


def version():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def extensions():
    if os.environ.get("DLCORE_BUILD") == "never":
        return []
    import pybind11

    return [
        Extension(
            "dlcore._C",
            sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*.cpp")),
            depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*.h")),
            include_dirs=[pybind11.get_include()],
            define_macros=[("DL_VERSION", f'"{version()}"')],
            language="c++",
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension, "build_py": BuildPackage})
