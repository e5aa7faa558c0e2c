"""What the machine is: device and its attributes, driver, versions, settings, and which path each op takes."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gpu.driver import Driver
from benchmarks.static import devices
from dlcore import doctor
from dlcore.dispatch import default_backend

TOOLS = {  # that the run can use, and how each tells its version
    "nvidia-smi": ("nvidia-smi",),
    "nvcc": ("nvcc", "--version"),
    "compute-sanitizer": ("compute-sanitizer", "--version"),
    "git": ("git", "log", "-1", "--format=%H %cs %s"),
}


def said(command: tuple[str, ...]) -> str:
    """What a program prints, or that it is not there."""
    if not shutil.which(command[0]):
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


def device() -> dict[str, Any]:
    """The default backend's device: what it is called, and the rates that follow from its attributes."""
    driver = Driver(default_backend())
    rates = devices.of_driver(driver.attribute)
    peaks = {
        name: 2e-12 * devices.rate(rates.architecture, *kind) * rates.clock * rates.multiprocessors
        for name, kind in {"f32": ("FFMA", 32), "f64": ("DFMA", 32), "f16": ("HMMA", 2048)}.items()
    }
    return {
        "name": driver.name,
        "CUDA of the driver": driver.version,
        "memory in GB": driver.memory * 1e-9,
        "compute capability": f"{driver.attribute(75)}.{driver.attribute(76)}",
        "rates": rates._asdict(),
        "TFLOP/s at most": peaks,
    }


def main() -> None:
    """Print everything, what cannot fail first; write the device as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    given = parser.parse_args()
    for name, command in TOOLS.items():
        print(f"---- {name}\n{said(command)}")
    print("---- python -m dlcore env", *doctor.environment(), sep="\n")
    found = device()
    given.json.write_text(json.dumps(found))
    print("---- python -m dlcore doctor", *doctor.report(), sep="\n")
    print("---- device", *(f"{name}: {value}" for name, value in found.items()), sep="\n")


if __name__ == "__main__":
    main()
