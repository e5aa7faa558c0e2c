"""Limits of architectures and the rates of three devices, with what follows for a kernel: residency and modelled time.

Limits: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability". Rates: the vendor's data
sheets at boost clock. HMMA's rate on compute capability 9.0 is that of mma.sync: 65 % of what wgmma reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from benchmarks.static.sass import Loop

WARP, SCHEDULERS, SECTOR = 32, 4, 32
LATENCY = 800.0  # cycles from a load of global memory to its arrival while DRAM is busy: an assumption


class Architecture(NamedTuple):
    """What a multiprocessor holds, and what it computes per cycle."""

    warps: int
    blocks: int
    shared: int  # bytes
    lanes: dict[str, float]  # multiply-adds per cycle of FFMA, DFMA; cycles of one HMMA on each of 4 tensor cores


ARCHITECTURES = {
    80: Architecture(64, 32, 164 * 1024, {"FFMA": 64, "DFMA": 32, "HMMA": 8}),
    86: Architecture(48, 16, 100 * 1024, {"FFMA": 128, "DFMA": 2, "HMMA": 16}),
    89: Architecture(48, 24, 100 * 1024, {"FFMA": 128, "DFMA": 2, "HMMA": 16}),
    90: Architecture(64, 32, 228 * 1024, {"FFMA": 128, "DFMA": 64, "HMMA": 6.2}),
    100: Architecture(64, 32, 228 * 1024, {"FFMA": 128, "DFMA": 64, "HMMA": 8}),
    120: Architecture(48, 24, 100 * 1024, {"FFMA": 128, "DFMA": 2, "HMMA": 16}),
}


class Device(NamedTuple):
    """A GPU: multiprocessors, clock in Hz, bytes per second from DRAM and from the L2 cache."""

    architecture: int
    multiprocessors: int
    clock: float
    dram: float
    l2: float


DEVICES = {
    "A100": Device(80, 108, 1.41e9, 1555e9, 5120 * 1.41e9),
    "H100": Device(90, 132, 1.83e9, 3350e9, 5500e9),
    "RTX 4090": Device(89, 128, 2.52e9, 1008e9, 5000e9),
}


# CU_DEVICE_ATTRIBUTE_...
CLOCK_RATE, MULTIPROCESSOR_COUNT, MEMORY_CLOCK_RATE, MEMORY_BUS_WIDTH = 13, 16, 36, 37  # in kHz, -, kHz, bits
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76


def of_driver(attribute: Callable[[int], int]) -> Device:
    """The device of a driver, which answers for its attributes.

    Memory moves data at both edges of its clock. What the driver does not tell, rates per cycle and of the L2 cache, is
    taken from the newest known architecture that is not newer.
    """
    capability = 10 * attribute(CAPABILITY_MAJOR) + attribute(CAPABILITY_MINOR)
    architecture = max([a for a in ARCHITECTURES if a <= capability], default=min(ARCHITECTURES))
    multiprocessors, clock = attribute(MULTIPROCESSOR_COUNT), 1e3 * attribute(CLOCK_RATE)
    dram = 2e3 * attribute(MEMORY_CLOCK_RATE) * attribute(MEMORY_BUS_WIDTH) / 8
    return Device(architecture, multiprocessors, clock, dram, _l2(architecture) * multiprocessors * clock)


def _l2(architecture: int) -> float:
    """Bytes per cycle and multiprocessor, as on the listed device of the nearest architecture."""
    like = min(DEVICES.values(), key=lambda device: abs(device.architecture - architecture))
    return like.l2 / like.clock / like.multiprocessors


class Residency(NamedTuple):
    """Blocks and warps that a multiprocessor holds, and what allows no more."""

    blocks: int
    warps: int
    limit: str


def residency(architecture: int, threads: int, registers: int, shared: int) -> Residency:
    """Of a kernel with so many threads a block, registers a thread and bytes of shared memory a block.

    Registers go to warps in units of 256, warps to four partitions of 16,384 registers; a block takes 1 KB of shared
    memory more than it asks for, in units of 128 bytes.
    """
    of = ARCHITECTURES[architecture]
    warps = ceil(threads / WARP)
    warps_by_registers = 4 * (16384 // (ceil(registers * WARP / 256) * 256))
    limits = {
        "registers": warps_by_registers // warps,
        "shared memory": of.shared // (ceil((shared + 1024) / 128) * 128),
        "warps": of.warps // warps,
        "blocks": of.blocks,
    }
    blocks = min(limits.values())
    return Residency(blocks, blocks * warps, next(name for name, n in limits.items() if n == blocks))


@dataclass
class Work:
    """What all blocks of a launch do together; None of it is time."""

    blocks: int
    warps: int  # of a block
    fma: float  # multiply-adds that the problem asks for
    requests: float  # to global memory, by warps
    sectors: float  # of 32 bytes, between L2 and multiprocessors
    wavefronts: float  # of shared memory
    dram: float  # bytes
    compulsory: float  # bytes of operands and results


class Modelled(NamedTuple):
    """Seconds that the model gives, what they are spent on, and the roofline's seconds. Nothing is measured."""

    seconds: float
    bound: str
    roofline: float

    @property
    def ratio(self) -> float:
        """Modelled time over roofline."""
        return self.seconds / self.roofline


def rate(architecture: int, kind: str, fma: float) -> float:
    """Multiply-adds of a multiprocessor per cycle, in instructions of a kind; fma: of one instruction, for HMMA."""
    lanes = ARCHITECTURES[architecture].lanes[kind]
    return SCHEDULERS * fma / lanes if kind == "HMMA" else lanes


def loop_rate(architecture: int, loop: Loop) -> float:
    """`rate` of a loop's math."""
    return rate(architecture, loop.kind, loop.fma / loop.math)


def roofline(device: Device, per_cycle: float, fma: float, compulsory: float) -> float:
    """Seconds that a device needs at least: for multiply-adds, at a multiprocessor's `rate`, and for bytes of DRAM."""
    return max(fma / (per_cycle * device.clock * device.multiprocessors), compulsory / device.dram)


def modelled(device: Device, work: Work, loop: Loop, resident: int) -> Modelled:
    """Wave after wave of blocks, each as long as the resource that it needs longest.

    loop: of most multiply-adds where the work has any, else of most traffic; it tells instructions per multiply-add or
    per request. A last wave that is not full takes what its busiest multiprocessor takes, with fewer loads under way.
    """
    full, left = divmod(work.blocks, device.multiprocessors * resident)
    waves = [device.multiprocessors * resident] * min(full, 1) + [left] * (left > 0)
    found = [max((t, name) for name, t in _wave(device, work, loop, blocks).items()) for blocks in waves]
    cycles = sum(t * (full if i == 0 and full else 1) for i, (t, _) in enumerate(found))
    per_cycle = loop_rate(device.architecture, loop) if work.fma else 1.0
    return Modelled(cycles / device.clock, found[0][1], roofline(device, per_cycle, work.fma, work.compulsory))


def _wave(device: Device, work: Work, loop: Loop, blocks: int) -> dict[str, float]:
    """Cycles that a wave of so many blocks needs of each resource."""
    busiest, share = ceil(blocks / device.multiprocessors), blocks / work.blocks
    rounds = work.fma / loop.fma if work.fma else work.requests / max(1, loop.global_requests)  # of all warps
    own = busiest / work.blocks  # part of the work that the busiest multiprocessor has
    cycles = {
        "issue": own * rounds * loop.instructions / SCHEDULERS,
        "one warp's stalls": rounds / (work.blocks * work.warps) * loop.stall,
        "shared memory": own * work.wavefronts,
        "L2": share * work.sectors * SECTOR / device.l2 * device.clock,
        "DRAM": share * work.dram / device.dram * device.clock,
    }
    if work.fma:
        cycles["math"] = own * work.fma / loop_rate(device.architecture, loop)
    elif loop.loaded:
        under_way = busiest * work.warps * WARP * loop.loaded
        cycles["loads under way"] = own * work.dram * LATENCY / under_way
    return cycles
