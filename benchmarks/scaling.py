"""Cost grows as it should: time per unit of work, for batches, lengths and depths from 1 to thousands.

Small sizes pay for the call; where the arrays outgrow the last cache, the time per unit should stay the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dlcore as dl
from benchmarks import harness, models
from benchmarks.row import Run
from dlcore import autograd, nn
from dlcore.profile import profile

CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
ROUNDS = 9


@dataclass(frozen=True)
class Curve:
    """A function for each number of units."""

    unit: str
    sizes: tuple[int, ...]
    make: Callable[[int], Run]


@dataclass(frozen=True)
class Point:
    """Of a call with `size` units; nbytes: what its ops read and wrote."""

    size: int
    ms: float
    nbytes: int

    @property
    def per_unit(self) -> float:
        """Microseconds."""
        return 1e3 * self.ms / self.size


def _normal(*shape: int) -> dl.Tensor:
    return dl.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def _gradients(f: Callable[[], Any], operands: list[dl.Tensor]) -> Run:
    """Values and gradients."""
    dy = _normal(*f().shape)
    return lambda: autograd.gradients(f(), operands, [dy])


def _mlp(batch: int) -> Run:
    model, x = models.layers(nn, "mlp"), _normal(batch, 784)
    return _gradients(lambda: model(x), list(model.parameters()))


def _conv(batch: int) -> Run:
    x, w = (_normal(*shape).detach(requires_grad=True) for shape in ((batch, 16, 14, 14), (16, 16, 3, 3)))
    return _gradients(lambda: dl.conv2d(x, w, padding=1), [x, w])


def _lstm(steps: int) -> Run:
    model, x = nn.LSTM(128, 128), _normal(steps, 32, 128)
    return _gradients(lambda: model(x)[0], list(model.parameters()))


def _deep(depth: int) -> Run:
    model, x = nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(depth))), _normal(64, 256)
    for p in model.parameters():  # He's: others' gradients end as subnormal numbers, which processors are slow with
        if p.ndim == 2:
            nn.init.he_normal(p)
    return _gradients(lambda: model(x), list(model.parameters()))


BATCHES = tuple(2**i for i in range(13))
CURVES = {
    "mlp, batch": Curve("image", BATCHES, _mlp),
    "conv 3x3 16->16 14x14, batch": Curve("image", BATCHES, _conv),
    "lstm b32 I128 H128, length": Curve("step", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000), _lstm),
    "linear 256 and relu b64, depth": Curve("layer", (1, 2, 5, 10, 20, 50, 100, 200), _deep),
}


def points(curve: Curve, rounds: int = ROUNDS) -> list[Point]:
    """All sizes, in turn."""
    runs = [curve.make(size) for size in curve.sizes]
    times = harness.measure(runs, rounds)
    return [Point(n, t.median, _nbytes(run)) for n, t, run in zip(curve.sizes, times, runs, strict=True)]


def _nbytes(run: Run) -> int:
    with profile() as p:
        run()
    return sum(r.nbytes for r in p.rows.values())


def beyond(found: Sequence[Point], cache: int) -> list[Point]:
    """The points whose arrays do not fit the cache; at least the last two."""
    return [p for p in found if p.nbytes > cache or p in found[-2:]]


def flatness(found: Sequence[Point], cache: int) -> float:
    """Longest over shortest time per unit beyond the cache."""
    times = [p.per_unit for p in beyond(found, cache)]
    return max(times) / min(times)


def cache_bytes() -> int:
    """Of the last cache, as Linux tells; else 32 MB."""
    text = CACHE.read_text().strip() if CACHE.exists() else "32768K"
    return int(text.removesuffix("K")) * 1024


def table(curve: Curve, found: Sequence[Point], cache: int) -> Iterator[str]:
    """A line per size; those beyond the cache are marked."""
    for p in found:
        mark = "*" if p in beyond(found, cache) else ""
        yield f"{p.size:8}{p.ms:12.3f} ms{p.per_unit:12.2f} us per {curve.unit}{1e-6 * p.nbytes:10.1f} MB {mark}"


def main(argv: Sequence[str]) -> int:
    """Print every curve; with --strict 1 if one is not flat."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="curves whose name contains TEXT")
    parser.add_argument("--flat", type=float, default=1.3, metavar="RATIO", help="what counts as flat (1.3)")
    parser.add_argument("--strict", action="store_true", help="fail if a curve is not flat beyond the cache (*)")
    given = parser.parse_args(argv)
    dl.set_device("cpu")
    cache, steep = cache_bytes(), []
    for name, curve in CURVES.items():
        if given.only in name:
            found = points(curve)
            ratio = flatness(found, cache)
            print(f"{name}: {ratio:.2f} beyond the cache", *table(curve, found, cache), sep="\n", flush=True)
            steep += [name] * (ratio > given.flat)
    if steep:
        print(f"NOT FLAT within {given.flat}: {', '.join(steep)}")
    return int(given.strict and bool(steep))
