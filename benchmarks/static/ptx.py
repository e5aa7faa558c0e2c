"""`python -m benchmarks.static.ptx FOLDER`: PTX of some kernel files for compute capability 7.5.

Other simulators of GPUs take PTX of that age. ptxas says whether it holds an instruction that came later.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from benchmarks.static.cubin import ptx, run, tool

ARCHITECTURE = 75
MODULES = ("gemm", "softmax", "reduce", "lstm")


def write(folder: Path) -> list[Path]:
    """PTX of each of MODULES. Raises KernelError when one holds an instruction that 7.5 has not."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        text = ptx(module, ARCHITECTURE)
        run(tool("ptxas"), f"-arch=sm_{ARCHITECTURE}", str(text), "-o", os.devnull)
        shutil.copyfile(text, folder / f"{module}.ptx")
    return [folder / f"{module}.ptx" for module in MODULES]


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(f"{path}: {path.read_text().count('.entry')} kernels")
