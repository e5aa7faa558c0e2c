"""Runs a program on a batch of blocks: which threads execute next, branches, barriers, warps that wait for each other.

Threads are kept in groups by the index of their next instruction. The group with the lowest index runs until it
branches or meets another group; since compilers place code that follows a branch behind it, groups meet again there.
"""

from __future__ import annotations

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_compile import CONTROL, Machine, warp_barrier
from dlcore.sim.ptx_memory import ThreadError
from dlcore.sim.ptx_state import WARP, Lanes, Read, State, reader, writer
from dlcore.sim.ptx_syntax import Instruction, Label, Operand, Vector
from dlcore.sim.ptx_types import TYPES, Array

Groups = dict[int, Array]  # index of the next instruction: mask of threads


class Run:
    """One execution. `lanes_run` and `warps_run` count, per instruction, the threads and warps that executed it."""

    def __init__(self, machine: Machine, state: State, budget: int) -> None:
        self.machine, self.state, self.budget = machine, state, budget
        self.code, self.end = machine.code, len(machine.code)
        started = np.arange(state.threads) % state.stride < state.block_threads
        self.started, self.alive = started, started.copy()
        self.ready: Groups = {0: started}
        self.deferred: Groups = {}  # polled without success, and wait until nobody else can run
        self.parked: Groups = {}  # wait for other lanes of their warps
        self.barred: Groups = {}  # wait at a barrier
        self.lanes_run = [0] * self.end
        self.warps_run = [0] * self.end

    # ---- scheduling

    def advance(self) -> None:
        """Runs one group up to a branch, or releases threads that wait."""
        if not self.ready:
            self.release()
            return
        index = min(self.ready)
        mask = self.ready.pop(index)
        if index in self.parked:
            mask = mask | self.parked.pop(index)
        self.straight(index, mask)

    def straight(self, index: int, mask: Array) -> None:
        """Executes instructions up to a branch or the place of the next group."""
        stop = min(self.ready, default=self.end)
        lanes = self.lanes(mask)
        while index < stop:
            gate = self.machine.members[index]
            if gate is not None and not (lanes.full and (gate(self.state) == 0xFFFFFFFF).all()):
                lanes = self.assemble(index, lanes, gate)
                if not lanes.count:
                    return
            active = self.guarded(index, lanes)
            self.spend(index, active)
            if self.code[index].opcode in CONTROL and not warp_barrier(self.code[index]):
                self.control(index, lanes, active)
                return
            if active.count:
                self.execute(index, active)
            index += 1
        self.join(self.ready, index, lanes.mask)

    def lanes(self, mask: Array) -> Lanes:
        """The threads of a mask."""
        return Lanes(mask, bool(np.array_equal(mask, self.alive)))

    def guarded(self, index: int, lanes: Lanes) -> Lanes:
        """Those whose guard predicate holds."""
        guard = self.machine.guards[index]
        if guard is None:
            return lanes
        condition = guard(self.state)
        return lanes.where(~condition if self.code[index].negated else condition)

    def spend(self, index: int, active: Lanes) -> None:
        """Counts the instruction."""
        self.lanes_run[index] += active.count
        self.warps_run[index] += active.warps
        self.state.issued += 1
        if self.state.issued > self.budget:
            raise self.error(index, f"more than {self.budget} instructions: an endless loop?", active.mask)

    def execute(self, index: int, active: Lanes) -> None:
        """Runs the instruction; a thread's error becomes a KernelError."""
        try:
            self.machine.steps[index](self.state, active)
        except ThreadError as fault:
            mask = np.zeros(self.state.threads, bool)
            mask[fault.thread] = True
            raise self.error(index, str(fault), mask) from None

    @staticmethod
    def join(groups: Groups, index: int, mask: Array) -> None:
        """Adds threads to the group at an index."""
        if mask.any():
            groups[index] = groups[index] | mask if index in groups else mask

    # ---- flow of control

    def control(self, index: int, lanes: Lanes, active: Lanes) -> None:
        """Branches, exits and barriers: decides where each thread goes."""
        i = self.code[index]
        if active is not lanes and i.opcode not in ("bar", "barrier"):
            self.join(self.ready, index + 1, lanes.mask & ~active.mask)
        if not active.count:
            return
        if i.opcode == "bra":
            pool = self.deferred if index in self.machine.polls else self.ready
            self.join(pool, target_of(i.operands[0]), active.mask)
        elif i.opcode == "brx":
            self.jump(i, active)
        elif i.opcode in ("ret", "exit"):
            self.alive = self.alive & ~active.mask
        elif i.opcode in ("bar", "barrier"):
            self.arrive(index, lanes, active)
        else:
            raise self.error(index, "reached " + ("a trap" if i.opcode == "trap" else ".".join(i.mods)), active.mask)

    def jump(self, i: Instruction, active: Lanes) -> None:
        """brx.idx: a branch by table."""
        table = i.operands[1]
        choice = self.state.spread(reader(i.operands[0], TYPES["u32"])(self.state))
        for k, label in enumerate(table.items if isinstance(table, Vector) else ()):
            self.join(self.ready, target_of(label), active.mask & (choice == k))

    def arrive(self, index: int, lanes: Lanes, active: Lanes) -> None:
        """Threads wait at a barrier of their block."""
        i = self.code[index]
        if active is not lanes or i.mods[:1] not in (("sync",), ("red",)) or len(i.operands) > self.operand_limit(i):
            raise self.error(index, "only bar.sync and bar.red by all threads of a block are supported", active.mask)
        self.join(self.barred, index, active.mask)

    @staticmethod
    def operand_limit(i: Instruction) -> int:
        """Operands of a barrier of all threads; one more would be a number of threads."""
        return 3 if i.mods[0] == "red" else 1

    # ---- lanes of a warp that wait for each other

    def assemble(self, index: int, lanes: Lanes, gate: Read) -> Lanes:
        """The lanes whose warp mates in the member mask have all arrived or exited; the others are parked."""
        shape = (-1, WARP)
        wanted = self.state.spread(gate(self.state)).reshape(shape)
        bits = (wanted[:, :, None] >> np.arange(WARP, dtype=np.uint32) & 1).astype(bool)
        here, alive = lanes.mask.reshape(shape), self.alive.reshape(shape)
        stray = here & ~np.diagonal(bits, axis1=1, axis2=2)
        if stray.any():
            raise self.error(index, "the member mask lacks the thread itself", stray.reshape(-1))
        missing = (bits & (alive & ~here)[:, None, :]).any(2)
        complete = (here & ~missing).reshape(-1)
        self.join(self.parked, index, lanes.mask & ~complete)
        return lanes if complete.sum() == lanes.count else self.lanes(complete)

    # ---- releases

    def release(self) -> None:
        """When no thread can run: complete barriers open, warps whose missing lanes exited go on, pollers retry."""
        if self.open_barriers() or self.retry_parked():
            return
        if not self.deferred:
            raise self.deadlock()
        self.ready, self.deferred = self.deferred, {}

    def open_barriers(self) -> bool:
        """Lets those blocks go on whose living threads all wait at one barrier."""
        rows = (len(self.state.blocks), self.state.stride)
        waiting = np.zeros(rows, bool)
        for mask in self.barred.values():
            waiting |= mask.reshape(rows)
        complete = (waiting == self.alive.reshape(rows)).all(1) & waiting.any(1)
        for index, mask in sorted(self.barred.items()):
            leaving = (mask.reshape(rows) & complete[:, None]).reshape(-1)
            if leaving.any():
                self.open(index, leaving)
        return bool(complete.any())

    def open(self, index: int, leaving: Array) -> None:
        """Lets threads pass a barrier; KernelError where some of their blocks' threads have not come."""
        rows = (len(self.state.blocks), self.state.stride)
        arrived, due = leaving.reshape(rows).sum(1), self.started.reshape(rows).sum(1)
        partial = (arrived > 0) & (arrived < due)
        if partial.any():
            block = int(np.flatnonzero(partial)[0])
            what = f"barrier reached by {arrived[block]} of {due[block]} threads of the block"
            absent = (
                "wait at another barrier" if self.alive.reshape(rows)[block].sum() > arrived[block] else "have exited"
            )
            raise self.error(index, f"{what}; the others {absent}", leaving)
        i = self.code[index]
        if "red" in i.mods:
            self.reduce(i, leaving, rows)
        rest = self.barred.pop(index) & ~leaving
        self.join(self.barred, index, rest)
        self.join(self.ready, index + 1, leaving)

    def reduce(self, i: Instruction, leaving: Array, rows: tuple[int, int]) -> None:
        """bar.red: a count, or whether any or all threads of the block bring a true predicate."""
        votes = self.state.spread(reader(i.operands[-1], TYPES["pred"])(self.state)) & leaving
        totals = votes.reshape(rows).sum(1)
        if "popc" in i.mods:
            write, found = writer(i.operands[0], TYPES["u32"]), totals.astype(np.uint32)
        else:
            needed = self.state.block_threads if "and" in i.mods else 1
            write, found = writer(i.operands[0], TYPES["pred"]), totals >= needed
        write(self.state, self.lanes(leaving), np.repeat(found, self.state.stride))

    def retry_parked(self) -> bool:
        """Lets lanes go on whose missing warp mates have exited meanwhile."""
        for index in sorted(self.parked):
            mask, gate = self.parked.pop(index), self.machine.members[index]
            lanes = self.lanes(mask)
            complete = self.assemble(index, lanes, gate) if gate else lanes
            self.join(self.ready, index, complete.mask)
        return bool(self.ready)

    # ---- errors

    def deadlock(self) -> KernelError:
        """Nobody can go on, and nobody will come."""
        waiting = sorted(self.parked.items()) or sorted(self.barred.items())
        where = ", ".join(f"{mask.sum()} at PTX line {self.code[index].line}" for index, mask in waiting)
        return self.error(waiting[0][0], f"deadlock: threads wait for others that do not come ({where})", waiting[0][1])

    def error(self, index: int, what: str, mask: Array) -> KernelError:
        """What happened, with kernel, PTX line, source line, block and thread (the first of the mask)."""
        i = self.code[min(index, self.end - 1)]
        place = self.machine.program.place(i)
        where = f"PTX line {i.line}{f' ({place})' if place else ''}: {i.name}"
        thread = int(np.flatnonzero(mask)[0]) if mask.any() else 0
        return KernelError(f"kernel {self.machine.program.name}: {what}, at {where}, {self.state.whose(thread)}")


def target_of(operand: Operand) -> int:
    """The index that a label stands for."""
    if not isinstance(operand, Label):
        raise KernelError(f"{operand} is no label")
    return operand.target


def run(machine: Machine, state: State, budget: int) -> Run:
    """Until all threads have exited; KernelError for faults, deadlocks and more than `budget` instructions."""
    execution = Run(machine, state, budget)
    with np.errstate(all="ignore"):
        while execution.alive.any():
            execution.advance()
    return execution
