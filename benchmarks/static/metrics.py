"""The ten metrics of one family, each beside its limit, and in words what spoils the ones that miss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.static import cubin, families, sample, sass
from benchmarks.static.devices import (
    ARCHITECTURES,
    DEVICES,
    Device,
    Modelled,
    Residency,
    Work,
    loop_rate,
    modelled,
    residency,
)
from benchmarks.static.families import Bars, Family
from dlcore.backends.cuda import compiler
from dlcore.sim import build

Code = Mapping[int, tuple[cubin.Resources, sass.Kernel]]


@dataclass
class Metric:
    """A number, how large it must or may be, and what makes it what it is."""

    value: float
    limit: float
    at_least: bool
    why: str = ""

    @property
    def held(self) -> bool:
        """Whether it is within its limit, to two decimals."""
        value, limit = round(self.value, 2), round(self.limit, 2)
        return value >= limit if self.at_least else value <= limit


def least(value: float, limit: float, why: str = "") -> Metric:
    """A number that must reach its limit."""
    return Metric(value, limit, True, why)


def most(value: float, limit: float, why: str = "") -> Metric:
    """A number that must not pass its limit."""
    return Metric(value, limit, False, why)


def summaries(module: str, architecture: int, only: Iterable[str] = ()) -> dict[str, sass.Kernel]:
    """`sass.kernels` of a compiled file, kept beside it."""
    built = cubin.cubin(module, architecture, tuple(only))

    def make(product: Path) -> None:
        found = sass.kernels(built.path)
        product.write_text(json.dumps({name: asdict(kernel) for name, kernel in found.items()}))

    key = [built.path.name, Path(sass.__file__).read_text()]
    kept = json.loads(cubin.kept(f"{module}-{architecture}", ".json", key, make).read_text())
    return {k: sass.Kernel(sass.Loop(**v["compute"]), sass.Loop(**v["memory"]), v["local"]) for k, v in kept.items()}


@cache
def module_code(
    module: str, architecture: int, only: tuple[str, ...] = ()
) -> dict[str, tuple[cubin.Resources, sass.Kernel]]:
    """Resources and loops of the kernels of a file: all, or those named."""
    resources = cubin.cubin(module, architecture, only).resources
    return {k: (resources[k], found) for k, found in summaries(module, architecture, only).items() if k in resources}


def of_code(bars: Bars, code: Code, launch: sample.Launch) -> dict[str, Metric]:
    """What the machine code shows: spills, share of math, stalls, loads of shared memory, residency."""
    found = {"spills": spills(code)}
    if bars.math_share is not None:
        loops = {arch: kernel.compute for arch, (_, kernel) in code.items()}
        found["math share"] = math_share(loops, bars.math_share)
        if bars.per_stall is not None and (of_stalls := stalls(loops, bars.per_stall)):
            found["math / stalls"] = of_stalls
        if bars.math_per_load is not None:
            arch = min(loops, key=lambda a: loops[a].math / max(1, loops[a].shared_loads))
            ratio = loops[arch].math / max(1, loops[arch].shared_loads)
            found["math : shared loads"] = least(ratio, bars.math_per_load, f"sm_{arch}")
    found["residency"] = resident(bars, code, launch)
    return found


def spills(code: Code) -> Metric:
    """Bytes spilled, and loads and stores of local memory in loops, on the worst architecture."""
    parts = [
        f"sm_{a}: {r.spilled} B spilled, {k.local} local in loops" for a, (r, k) in code.items() if r.spilled + k.local
    ]
    return most(max(r.spilled + k.local for r, k in code.values()), 0, "; ".join(parts))


def math_share(loops: Mapping[int, sass.Loop], limit: float) -> Metric:
    """Of the instructions of the main loop, on the architecture where it is least."""
    arch = min(loops, key=lambda a: loops[a].math / loops[a].instructions)
    loop = loops[arch]
    others = [f"{n} {name}" for name, n in loop.kinds.items() if name != loop.kind]
    return least(
        loop.math / loop.instructions, limit, f"sm_{arch}, {loop.instructions} instructions: {', '.join(others[:5])}"
    )


def stalls(loops: Mapping[int, sass.Loop], limit: float) -> Metric | None:
    """Cycles of the math over cycles until the warp has issued the loop; FFMA only where 128 lanes take one a cycle."""
    shares = {}
    for arch, loop in loops.items():
        lanes = ARCHITECTURES[arch].lanes
        if loop.kind == "HMMA":
            shares[arch] = loop.math * lanes["HMMA"] / loop.stall
        elif lanes[loop.kind] == 128:
            shares[arch] = loop.math / loop.stall
    if not shares:
        return None
    arch = min(shares, key=lambda a: shares[a])
    return least(
        shares[arch], limit, f"sm_{arch}, {loops[arch].stall} cycles for {loops[arch].math} {loops[arch].kind}"
    )


def blocks_resident(arch: int, resources: cubin.Resources, launch: sample.Launch) -> Residency:
    """Of a launch on a multiprocessor."""
    return residency(arch, launch.threads, resources.registers, resources.shared + launch.shared)


def resident(bars: Bars, code: Code, launch: sample.Launch) -> Metric:
    """Warps of a multiprocessor where they are fewest; two blocks count as enough where the class says so."""
    held = {arch: blocks_resident(arch, resources, launch) for arch, (resources, _) in code.items()}
    arch = min(held, key=lambda a: held[a].warps)
    worst = held[arch]
    enough = bars.two_blocks and all(r.blocks >= 2 for r in held.values())
    why = f"sm_{arch}: {worst.blocks} blocks by {worst.limit}, {code[arch][0].registers} registers"
    return least(worst.warps, min(bars.warps, worst.warps) if enough else bars.warps, why)


def of_counts(bars: Bars, counts: sample.Counts) -> dict[str, Metric]:
    """What the emulator counts: bank conflicts, sectors, width of accesses, DRAM bytes."""
    worst = counts.worst
    wavefronts = counts.wavefronts / counts.wavefronts_ideal if counts.wavefronts_ideal else 1.0
    return {
        "wavefronts / ideal": most(wavefronts, 1.0, worst.get("wavefronts", "")),
        "sectors / ideal": most(counts.sectors / counts.sectors_ideal, 1.0, worst.get("sectors", "")),
        "16 bytes at a time": least(counts.wide_bytes / counts.bytes, bars.wide, worst.get("wide", "")),
        "DRAM / compulsory": most(
            counts.dram_of_call / counts.compulsory, bars.dram, "all launches of the call together"
        ),
    }


class Prediction(NamedTuple):
    """A family at full size on a device. Its time is modelled, not measured."""

    work: Work
    result: Modelled
    cycles: float  # of all multiprocessors: math, or the roofline where there is none
    waves: float


def predicted(family: Family, code: Code, counts: sample.Counts, device: Device) -> Prediction:
    """What code and counters give on a device."""
    arch = device.architecture if device.architecture in code else min(code, key=lambda a: abs(a - device.architecture))
    resources, kernel = code[arch]
    loop = kernel.compute if family.fma else kernel.memory
    launch, compulsory = sample.noted(lambda new: family.call(new, family.full), family.kernel, device.multiprocessors)
    fma = family.fma(family.full) if family.fma else 0.0
    dram = counts.dram * compulsory / counts.compulsory  # each sector once, however often it is used
    grown = fma / family.fma(family.small) if family.fma else compulsory / counts.compulsory
    moved = counts.requests * grown, counts.sectors * grown, counts.wavefronts * grown, dram
    work = Work(launch.blocks, -(-launch.threads // 32), fma, *moved, min(dram, compulsory))
    held = max(1, blocks_resident(device.architecture, resources, launch).blocks)
    result = modelled(device, work, loop, held)
    per_second = device.clock * device.multiprocessors
    cycles = fma / loop_rate(device.architecture, loop) if fma else result.roofline * per_second
    return Prediction(work, result, cycles, launch.blocks / (device.multiprocessors * held))


def of_model(family: Family, code: Code, counts: sample.Counts) -> dict[str, Metric]:
    """What the model makes of both on each device, at full size. None of these times is measured."""
    found, shared = {}, {}
    for name, device in DEVICES.items():
        p = predicted(family, code, counts, device)
        why = f"{1e3 * p.result.seconds:.3g} ms modelled, bound by {p.result.bound}, {p.waves:.2f} waves"
        found[f"modelled / roofline, {name}"] = most(p.result.ratio, family.bars.modelled, why)
        shared[name] = p.work.wavefronts / p.cycles
    worst = max(shared, key=lambda name: shared[name])
    why = f"{worst}: {counts.worst['shared']}"
    return {"shared / math cycles": most(shared[worst], family.bars.shared_cycles, why)} | found


def sampled(family: Family) -> tuple[sample.Launch, sample.Counts]:
    """Of the small call; kept as long as kernel file, emulator and this package's files are the same."""
    launch, _ = sample.noted(lambda new: family.call(new, family.full), family.kernel, 108)
    texts = [Path(module.__file__ or "").read_text() for module in (sample, families)]

    def make(product: Path) -> None:
        found, counts = sample.counted(
            lambda new: family.call(new, family.small), family.kernel, family.multiprocessors
        )
        product.write_text(json.dumps([found._asdict(), asdict(counts)]))

    key = [compiler.source(launch.module), build.driver().parent.name, family.kernel, *texts]
    found, counts = json.loads(cubin.kept(family.kernel, ".counts.json", key, make).read_text())
    return sample.Launch(**found), sample.Counts(**counts)


def row(family: Family, architectures: Iterable[int], filtered: bool = False) -> dict[str, Metric]:
    """All metrics of a family. filtered: compile its kernel alone, not the whole file."""
    launch, counts = sampled(family)
    only = (family.kernel,) if filtered else ()
    code = {a: module_code(launch.module, a, only)[family.kernel] for a in architectures}
    return {
        "registers": most(max(r.registers for r, _ in code.values()), 255),
        **of_code(family.bars, code, launch),
        **of_counts(family.bars, counts),
        **of_model(family, code, counts),
    }
