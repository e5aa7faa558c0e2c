"""The state of a batch of blocks that run in lockstep, and how instructions read and write it.

An array has one element per thread; it may have just one where all threads hold the same value. Arrays are never
changed in place, so registers may share them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_counters import Access, Tally
from dlcore.sim.ptx_memory import Memory, Pool, Region
from dlcore.sim.ptx_program import align
from dlcore.sim.ptx_syntax import Instruction, Inverse, Literal, Operand, Program, Register, Special, Symbol
from dlcore.sim.ptx_types import BITS, TYPES, Array, Type

Triple = tuple[int, int, int]
WARP = 32


class Lanes:
    """The threads that execute an instruction; `everyone` when no other thread of the batch is alive."""

    def __init__(self, mask: Array, everyone: bool) -> None:
        self.mask, self.everyone = mask, everyone

    @cached_property
    def threads(self) -> Array:
        """Their numbers in the batch."""
        return np.flatnonzero(self.mask)

    @cached_property
    def count(self) -> int:
        """How many they are."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def warps(self) -> int:
        """How many warps they belong to."""
        return int(self.mask.reshape(-1, WARP).any(1).sum())

    @property
    def full(self) -> bool:
        """Whether they are all threads of the batch."""
        return self.count == len(self.mask)

    def where(self, condition: Array) -> Lanes:
        """Those for which the condition holds."""
        if condition.size == 1 and condition.reshape(-1)[0]:
            return self
        return Lanes(self.mask & condition, False)


class State:
    """Registers, special registers, memory and pending copies of `blocks` (their indices in the grid)."""

    def __init__(
        self,
        program: Program,
        grid: Triple,
        block: Triple,
        blocks: list[Triple],
        dynamic_shared: int,
        parameters: Array,
        variables: dict[str, Region],
        buffers: list[Region],
        counting: bool,
    ) -> None:
        self.program, self.block, self.blocks = program, block, blocks
        self.block_threads = block[0] * block[1] * block[2]
        self.stride = align(self.block_threads, WARP)  # threads per block, with those that fill the last warp
        self.threads = self.stride * len(blocks)
        self.registers = [poison(kind) for kind in program.registers]
        self.variables = variables
        self.dynamic_offset = align(program.shared_size, 16)
        shared = self.dynamic_offset + dynamic_shared
        owner = np.repeat(np.arange(len(blocks)), self.stride)
        thread = np.arange(self.threads)
        pools = {
            "shared": Pool("shared", shared, owner),
            "local": Pool("local", program.local_size, thread),
            "param": Pool("parameter", program.parameter_size, np.zeros_like(owner), parameters),
        }
        self.memory = Memory([*buffers, *variables.values()], pools)
        self.special = special_registers(grid, block, blocks, self.stride)
        self.special["%dynamic_smem_size"] = np.array([dynamic_shared], np.uint32)
        self.special["%total_smem_size"] = np.array([shared], np.uint32)
        self.issued = 0
        self.counting = counting
        self.accesses: dict[tuple[int, str], Access] = {}
        self.copies: list[Any] = []  # cp.async of ptx_copy, not yet waited for
        self.groups = np.zeros(self.threads, np.int64)  # how many groups each thread has committed

    def symbol(self, symbol: Symbol) -> int:
        """The address of a variable in its space."""
        if symbol.space == "global":
            return self.variables[symbol.name].address + symbol.offset
        return symbol.offset + (self.dynamic_offset if symbol.space == "dynamic" else 0)

    def spread(self, values: Array) -> Array:
        """One element per thread."""
        return np.broadcast_to(values, (self.threads,))

    def record(self, instruction: Instruction, operation: str, width: int, tally: Tally) -> None:
        """Adds one execution of a memory instruction to its counters."""
        key = instruction.line, operation
        if key not in self.accesses:
            self.accesses[key] = Access(operation, width, instruction.line, self.program.place(instruction))
        self.accesses[key].add(tally)

    def whose(self, thread: int) -> str:
        """`block (x,y,z), thread (x,y,z)` of a thread of the batch."""
        block, index = divmod(thread, self.stride)
        x, y, _ = self.block
        at = (index % x, index // x % y, index // (x * y))
        return f"block ({','.join(map(str, self.blocks[block]))}), thread ({','.join(map(str, at))})"


def poison(kind: Type) -> Array:
    """What a register holds before it is written: all bits set, a NaN for floats."""
    return np.zeros(1, np.bool_) if kind.kind == "pred" else ~np.zeros(1, BITS[kind.bits])


def special_registers(grid: Triple, block: Triple, blocks: list[Triple], stride: int) -> dict[str, Array]:
    """`%tid.x` and so on as uint32 arrays."""
    thread = np.tile(np.arange(stride), len(blocks))
    lane = thread % WARP
    at = (thread % block[0], thread // block[0] % block[1], thread // (block[0] * block[1]))
    one = np.ones(1, np.int64)
    found: dict[str, Array] = {
        "%laneid": lane, "%warpid": thread // WARP, "%nwarpid": one * (stride // WARP),
        "%smid": one * 0, "%nsmid": one, "%gridid": one * 0,
        "%lanemask_eq": one << lane, "%lanemask_lt": (one << lane) - 1, "%lanemask_le": (one << lane + 1) - 1,
        "%lanemask_ge": 0xFFFFFFFF ^ ((one << lane) - 1), "%lanemask_gt": 0xFFFFFFFF ^ ((one << lane + 1) - 1),
    }  # fmt: skip
    for k, axis in enumerate("xyz"):
        found[f"%tid.{axis}"], found[f"%ntid.{axis}"] = at[k], one * block[k]
        found[f"%ctaid.{axis}"] = np.repeat([b[k] for b in blocks], stride)
        found[f"%nctaid.{axis}"] = one * grid[k]
    return {name: value.astype(np.uint32) for name, value in found.items()}


# ---- operands


Read = Callable[[State], Array]
Write = Callable[[State, Lanes, Array], None]


def reader(operand: Operand, kind: Type) -> Read:
    """Function that gives an operand as decoded numbers of a type."""
    match operand:
        case Register():
            return _register_reader(operand.number, kind)
        case Inverse():
            inner = reader(operand.operand, kind)
            return lambda state: ~inner(state)
        case Literal():
            constant = kind.decode(literal(operand.value, kind))
            return lambda state: constant
        case Symbol():
            symbol = operand
            return lambda state: np.array([state.symbol(symbol)], np.uint64).astype(BITS[kind.bits]).view(kind.dtype)
        case Special():
            return _special_reader(operand.name, kind)
    raise KernelError(f"operand {operand} cannot be read")


def _register_reader(index: int, kind: Type) -> Read:
    storage, dtype = BITS.get(kind.bits), kind.dtype
    if not kind.plain:
        return lambda state: kind.decode(state.registers[index])

    def read(state: State) -> Array:
        raw = state.registers[index]
        return raw.view(dtype) if raw.dtype == storage else kind.decode(raw)

    return read


def _special_reader(name: str, kind: Type) -> Read:
    if name.startswith(("%clock", "%globaltimer")):
        return lambda state: np.array([state.issued], np.uint64).astype(BITS[kind.bits])
    return lambda state: kind.decode(state.special[name].astype(BITS[kind.bits]))


def literal(value: int | float, kind: Type) -> Array:
    """The raw bits of a constant: of a float in a float type, or in the bit type of its width."""
    if kind.kind == "pred":
        return np.array([bool(value)])
    if isinstance(value, int):
        return np.array([value & (1 << kind.bits) - 1], BITS[kind.bits])
    number = TYPES[f"f{kind.bits}"].dtype.type(value)
    return np.array([number]).view(BITS[kind.bits])


def writer(operand: Operand, kind: Type) -> Write:
    """Function that gives a register decoded numbers of a type, for the threads that execute."""
    if not isinstance(operand, Register):
        return lambda state, lanes, value: None  # the sink `_`
    index, width = operand.number, operand.type.bits

    def write(state: State, lanes: Lanes, value: Array) -> None:
        raw = kind.encode(value, width)
        state.registers[index] = raw if lanes.everyone else np.where(lanes.mask, raw, state.registers[index])

    return write


def address_reader(base: Operand, offset: int) -> Read:
    """Function that gives `[base + offset]` as int64 addresses."""
    kind = TYPES["u32"] if isinstance(base, Register) and base.type.bits == 32 else TYPES["u64"]
    read = reader(base, kind)
    return lambda state: read(state).astype(np.int64) + offset


SPACES = ("global", "shared", "local", "param", "const")


def space_of(mods: tuple[str, ...]) -> str:
    """The state space that an instruction names; `const` variables live in global memory here."""
    space = next((m for m in mods if m in SPACES), "generic")
    return "global" if space == "const" else space
