"""What PTX text is made of: operands, instructions, variables, and the program of a kernel (PTX ISA 9.0, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from dlcore.errors import KernelError
from dlcore.sim.ptx_types import TYPES, Type

CONDITION_CODE = "%cc"  # the carry of add.cc and its kin: one predicate per kernel


class Register(NamedTuple):
    """A virtual register: its number in the kernel, its declared type, its name in the text."""

    number: int
    type: Type
    name: str


class Literal(NamedTuple):
    """A constant: an integer, or the number that a float literal stands for."""

    value: int | float


class Special(NamedTuple):
    """A read-only register such as `%tid.x`."""

    name: str


class Symbol(NamedTuple):
    """The address of a variable: `offset` in the memory of its `space` (for `global`, in the variable `name`)."""

    space: str
    name: str
    offset: int


class Vector(NamedTuple):
    """`{a, b, ...}`, or the pair `p|q`."""

    items: tuple[Operand, ...]


class Inverse(NamedTuple):
    """`!p`"""

    operand: Operand


class Address(NamedTuple):
    """`[base + offset]`."""

    base: Operand
    offset: int


@dataclass
class Label:
    """A place in the code; `target` is an index into the instructions."""

    name: str
    target: int = -1


Operand = Register | Literal | Special | Symbol | Vector | Inverse | Address | Label
SINK = Literal(0)  # written `_`: a result that nobody wants


class Source(NamedTuple):
    """File number and line of CUDA C++ (from `-lineinfo`), innermost inlined function first."""

    frames: tuple[tuple[int, int], ...]


class Instruction(NamedTuple):
    """`@guard opcode.mods operands;` at a line of the PTX text."""

    opcode: str
    mods: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    line: int
    source: Source | None

    @property
    def name(self) -> str:
        """`fma.rn.f32`"""
        return ".".join((self.opcode, *self.mods))

    @property
    def type(self) -> Type:
        """The type that the opcode ends with (KernelError if it is not one)."""
        found = TYPES.get(self.mods[-1]) if self.mods else None
        if found is None:
            raise KernelError(f"PTX line {self.line}: {self.name} ends with no known type")
        return found


class Parameter(NamedTuple):
    """A kernel parameter: its place in the parameter memory; `type` is None for a struct."""

    name: str
    type: Type | None
    offset: int
    size: int


class Variable(NamedTuple):
    """A variable of the module or of a kernel, with its initial bytes; size 0 is dynamic shared memory."""

    name: str
    space: str
    type: Type | None
    align: int
    size: int
    data: bytes


@dataclass
class Program:
    """A kernel ready to run: instructions, register types, bytes of parameter, shared and local memory."""

    name: str
    parameters: list[Parameter]
    max_threads: int | None
    files: dict[int, str]
    code: list[Instruction] = field(default_factory=list)
    registers: list[Type] = field(default_factory=list)
    parameter_size: int = 0
    shared_size: int = 0
    local_size: int = 0

    def place(self, instruction: Instruction) -> str:
        """`file.cu:line` of the CUDA source, for inlined functions that of the .cu file ("" without `-lineinfo`)."""
        if instruction.source is None:
            return ""
        frames = [(self.files.get(file, "?"), line) for file, line in instruction.source.frames]
        file, line = next((frame for frame in frames if frame[0].endswith(".cu")), frames[-1])
        return f"{PurePath(file).name}:{line}"
