"""`python -m benchmarks [SUITE [options]]`."""

from __future__ import annotations

import importlib
import sys

SUITES = {
    "peers": "matrix products and training steps against PyTorch (--json FILE, --only TEXT)",
    "overhead": "one eager op, import time, installed size",
    "gpu": "everything that only a GPU can tell, with a report; or its rehearsal (--rehearse)",
    "launches": "CUDA launches of a training step, by phase and kernel",
    "static": "CUDA kernels without a GPU: machine code, emulated counters, modelled time (--json FILE)",
}


def main() -> int:
    """Run a suite, or list them."""
    if len(sys.argv) < 2 or sys.argv[1] not in SUITES:
        print("usage: python -m benchmarks SUITE [options]\n")
        print("\n".join(f"  {name:10} {doc}" for name, doc in SUITES.items()))
        return int(len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"))
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
