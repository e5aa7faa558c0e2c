"""The tensor-core path: cp.async, ldmatrix and mma.sync (PTX ISA 9.0, sections 9.7.9.25 and 9.7.14.5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_access import Step, address_of, chosen, count, items_of
from dlcore.sim.ptx_counters import Tally, busiest_bank
from dlcore.sim.ptx_memory import CELL
from dlcore.sim.ptx_state import WARP, Lanes, State, reader, writer
from dlcore.sim.ptx_syntax import Instruction, Literal, Operand
from dlcore.sim.ptx_types import TYPES, Array

LANE = np.arange(WARP)
GROUP, MEMBER = LANE // 4, LANE % 4  # "groupID" and "threadID_in_group" of the PTX ISA
U32 = TYPES["u32"]


# ---- cp.async


@dataclass
class Copy:
    """Copies that threads have asked for: `size` bytes from `source`, then zeros up to `width`; `group` per thread."""

    source: Array
    target: Array
    size: Array
    width: int
    group: Array
    pending: Array


def copy_async(i: Instruction) -> Step:
    """cp.async and the instructions that group its copies and wait for them."""
    if "commit_group" in i.mods:
        return commit_group
    if "wait_group" in i.mods or "wait_all" in i.mods:
        return wait_group(i)
    return start_copy(i)


def start_copy(i: Instruction) -> Step:
    """The bytes move when the thread waits for their group, the latest moment that the ISA allows."""
    target_at, source_at = address_of(i.operands[0]), address_of(i.operands[1])
    width = constant(i.operands[2])
    size_of = reader(i.operands[3] if len(i.operands) > 3 else i.operands[2], U32)

    def step(state: State, lanes: Lanes) -> None:
        size = np.minimum(state.spread(size_of(state)).astype(np.int64), width)
        source, target = state.spread(source_at(state)), state.spread(target_at(state))
        some = lanes.where(size > 0)
        count(state, some, i, "cp.async.global", source, width)
        count(state, lanes, i, "cp.async.shared", target, width)
        for length in np.unique(size[some.threads]):
            threads = some.threads[size[some.threads] == length]
            state.memory.check("read", "global", source[threads], 1 if length < width else width, threads)
            state.memory.check("read", "global", source[threads] + length - 1, 1, threads)
        state.memory.check("write", "shared", target[lanes.threads], width, lanes.threads)
        state.copies.append(Copy(source, target, size, width, state.groups, lanes.mask))

    return step


def commit_group(state: State, lanes: Lanes) -> None:
    """Ends the group of copies that each thread has started since its last commit."""
    state.groups = state.groups + lanes.mask


def wait_group(i: Instruction) -> Step:
    """Moves the bytes of all groups but the latest N; wait_all, of copies without a commit too."""
    allowed = constant(i.operands[0]) if "wait_group" in i.mods else -1

    def step(state: State, lanes: Lanes) -> None:
        for copy in state.copies:
            due = copy.pending & lanes.mask & (copy.group < state.groups - allowed)
            finish(state, copy, np.flatnonzero(due))
            copy.pending = copy.pending & ~due
        state.copies = [copy for copy in state.copies if copy.pending.any()]

    return step


def finish(state: State, copy: Copy, threads: Array) -> None:
    """Moves the bytes of some threads."""
    if not len(threads):
        return
    size = copy.size[threads]
    data = np.zeros((len(threads), copy.width), np.uint8)
    whole = size == copy.width
    if whole.any():
        cells = state.memory.load("global", copy.source[threads[whole]], copy.width, threads[whole])
        data[whole] = cells.view(np.uint8).reshape(-1, copy.width)
    for byte in range(int(size[~whole].max(initial=0))):
        rows = ~whole & (size > byte)
        data[rows, byte] = state.memory.load("global", copy.source[threads[rows]] + byte, 1, threads[rows])
    state.memory.store("shared", copy.target[threads], data.view(CELL[copy.width]).reshape(-1), threads)


def constant(operand: Operand) -> int:
    """The value of an operand that must be a literal."""
    if not isinstance(operand, Literal):
        raise KernelError(f"{operand} should be a constant")
    return int(operand.value)


# ---- ldmatrix


def load_matrix(i: Instruction) -> Step:
    """Lane 8j+r gives the address of row r of matrix j; lane l gets elements 2(l%4) and the next of row l/4."""
    targets, address_at = items_of(i.operands[0]), address_of(i.operands[1])
    if "m8n8" not in i.mods or i.mods[-1] != "b16":
        raise KernelError(f"unsupported instruction {i.name}")
    writers = [writer(target, TYPES["b32"]) for target in targets]
    rows = 8 * len(targets)

    def step(state: State, lanes: Lanes) -> None:
        used = Lanes(lanes.mask & np.tile(rows > LANE, state.threads // WARP), False)
        address = state.spread(address_at(state))
        cells = np.zeros(state.threads, CELL[16])
        cells[used.threads] = state.memory.load("shared", chosen(state, used, address), 16, used.threads)
        count_rows(state, used, i, address, len(targets))
        for j, write in enumerate(writers):
            matrix = cells.reshape(-1, WARP)[:, 8 * j : 8 * j + 8].copy().view(np.uint16).reshape(-1, 8, 8)
            matrix = matrix.transpose(0, 2, 1) if "trans" in i.mods else matrix
            low, high = matrix[:, GROUP, 2 * MEMBER], matrix[:, GROUP, 2 * MEMBER + 1]
            write(state, lanes, (low | high.astype(np.uint32) << 16).reshape(-1))

    return step


def count_rows(state: State, used: Lanes, i: Instruction, address: Array, matrices: int) -> None:
    """One request per warp; each matrix takes as many wavefronts as its busiest bank has rows' words."""
    if not state.counting:
        return
    rows = address.reshape(-1, 8)[used.mask.reshape(-1, 8)[:, 0]]
    words = (rows // 4)[:, :, None] + np.arange(4)
    state.record(
        i, "ldmatrix.shared", 16, Tally(used.warps, used.warps * WARP, int(busiest_bank(words, 1).sum()), len(rows))
    )


# ---- mma.sync

FRAGMENT = {"tf32": (TYPES["tf32"], 1), "bf16": (TYPES["bf16x2"], 2), "f16": (TYPES["f16x2"], 2)}


def matrix_multiply(i: Instruction) -> Step:
    """D = A B + C of a warp: the products, exact in float32, are added to C one by one, as in the emulator."""
    shape = re.fullmatch(r"m16n8k(\d+)", i.mods[2])
    out, a_kind, b_kind, _ = i.mods[-4:]
    if not shape or i.mods[3:5] != ("row", "col") or out not in ("f32", "f16") or a_kind not in FRAGMENT:
        raise KernelError(f"unsupported instruction {i.name}")
    k = int(shape[1])
    load_a, load_b = fragment_reader(i.operands[1], a_kind, 16, k), fragment_reader(i.operands[2], b_kind, 8, k)
    load_c, store_d = accumulator_reader(i.operands[3], out), accumulator_writer(i.operands[0], out)

    def step(state: State, lanes: Lanes) -> None:
        a, b, total = load_a(state), load_b(state), load_c(state)
        for n in range(k):
            total = total + a[:, :, n, None] * b[:, None, :, n]
        store_d(state, lanes, total)

    return step


def fragment_reader(operand: Operand, name: str, rows: int, k: int) -> Callable[[State], Array]:
    """A (or B transposed) as float32 [warps, rows, k]; a lane's register r, element e is at row groupID + 8 (r odd),
    column 4 n (r / 2) + n member + e, with n elements in a register (B has no odd rows).
    """
    kind, n = FRAGMENT[name]
    readers = [reader(item, kind if n == 2 else U32) for item in items_of(operand)]
    halves = rows // 8

    def read(state: State) -> Array:
        matrix = np.zeros((state.threads // WARP, rows, k), np.float32)
        for r, read_register in enumerate(readers):
            values = read_register(state)
            if n == 1:  # tf32 is the upper 19 bits
                values = (values & np.uint32(0xFFFFE000)).view(np.float32)[None]
            for e in range(n):
                column = 4 * n * (r // halves) + n * MEMBER + e
                matrix[:, GROUP + 8 * (r % halves), column] = state.spread(values[e]).reshape(-1, WARP)
        return matrix

    return read


def accumulator_places(out: str) -> list[tuple[Array, Array]]:
    """Row and column of each accumulator element of a lane."""
    return [(GROUP + 8 * (e // 2), 2 * MEMBER + e % 2) for e in range(4)]


def accumulator_reader(operand: Operand, out: str) -> Callable[[State], Array]:
    """C as float32 [warps, 16, 8]."""
    kind = TYPES["f32" if out == "f32" else "f16x2"]
    readers = [reader(item, kind) for item in items_of(operand)]

    def read(state: State) -> Array:
        matrix = np.zeros((state.threads // WARP, 16, 8), np.float32)
        values = [v for r in readers for v in np.atleast_2d(r(state))]
        for (row, column), value in zip(accumulator_places(out), values, strict=True):
            matrix[:, row, column] = state.spread(value).reshape(-1, WARP)
        return matrix

    return read


def accumulator_writer(operand: Operand, out: str) -> Callable[[State, Lanes, Array], None]:
    """D, rounded to its type."""
    kind = TYPES["f32" if out == "f32" else "f16x2"]
    writers = [writer(item, kind) for item in items_of(operand)]

    def write(state: State, lanes: Lanes, matrix: Array) -> None:
        values = [matrix[:, row, column].reshape(-1).astype(kind.dtype) for row, column in accumulator_places(out)]
        for r, write_register in enumerate(writers):
            write_register(state, lanes, np.stack(values[2 * r : 2 * r + 2]) if kind.packed else values[r])

    return write


TENSOR: dict[str, Callable[[Instruction], Step]] = {
    "cp": copy_async,
    "ldmatrix": load_matrix,
    "mma": matrix_multiply,
}
