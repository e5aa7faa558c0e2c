"""Instructions that read and write memory: ld, st, atom, red (PTX ISA 9.0, sections 9.7.9 and 9.7.13)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_counters import sectors, wavefronts
from dlcore.sim.ptx_memory import CELL
from dlcore.sim.ptx_state import WARP, Lanes, Read, State, address_reader, reader, space_of, writer
from dlcore.sim.ptx_syntax import Address, Instruction, Operand, Vector
from dlcore.sim.ptx_types import BITS, TYPES, Array

Step = Callable[[State, Lanes], None]


def address_of(operand: Operand) -> Read:
    """Function that gives the int64 addresses of `[base + offset]`."""
    if not isinstance(operand, Address):
        raise KernelError(f"{operand} is no address")
    return address_reader(operand.base, operand.offset)


def items_of(operand: Operand) -> tuple[Operand, ...]:
    """The elements of a vector operand, or the operand itself."""
    return operand.items if isinstance(operand, Vector) else (operand,)


def chosen(state: State, lanes: Lanes, values: Array) -> Array:
    """The values of the threads that execute."""
    spread = state.spread(values)
    return spread if lanes.full else spread[lanes.threads]


def expanded(state: State, lanes: Lanes, values: Array) -> Array:
    """One element per thread from one per executing thread; a single value stands for all."""
    if lanes.full or len(values) == 1:
        return np.ascontiguousarray(values)
    found = np.zeros(state.threads, values.dtype)
    found[lanes.threads] = values
    return found


def count(state: State, lanes: Lanes, i: Instruction, operation: str, address: Array, width: int) -> None:
    """Counts sectors or wavefronts of one access to global or shared memory."""
    space = operation.rpartition(".")[2]
    if not state.counting or space not in ("global", "shared"):
        return
    rows = state.spread(address).reshape(-1, WARP)
    measure = sectors if space == "global" else wavefronts
    state.record(i, operation, width, measure(rows, lanes.mask.reshape(-1, WARP), width))


def load(i: Instruction) -> Step:
    """ld: one access of up to 16 bytes per thread, cut into the registers of a vector."""
    kind, space = i.type, space_of(i.mods)
    targets, address_at = items_of(i.operands[0]), address_of(i.operands[1])
    width = kind.bits // 8 * len(targets)
    writers = [writer(target, kind) for target in targets]
    uniform = space in ("global", "param")

    def step(state: State, lanes: Lanes) -> None:
        address = address_at(state)
        count(state, lanes, i, f"ld.{space}", address, width)
        if uniform and len(address) == 1:
            cells = state.memory.load(space, address, width, lanes.threads[:1])
        else:
            cells = state.memory.load(space, chosen(state, lanes, address), width, lanes.threads)
        columns = cells.view(BITS[kind.bits]).reshape(len(cells), -1)
        for k, write in enumerate(writers):
            write(state, lanes, expanded(state, lanes, columns[:, k]).view(kind.dtype))

    return step


def store(i: Instruction) -> Step:
    """st: the counterpart of ld."""
    bits, space = i.type.bits, space_of(i.mods)
    address_at, sources = address_of(i.operands[0]), items_of(i.operands[1])
    width = bits // 8 * len(sources)
    readers = [reader(source, TYPES[f"b{bits}"]) for source in sources]

    def step(state: State, lanes: Lanes) -> None:
        address = address_at(state)
        count(state, lanes, i, f"st.{space}", address, width)
        cells = np.empty((lanes.count, len(readers)), BITS[bits])
        for k, read in enumerate(readers):
            cells[:, k] = chosen(state, lanes, read(state))
        state.memory.store(space, chosen(state, lanes, address), cells.view(CELL[width]).reshape(-1), lanes.threads)

    return step


Update = Callable[[Array, Array, Array], Array]  # old value, operand b, operand c
ATOMIC: dict[str, Update] = {
    "add": lambda old, b, c: old + b,
    "min": lambda old, b, c: np.minimum(old, b),
    "max": lambda old, b, c: np.maximum(old, b),
    "and": lambda old, b, c: old & b,
    "or": lambda old, b, c: old | b,
    "xor": lambda old, b, c: old ^ b,
    "exch": lambda old, b, c: b,
    "cas": lambda old, b, c: np.where(old == b, c, old),
    "inc": lambda old, b, c: np.where(old >= b, 0, old + 1),
    "dec": lambda old, b, c: np.where((old == 0) | (old > b), b, old - 1),
}


def atomic(i: Instruction) -> Step:
    """Threads take turns in the order of their numbers."""
    kind, space = i.type, space_of(i.mods)
    update = ATOMIC[next(m for m in i.mods if m in ATOMIC)]
    target, place, *sources = i.operands if i.opcode == "atom" else (None, *i.operands)
    address_at, readers = address_of(place), [reader(source, kind) for source in sources]  # type: ignore[arg-type]
    write = writer(target, kind) if target is not None else None

    def step(state: State, lanes: Lanes) -> None:
        address = address_at(state)
        count(state, lanes, i, f"{i.opcode}.{space}", address, kind.bits // 8)
        b, c = ([chosen(state, lanes, read(state)) for read in readers] * 2)[:2]
        old = np.zeros(lanes.count, kind.dtype)
        pieces = state.memory.check("write", space, chosen(state, lanes, address), kind.bits // 8, lanes.threads)
        for cells, places, where in pieces:
            values = cells.view(kind.dtype)
            for n, cell in zip(np.arange(lanes.count)[where], places, strict=True):
                old[n] = values[cell]
                values[cell] = update(old[n], b[n], c[n])
        if write is not None:
            write(state, lanes, expanded(state, lanes, old))

    return step


MEMORY: dict[str, Callable[[Instruction], Step]] = {"ld": load, "ldu": load, "st": store, "atom": atomic, "red": atomic}
