"""PTX interpreter: runs what nvcc or NVRTC emitted, inline PTX included, on NumPy arrays.

    module = Module(text)
    result = module.launch("saxpy", 4, 128, [x, y, np.float32(2), np.int32(500)])
    result.flops  # {"fma.f32": 1000}

One array element per CUDA thread, the blocks of a batch in lockstep. It stops at PTX: ptxas, registers, timing and the
rounding inside tensor cores are a device's own.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.engine import Counter, empty
from dlcore.sim.ptx_compile import Machine
from dlcore.sim.ptx_counters import Access, merged, total_flops
from dlcore.sim.ptx_machine import Run, run
from dlcore.sim.ptx_memory import Region, region
from dlcore.sim.ptx_parse import ModuleText
from dlcore.sim.ptx_program import align, build
from dlcore.sim.ptx_state import State, Triple
from dlcore.sim.ptx_syntax import Parameter, Program
from dlcore.sim.ptx_types import BITS, Array

Argument = Array | np.generic | int | float | bytes
MAX_THREADS, MAX_SHARED = 1024, 232_448  # of a block; the latter on sm_90


@dataclass
class Result:
    """What a launch did.

    `instructions` counts warps' instructions; `flops` is by kind (`fma.f32` counts 2 each, `mma` 2 m n k); `counters`
    has one row per source line (with `-lineinfo`, else PTX line) and operation; `accesses` one per PTX line.
    """

    kernel: str
    instructions: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    opcodes: dict[str, int] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)

    @property
    def counters(self) -> list[Counter]:
        """Memory accesses by source line, operation and width, as the emulator counts them."""
        return merged(self.kernel, self.accesses)

    @property
    def total_flops(self) -> int:
        """All kinds together."""
        return sum(self.flops.values())


class Module:
    """Kernels and variables of one PTX text (KernelError if it is not understood)."""

    def __init__(self, text: str) -> None:
        self.text = ModuleText(text)
        self.kernels = sorted(self.text.kernels)
        self._machines: dict[str, Machine] = {}
        self._variables: dict[str, Region] = {}

    def machine(self, name: str) -> Machine:
        """The compiled kernel (KernelError if there is none, or it has an instruction that is not known)."""
        if name not in self._machines:
            self._machines[name] = Machine(build(self.text, name))
        return self._machines[name]

    def parameters(self, name: str) -> list[Parameter]:
        """Names, types, offsets and sizes of a kernel's parameters."""
        return self.machine(name).program.parameters

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Argument],
        shared: int = 0,
        *,
        memory: Sequence[Array] = (),
        cooperative: bool = False,
        budget: int = 1_000_000,
        batch: int = 4096,
        counting: bool = True,
    ) -> Result:
        """Runs a kernel; arrays are written in place.

        `args`: C-contiguous arrays for pointers, NumPy or Python numbers for scalars, bytes for structs, or an int that
        is an address in one of the arrays `memory`. `shared`: dynamic shared memory in bytes. Blocks run `batch`
        threads at a time (all at once if `cooperative`), each batch at most `budget` instructions.
        Raises KernelError, which names kernel, PTX line, block and thread.
        """
        machine = self.machine(name)
        size, shape = triple(grid), triple(block)
        check_launch(machine.program, size, shape, shared)
        parameters = packed(machine.program, args)
        buffers = regions(args, memory)
        blocks = [(x, y, z) for z, y, x in product(*(range(n) for n in reversed(size)))]
        step = len(blocks) if cooperative else max(1, batch // align(int(np.prod(shape)), 32))
        tally = Tallied(machine.program)
        for first in range(0, len(blocks), step):
            chosen = blocks[first : first + step]
            variables = self._regions()
            state = State(machine.program, size, shape, chosen, shared, parameters, variables, buffers, counting)
            tally.add(run(machine, state, budget))
        return tally.result()

    def _regions(self) -> dict[str, Region]:
        """The module's `.global` and `.const` variables, which outlive a launch."""
        for variable in self.text.variables.values():
            if variable.name not in self._variables and variable.space != "shared":
                data = empty(max(variable.size, 1), np.uint8)
                data[:] = np.frombuffer(variable.data.ljust(len(data), b"\0"), np.uint8)
                data.flags.writeable = variable.space != "const"
                self._variables[variable.name] = region(data, f"variable {variable.name}")
        return self._variables


class Tallied:
    """Adds up the runs of a launch's batches."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lanes, self.warps = [0] * len(program.code), [0] * len(program.code)
        self.accesses: dict[tuple[int, str], Access] = {}

    def add(self, run: Run) -> None:
        """Adds one batch."""
        self.lanes = [a + b for a, b in zip(self.lanes, run.lanes_run, strict=True)]
        self.warps = [a + b for a, b in zip(self.warps, run.warps_run, strict=True)]
        for key, access in run.state.accesses.items():
            if key in self.accesses:
                self.accesses[key].add(access.tally)
            else:
                self.accesses[key] = access

    def result(self) -> Result:
        """The sums."""
        opcodes: collections.Counter[str] = collections.Counter()
        for instruction, warps in zip(self.program.code, self.warps, strict=True):
            opcodes[instruction.name] += warps
        accesses = sorted(self.accesses.values(), key=lambda a: a.line)
        flops = total_flops(self.program, self.lanes)
        return Result(self.program.name, sum(self.warps), flops, dict(+opcodes), accesses)


def triple(size: int | Sequence[int]) -> Triple:
    """A grid or block as (x, y, z)."""
    x, y, z = (*([size] if isinstance(size, int) else size), 1, 1)[:3]
    return int(x), int(y), int(z)


def check_launch(program: Program, grid: Triple, block: Triple, shared: int) -> None:
    """Raises KernelError for a configuration that no device takes."""
    threads, allowed = int(np.prod(block)), program.max_threads or MAX_THREADS
    if min(grid) < 1 or min(block) < 1 or threads > min(allowed, MAX_THREADS):
        raise KernelError(
            f"kernel {program.name}: cannot launch grid {grid} of blocks {block} (at most {allowed} threads)"
        )
    total = align(program.shared_size, 16) + shared
    if shared < 0 or total > MAX_SHARED:
        raise KernelError(f"kernel {program.name}: {total} bytes of shared memory, a block has {MAX_SHARED}")


def packed(program: Program, args: Sequence[Argument]) -> Array:
    """The bytes of the parameter memory (KernelError unless number, kinds and sizes of the arguments fit)."""
    if len(args) != len(program.parameters):
        wanted, got = len(program.parameters), len(args)
        raise KernelError(f"kernel {program.name} takes {wanted} arguments, got {got}")
    data = np.zeros(align(program.parameter_size, 16), np.uint8)
    for k, (parameter, arg) in enumerate(zip(program.parameters, args, strict=True)):
        raw = argument_bytes(parameter, arg)
        if len(raw) != parameter.size:
            wanted_type = parameter.type.name if parameter.type else f"struct of {parameter.size} bytes"
            kind = getattr(arg, "dtype", type(arg).__name__)
            raise KernelError(f"kernel {program.name}: argument {k} should be {wanted_type}, got {kind}")
        data[parameter.offset : parameter.offset + parameter.size] = np.frombuffer(raw, np.uint8)
    return data


def argument_bytes(parameter: Parameter, arg: Any) -> bytes:
    """One argument's bytes; none if it does not fit its parameter."""
    kind = parameter.type
    if isinstance(arg, np.ndarray):
        fits = kind is not None and kind.name in ("u64", "b64", "s64") and arg.flags.c_contiguous
        return np.uint64(arg.ctypes.data).tobytes() if fits else b""
    if isinstance(arg, np.generic):
        mixed = kind is not None and kind.kind != "b" and (kind.kind == "f") != (arg.dtype.kind == "f")
        return b"" if mixed else arg.tobytes()
    if isinstance(arg, bytes):
        return arg
    if kind is None or isinstance(arg, float) != (kind.kind == "f"):
        return b""
    if isinstance(arg, float):
        return np.array(arg, kind.dtype).tobytes()
    inside = -(1 << kind.bits - 1) <= arg < 1 << kind.bits
    return BITS[kind.bits].type(arg & (1 << kind.bits) - 1).tobytes() if inside else b""


def regions(args: Sequence[Argument], memory: Sequence[Array]) -> list[Region]:
    """The arrays that a kernel may touch; one that lies inside another counts as part of it."""
    named = [(a, f"argument {k}") for k, a in enumerate(args) if isinstance(a, np.ndarray)]
    named += [(a, f"memory {k}") for k, a in enumerate(memory)]
    found: list[Region] = []
    for array, name in sorted(named, key=lambda pair: (pair[0].ctypes.data, -pair[0].nbytes)):
        if array.nbytes:
            new = region(array, name)
            found += [new] if not found or new.end > found[-1].end else []
    return found
