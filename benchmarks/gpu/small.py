"""Every kernel family once at a small size, compared with float64: what compute-sanitizer watches."""

from __future__ import annotations

import sys

from benchmarks.gpu.kernel import check
from benchmarks.gpu.operands import Operands
from benchmarks.static.families import families
from dlcore.dispatch import default_backend


def main(only: str = "") -> None:
    """Run the families whose kernel's name contains a text."""
    backend = default_backend()
    if backend.name == "cuda":
        import cupy

        cupy.cuda.set_allocator(None)  # no pool: an array's end is an allocation's end
    for family in families():
        if only in family.kernel:
            print(f"{family.kernel}: error {check(family, Operands(backend.name), family.small).error:.1e}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
