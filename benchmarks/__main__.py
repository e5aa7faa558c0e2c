"""`python -m benchmarks [SUITE [options]]`."""

from __future__ import annotations

import importlib
import sys

from benchmarks import suites

ROWS = {
    "ops": "single ops beside NumPy and JAX",
    "layers": "convolutions, recurrent layers and attention beside PyTorch",
    "training": "training steps and inference beside PyTorch, eager and compiled, with peak memory",
    "capture": "captured steps beside eager ones; what a replay costs",
    "peers": "all rows that PyTorch has as well: layers, training, products, functions",
}
OTHERS = {
    "import": "import time, installed size",
    "overhead": "one eager op, one launch",
    "scaling": "time per unit of work as batch, length and depth grow (--strict)",
    "plot": "the picture of a history (what --history wrote)",
    "gpu": "everything that only a GPU can tell, with a report; or its rehearsal (--rehearse)",
    "launches": "CUDA launches of a training step, by phase and kernel",
    "static": "CUDA kernels without a GPU: machine code, emulated counters, modelled time (--json FILE)",
}
MODULES = {"import": "imports", "plot": "history"}


def main(argv: list[str]) -> int:
    """Run a suite, or list them."""
    suite, *options = argv or [""]
    if suite in ROWS:
        return suites.main(suite, options)
    if suite in OTHERS:
        return int(importlib.import_module(f"benchmarks.{MODULES.get(suite, suite)}").main(options) or 0)
    print("usage: python -m benchmarks SUITE [options]\n\nTables of rows (options: --help):")
    print(*(f"  {name:10} {doc}" for name, doc in ROWS.items()), "Others:", sep="\n")
    print(*(f"  {name:10} {doc}" for name, doc in OTHERS.items()), sep="\n")
    return int(suite not in ("", "-h", "--help"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
