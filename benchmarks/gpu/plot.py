"""The picture: measured points under the device's roofline, and shares of the bandwidth of kernels without math."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.driver import EMULATED

Report = dict[str, Any]


def draw(found: Report, path: Path) -> None:
    """Draw it, if there is a device, something measured and matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    if not found["kernels"] or not found["device"]:
        return
    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _roofline(left, found)
    _bandwidth(right, found)
    figure.suptitle(found["device"]["name"] + (f": a rehearsal, {EMULATED}" if found["rehearsal"] else ""))
    figure.savefig(path, dpi=120)


def _roofline(axes: Any, found: Report) -> None:
    intensity, dram = np.geomspace(0.1, 1e4, 200), found["device"]["rates"]["dram"]
    for name, peak in found["device"]["TFLOP/s at most"].items():
        axes.loglog(intensity, np.minimum(intensity * dram, 1e12 * peak), label=f"{name}: {peak:.3g} TFLOP/s")
    for row in found["kernels"]:
        if row["flop"]:
            at = row["flop"] / row["bytes"], 1e3 * row["flop"] / row["time"]["median"]
            axes.plot(*at, "ko", markersize=4)
            axes.annotate(row["kernel"], at, fontsize=6)
    axes.set(xlabel="FLOP per byte of operands and results", ylabel="FLOP/s")
    axes.legend()


def _bandwidth(axes: Any, found: Report) -> None:
    rows = [row for row in found["kernels"] if not row["flop"]]
    axes.barh([row["kernel"] for row in rows], [1e-6 * row["bytes"] / row["time"]["median"] for row in rows])
    axes.axvline(1e-9 * found["device"]["rates"]["dram"], color="black", linestyle="--")
    axes.set(xlabel="GB/s of operands and results (dashed: DRAM)")
    axes.tick_params(axis="y", labelsize=7)
