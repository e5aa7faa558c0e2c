"""From a program to Python functions: what each instruction does, decided once per kernel."""

from __future__ import annotations

from collections.abc import Callable

from dlcore.errors import KernelError
from dlcore.sim.ptx_access import MEMORY, Step
from dlcore.sim.ptx_moves import CHOICES
from dlcore.sim.ptx_ops import ARITHMETIC, Plan
from dlcore.sim.ptx_state import Lanes, Read, State, reader, writer
from dlcore.sim.ptx_syntax import Instruction, Label, Literal, Operand, Program, Register, Vector
from dlcore.sim.ptx_tensor import TENSOR
from dlcore.sim.ptx_types import TYPES, Array
from dlcore.sim.ptx_warp import WARP_WIDE

PLANNERS = ARITHMETIC | CHOICES
NOTHING = {"membar", "fence", "nanosleep", "prefetch", "prefetchu", "griddepcontrol", "discard", "applypriority"}
CONTROL = {"bra", "brx", "ret", "exit", "bar", "barrier", "trap", "call"}
CARRY = Register(0, TYPES["pred"], "%cc")


def plan(instruction: Instruction) -> Plan:
    """Raises KernelError for an instruction that the interpreter does not know."""
    planner = PLANNERS.get(instruction.opcode)
    if planner is None:
        raise KernelError(f"unsupported instruction {instruction.name}")
    return planner(instruction)


def nothing(state: State, lanes: Lanes) -> None:
    """Memory is consistent at once, so fences have nothing to do; neither have hints."""


def arithmetic(i: Instruction) -> Step:
    """Reads the sources, computes, writes the results."""
    compute, source_types, result_types, carry_in, _ = plan(i)
    target, *sources = i.operands
    targets = target.items if isinstance(target, Vector) else (target,)
    flat = [item for s in sources for item in (s.items if isinstance(s, Vector) else (s,))]
    flat = [*flat[: len(source_types) - carry_in], CARRY] if carry_in else flat
    readers = [reader(operand, kind) for operand, kind in zip(flat, source_types, strict=False)]
    writers = [writer(operand, kind) for operand, kind in zip((*targets, CARRY), result_types, strict=False)]
    if len(writers) == 1:
        return single_result(compute, readers, writers[0])  # type: ignore[arg-type]

    def step(state: State, lanes: Lanes) -> None:
        for write, value in zip(writers, compute(*[read(state) for read in readers]), strict=True):
            write(state, lanes, value)

    return step


def single_result(compute: Callable[..., Array], readers: list[Read], write: Callable[..., None]) -> Step:
    """The common case, without a loop over results."""
    return lambda state, lanes: write(state, lanes, compute(*[read(state) for read in readers]))


def compiled(i: Instruction) -> Step:
    """The Python function that executes an instruction (control flow is the machine's own)."""
    if i.opcode in CONTROL or i.opcode in NOTHING:
        return nothing
    for table in (MEMORY, WARP_WIDE, TENSOR):
        if i.opcode in table:
            return table[i.opcode](i)
    return arithmetic(i)


def warp_barrier(i: Instruction) -> bool:
    """`bar.warp.sync`"""
    return i.opcode == "bar" and i.mods[:1] == ("warp",)


def members(i: Instruction) -> Operand | None:
    """The member mask of an instruction for which the lanes of a warp wait for each other."""
    if i.opcode in ("mma", "ldmatrix"):
        return Literal(-1)
    if warp_barrier(i) or (i.opcode in WARP_WIDE and "sync" in i.mods):
        return i.operands[-1]
    return None


class Machine:
    """A compiled program."""

    def __init__(self, program: Program) -> None:
        self.program, self.code = program, program.code
        self.steps = [self._named(i, compiled) for i in self.code]
        self.guards = [reader(i.guard, TYPES["pred"]) if i.guard else None for i in self.code]
        masks = [members(i) for i in self.code]
        self.members = [reader(m, TYPES["u32"]) if m is not None else None for m in masks]
        self.polls = polling_branches(self.code)

    def _named(self, i: Instruction, make: Callable[[Instruction], Step]) -> Step:
        try:
            return make(i)
        except (KernelError, KeyError, ValueError) as error:
            raise KernelError(f"kernel {self.program.name}: PTX line {i.line}: {i.name}: {error}") from error


def polling_branches(code: list[Instruction]) -> set[int]:
    """Backward branches of loops that read what other threads write: there the others must get a turn."""

    def polls(i: Instruction) -> bool:
        return i.opcode in ("atom", "nanosleep") or (
            i.opcode == "ld" and any(m in i.mods for m in ("volatile", "acquire", "relaxed"))
        )

    found = set()
    for index, i in enumerate(code):
        target = i.operands[0] if i.opcode == "bra" else None
        if isinstance(target, Label) and target.target <= index and any(map(polls, code[target.target : index])):
            found.add(index)
    return found
