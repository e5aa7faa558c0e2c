"""Modelled times of all families on the device that is here, from machine code and emulated counters."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.gpu.driver import Driver
from benchmarks.static import devices, metrics
from benchmarks.static.families import families
from dlcore.dispatch import default_backend


def main() -> None:
    """Print milliseconds and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("--only", default="", metavar="TEXT")
    given = parser.parse_args()
    device = devices.of_driver(Driver(default_backend()).attribute)
    found = {}
    for family in families():
        if given.only in family.kernel:
            launch, counts = metrics.sampled(family)
            code = {
                device.architecture: metrics.module_code(launch.module, device.architecture, (family.kernel,))[
                    family.kernel
                ]
            }
            result = metrics.predicted(family, code, counts, device).result
            found[family.kernel] = 1e3 * result.seconds
            print(f"{family.kernel}: {1e3 * result.seconds:.4g} ms modelled, bound by {result.bound}", flush=True)
            given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
