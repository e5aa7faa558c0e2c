"""`DLCORE_AUTOTUNE=1`: of the cost model's best few choices the one that the device runs quickest.

What was found is kept in `DLCORE_CACHE_DIR/tune`, a file for each device and state of a kernel file. As splits of a sum
add up in another order, results are then the same from run to run only as long as that file stays.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from dlcore import settings
from dlcore.backends.cuda import compiler, cost
from dlcore.backends.cuda.driver import Driver

FEW = 4  # choices that are timed
TIMES = 5  # runs of each, of which the quickest counts

Table = dict[str, list[str | int]]


def choose(
    kernel: str, work: cost.Work, tiles: tuple[cost.Tile, ...], driver: Driver, run: Callable[[cost.Choice], None]
) -> cost.Choice:
    """How to run a product that `run(choice)` launches: what the cost model says, or what was measured."""
    if not settings.get("AUTOTUNE"):
        return cost.choose(work, tiles, driver.multiprocessors)
    module = kernel.partition(".")[0]
    table = _table(path := _path(driver, module))
    key = f"{kernel} {'x'.join(map(str, work))}"
    if key not in table:
        few = cost.ranked(work, tiles, driver.multiprocessors)[:FEW]
        best = min(few, key=lambda choice: milliseconds(driver, partial(run, choice)))
        table[key] = [best.tile.name, best.splits, best.slice]
        compiler.write_whole(path, json.dumps(_read(path) | table, indent=1).encode())
    name, splits, slice_ = table[key]
    return cost.Choice(next(tile for tile in tiles if tile.name == name), int(splits), int(slice_))


def milliseconds(driver: Driver, run: Callable[[], None]) -> float:
    """The least time that the device takes for what `run` launches, after a first time that does not count."""
    call, stream = driver.library.call, ctypes.c_void_p(driver.stream())
    start, end, spent, least = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float(), math.inf
    call("cuEventCreate", ctypes.byref(start), 0)
    call("cuEventCreate", ctypes.byref(end), 0)
    run()
    for _ in range(TIMES):
        call("cuEventRecord", start, stream)
        run()
        call("cuEventRecord", end, stream)
        call("cuEventSynchronize", end)
        call("cuEventElapsedTime", ctypes.byref(spent), start, end)
        least = min(least, spent.value)
    call("cuEventDestroy_v2", start)
    call("cuEventDestroy_v2", end)
    return least


def _path(driver: Driver, module: str) -> Path:
    folder: Path = settings.get("CACHE_DIR") / "tune"
    return folder / f"{_device_name(driver).replace(' ', '-')}-{module}-{_state(module)}.json"


@cache
def _device_name(driver: Driver) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.library.call("cuDeviceGet", ctypes.byref(device), driver.ordinal)
    driver.library.call("cuDeviceGetName", name, len(name), device)
    return name.value.decode()


@cache
def _state(module: str) -> str:
    return hashlib.sha256(compiler.source(module).encode()).hexdigest()[:12]


@cache
def _table(path: Path) -> Table:
    return _read(path)


def _read(path: Path) -> Table:
    found: Table = json.loads(path.read_text()) if path.is_file() else {}
    return found
