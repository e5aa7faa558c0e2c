"""Machine code as nvdisasm prints it: instructions with their control bits, loops, the path through a loop.

Control bits are 105 to 125 of an instruction's 128; the lowest four are the cycles until the warp may issue again
(Jia, Maggioni, Staiger and Scarpazza 2018, arXiv:1804.06826, section 2.1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.static.cubin import run, tool

_SECTION = re.compile(r"^\s*\.section\s+\.text\.([\w$]+)")
_LABEL = re.compile(r"^(\.?[\w$.]+):\s*$")
_FIRST = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;?\s*/\* 0x[0-9a-f]{16} \*/")
_SECOND = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")
_TARGET = re.compile(r"`\(([^)]+)\)")
_GLOBAL = ("LDG", "STG", "LDGSTS", "LD", "ST")
_SHARED = ("LDS", "LDSM")
_LOCAL = ("LDL", "STL")
_MATH = ("FFMA", "FFMA2", "DFMA", "HMMA")


@dataclass
class Instruction:
    """`opcode` with its modifiers (`LDG.E.128`), its operands as text, the cycles it holds up its warp."""

    opcode: str
    operands: str
    predicated: bool
    stall: int = 0
    target: int | None = None  # of a branch: index of an instruction

    @property
    def name(self) -> str:
        """The opcode alone."""
        return self.opcode.split(".")[0]

    @property
    def bytes(self) -> int:
        """What one thread moves."""
        if self.name == "LDSM":  # of 1, 2 or 4 matrices
            return 4 * int(self.opcode[-1]) if self.opcode[-2:] in (".2", ".4") else 4
        found = re.search(r"\.(?:[US])?(8|16|32|64|128|256)\b", self.opcode)
        return int(found[1]) // 8 if found else 4

    @property
    def ends(self) -> bool:
        """Whether nothing follows it."""
        always = not self.predicated and (self.name != "BRA" or self.operands.startswith("`"))
        return always and self.name in ("BRA", "EXIT", "BRX", "RET", "JMP")


@dataclass
class Loop:
    """Counts of the instructions on a path through a loop, or through a kernel without one."""

    instructions: int = 0
    stall: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    global_requests: int = 0
    loaded: int = 0  # bytes of a thread from global memory
    shared_loads: float = 0  # as if each took 16 bytes

    fma: int = 0  # multiply-adds of a warp, in instructions of `kind`

    @property
    def kind(self) -> str:
        """The instruction that does the math: HMMA if there is any, else DFMA or FFMA."""
        return next((name for name in ("HMMA", "DFMA") if name in self.kinds), "FFMA")

    @property
    def math(self) -> int:
        """How many there are of it."""
        return self.kinds.get(self.kind, 0) + (self.kinds.get("FFMA2", 0) if self.kind == "FFMA" else 0)


@dataclass
class Kernel:
    """What code shows: the loop that computes most, the one that moves most, local accesses in loops."""

    compute: Loop
    memory: Loop
    local: int


def kernels(cubin: Path) -> dict[str, Kernel]:
    """Every kernel of a cubin."""
    text, _ = run(tool("nvdisasm"), "-c", "-hex", str(cubin))
    return {name: summary(code) for name, code in parse(text.splitlines()).items()}


def parse(lines: Iterable[str]) -> dict[str, list[Instruction]]:
    """Instructions of each function in the output of `nvdisasm -c -hex`."""
    functions: dict[str, list[Instruction]] = {}
    labels: dict[str, int] = {}
    code: list[Instruction] = []
    for line in lines:
        if section := _SECTION.match(line):
            resolve(code, labels)
            code, labels = functions.setdefault(section[1], []), {}
        elif label := _LABEL.match(line):
            labels[label[1]] = len(code)
        elif first := _FIRST.match(line):
            code.append(instruction(first[1]))
        elif code and (second := _SECOND.match(line)):
            code[-1].stall = int(second[1], 16) >> 41 & 15
    resolve(code, labels)
    return functions


def instruction(text: str) -> Instruction:
    """One instruction from its text."""
    words = text.split(None, 1)
    predicated = words[0].startswith("@")
    if predicated:
        words = words[1].split(None, 1)
    return Instruction(words[0], words[1] if len(words) > 1 else "", predicated)


def resolve(code: list[Instruction], labels: dict[str, int]) -> None:
    """Give branches their targets."""
    for i in code:
        if i.name == "BRA" and (found := _TARGET.search(i.operands)):
            i.target = labels.get(found[1])


def summary(code: list[Instruction]) -> Kernel:
    """What the instructions of one kernel show."""
    flow = Flow(code)
    return Kernel(
        loop_of(flow.best_path(flow.main_loop(computes), computes)),
        loop_of(flow.best_path(flow.main_loop(moves), lambda i: 16 * (i.name in _GLOBAL and i.bytes == 16))),
        sum(i.name in _LOCAL for i in flow.instructions(set().union(*flow.loops().values()))),
    )


def computes(i: Instruction) -> int:
    """1 for multiply-adds; products of fragments outweigh them."""
    return 1000 * (i.name == "HMMA") + (i.name in _MATH)


def moves(i: Instruction) -> int:
    """Bytes that a thread moves from or to global memory."""
    return i.bytes * (i.name in _GLOBAL)


def loop_of(path: list[Instruction]) -> Loop:
    """Counts of the instructions on a path."""
    found = Loop(
        len(path),
        sum(max(1, i.stall) for i in path),
        dict(Counter(i.name for i in path).most_common()),
        sum(i.name in _GLOBAL for i in path),
        sum(i.bytes for i in path if i.name in ("LDG", "LDGSTS", "LD")),
        sum(i.bytes for i in path if i.name in _SHARED) / 16,
    )
    found.fma = sum(fma(i) for i in path if i.name.startswith(found.kind))
    return found


def fma(i: Instruction) -> int:
    """Multiply-adds of a warp in one instruction: HMMA.16816 multiplies 16x16 by 16x8, HMMA.1688 16x8 by 8x8."""
    if i.name == "HMMA":
        return 2048 if ".16816" in i.opcode else 1024
    return {"FFMA": 32, "DFMA": 32, "FFMA2": 64}.get(i.name, 0)


class Flow:
    """Basic blocks of a kernel and where each leads; the first is the entry."""

    def __init__(self, code: list[Instruction]) -> None:
        cuts = {k + 1 for k, i in enumerate(code) if i.ends or i.target is not None}
        starts = sorted(({0} | cuts | {i.target for i in code if i.target is not None}) - {len(code)})
        number = {start: n for n, start in enumerate(starts)}
        self.blocks = [code[a:b] for a, b in zip(starts, [*starts[1:], len(code)], strict=True)]
        self.next: list[list[int]] = []
        for n, block in enumerate(self.blocks):
            after = [] if block[-1].ends or n + 1 == len(self.blocks) else [n + 1]
            self.next.append(after + [number[t] for t in [block[-1].target] if t is not None])
        self.order, self.back = self._depth_first()

    def _depth_first(self) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Place of each block that is reached in an order that goes forward, and the edges that go back."""
        left, active, back = [(0, iter(self.next[0]))], {0}, []
        seen, finished = {0}, []
        while left:
            block, following = left[-1]
            n = next(following, None)
            if n is None:
                left.pop()
                active.discard(block)
                finished.append(block)
            elif n in active:
                back.append((block, n))
            elif n not in seen:
                seen.add(n)
                active.add(n)
                left.append((n, iter(self.next[n])))
        return {block: place for place, block in enumerate(reversed(finished))}, back

    def loops(self) -> dict[int, set[int]]:
        """Blocks of each loop by its first: those that lead to an edge back without passing the first."""
        before: dict[int, list[int]] = {n: [] for n in self.order}
        for block in self.order:
            for n in self.next[block]:
                before[n].append(block)
        found: dict[int, set[int]] = {}
        for last, head in self.back:
            inside = found.setdefault(head, {head})
            open_ = [last]
            while open_:
                block = open_.pop()
                if block not in inside:
                    inside.add(block)
                    open_ += before[block]
        return found

    def instructions(self, blocks: Iterable[int]) -> list[Instruction]:
        """Of these blocks."""
        return [i for block in blocks for i in self.blocks[block]]

    def main_loop(self, weight: Callable[[Instruction], int]) -> tuple[int, set[int]]:
        """First and all blocks of the shortest loop with at least half the weight of the heaviest; else the kernel."""
        loops = {head: self.instructions(blocks) for head, blocks in self.loops().items()}
        weights = {head: sum(map(weight, body)) for head, body in loops.items()}
        heaviest = max(weights.values(), default=0)
        if heaviest == 0:
            return 0, set(self.order)
        head = min((h for h in loops if 2 * weights[h] >= heaviest), key=lambda h: len(loops[h]))
        return head, self.loops()[head]

    def best_path(self, loop: tuple[int, set[int]], weight: Callable[[Instruction], int]) -> list[Instruction]:
        """The path of most weight forward through blocks, back to the first (or to an end); of these the shortest."""
        head, inside = loop
        best: dict[int, tuple[int, int, list[int]]] = {head: (0, 0, [])}  # weight, minus length, blocks before
        done = [(-1, 0, [head])]
        for block in sorted(inside, key=lambda n: self.order[n]):
            if block not in best:
                continue
            gained, length, path = best[block]
            body = self.blocks[block]
            reached = (gained + sum(map(weight, body)), length - len(body), [*path, block])
            if head in self.next[block] or not self.next[block]:
                done.append(reached)
            for n in self.next[block]:
                if n in inside and self.order[n] > self.order[block] and reached[:2] > best.get(n, (-1, 0))[:2]:
                    best[n] = reached
        return self.instructions(max(done, key=lambda d: d[:2])[2])
