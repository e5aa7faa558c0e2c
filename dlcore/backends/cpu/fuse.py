"""Fewer lines for captured programs: activations in the epilogue of `linear`, element-wise lines that go on with the
result of a convolution or norm as its tail, max pooling of convolutions (`fuse_pool.py`), gradients of attention
where they are joined (`fuse_attention.py`), recurrent layers of an embedding (`fuse_embedding.py`), and other runs of
element-wise lines as chains.

What a line of a run computes and only a later line of it reads stays in cache (`_C.chain`). Bits stay the same: a chain
calls the same kernels on pieces of the arrays, and an epilogue computes the same functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dlcore import _C, dtypes
from dlcore.backends.cpu.elementwise import ADAPTED, PLAIN
from dlcore.backends.cpu.fuse_attention import joined_attention
from dlcore.backends.cpu.fuse_embedding import embedded_recurrences
from dlcore.backends.cpu.fuse_pool import masks_first, pooled_convolutions
from dlcore.backends.cpu.lines import native, readers_of
from dlcore.graph import Const, Line, Value
from dlcore.op import OPS

MAX_OPERANDS, MAX_STEPS = 8, 16  # kMaxOperands and kMaxSteps of csrc
ATTRS = {"clip": lambda a: ("clip", []), **ADAPTED}
HEADS = ("conv2d", "conv2d_dx", "batch_norm", "batch_norm_inference", "layer_norm_grad", "rms_norm_grad")
"""Lines that can go on with a chain in place of their first result."""
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "where")


def fuse(lines: Sequence[Line], values: list[Value], kept: Iterable[int]) -> list[Line]:
    """The lines of a program, fewer. kept: slots that it returns. values: grows by those of new lines."""
    kept = list(kept)
    lines = joined_attention(embedded_recurrences(lines, values, kept), values, kept)
    lines = _epilogues(masks_first(lines, values, kept), kept)
    return _chains(pooled_convolutions(_tails(lines, values, kept), values, kept), values, kept)


# ---- epilogues


def _epilogues(lines: Sequence[Line], kept: Sequence[int]) -> list[Line]:
    """Activations that alone read the result of a `linear` become its own."""
    readers = readers_of(lines, kept)
    reader = {slot: line for line in lines for slot in line.operands if isinstance(slot, int)}
    found: list[Line] = []
    dropped: set[int] = set()
    for line in lines:
        made = line.results[0] if line.results else -1
        after = reader.get(made)
        if _plain_linear(line) and readers[made] == 1 and after and _activation(after):
            found.append(replace(line, results=after.results, attrs={"activation": _activation(after)}))
            dropped.add(after.results[0])
        elif made not in dropped:
            found.append(line)
    return found


def _plain_linear(line: Line) -> bool:
    return line.name == "linear" and native(line) and line.attrs["activation"] == "none"


def _activation(line: Line) -> str:
    """What `linear` calls it, or nothing."""
    name = _kernel(line)[0] if native(line) else ""
    return name if name in ("relu", "tanh", "sigmoid", "gelu") else ""


# ---- tails


def _tails(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    """Element-wise lines that alone read the result of one of HEADS, and else what was made before it, move into it."""
    readers = readers_of(lines, kept)
    found: list[Line] = []
    tails: dict[int, list[Line]] = {}  # of lines, by their place in `found`
    makers: dict[int, int] = {}  # places of the lines that made the slots; what is from outside may be written in place
    for line in lines:
        slots = [x for x in line.operands if isinstance(x, int)]
        place = max((makers.get(x, -1) for x in slots), default=-1)
        head = found[place] if all(x in makers for x in slots) and place >= 0 else None
        if head and _goes_on(line, head, tails.get(place, []), readers, values):
            tails.setdefault(place, []).append(line)
        else:
            place = len(found)
            found.append(line)
        if native(line) and not line.view:
            makers |= dict.fromkeys(line.results, place)
    return [_with_tail(line, tails[i]) if i in tails else line for i, line in enumerate(found)]


def _goes_on(line: Line, head: Line, tail: Sequence[Line], readers: Counter[int], values: Sequence[Value]) -> bool:
    """Whether a line can be the next one of a head's tail."""
    result = (tail[-1] if tail else head).results[0]
    return (
        head.name in HEADS
        and native(head)
        and readers[result] == 1
        and result in line.operands
        and _fits(line, values)
        and not _kernel(line)[1]
        and all(isinstance(x, int) and values[x] == values[line.results[0]] for x in line.operands)
        and len(tail) < MAX_STEPS
        and len(_operands([*tail, line])) <= MAX_OPERANDS
    )


def _with_tail(head: Line, tail: Sequence[Line]) -> Line:
    others = [x for x in _operands(tail) if x != head.results[0]]
    steps, number = _steps(tail, [head.results[0], *others])
    chain = _C.chain(1 + len(others), steps, [number[tail[-1].results[0]]])
    absent = [Const(None)] * (OPS[head.name].arity - len(head.operands))
    return replace(
        head,
        name="_".join([head.name, *(name for name, _ in steps)]),
        operands=[*head.operands, *absent, *others],
        results=[tail[-1].results[0], *head.results[1:]],
        attrs={**head.attrs, "then": chain},
    )


# ---- chains


def _chains(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    last = {slot: i for i, line in enumerate(lines) for slot in line.operands if isinstance(slot, int)}
    last |= dict.fromkeys(kept, len(lines))
    found: list[Line] = []
    run: list[Line] = []
    for i, line in enumerate(lines):
        if line.view and not _reads(line, run):
            found.append(line)
            continue
        if run and not _joins(line, run, values):
            found += _chained(run, i, last)
            run = []
        if _fits(line, values):
            run.append(line)
        else:
            found.append(line)
    return found + _chained(run, len(lines), last)


def _fits(line: Line, values: Sequence[Value]) -> bool:
    """Whether a chain can hold it: float32 or float64 alone."""
    known = native(line) and (line.name in ATTRS or (line.name in PLAIN and line.name not in COMPARISONS))
    if not known or values[line.results[0]].dtype not in (dtypes.float32, dtypes.float64):
        return False
    dtype = values[line.results[0]].dtype
    held = [values[x] if isinstance(x, int) else x.value for x in line.operands]
    return all(isinstance(x, float) or getattr(x, "dtype", None) == dtype for x in held)


def _joins(line: Line, run: Sequence[Line], values: Sequence[Value]) -> bool:
    """Whether it goes on from a run: reads a result of it, is of the same shape and dtype, and there is room."""
    return (
        _fits(line, values)
        and values[line.results[0]] == values[run[0].results[0]]
        and _reads(line, run)
        and len(run) < MAX_STEPS
        and len(_operands([*run, line])) <= MAX_OPERANDS
    )


def _reads(line: Line, run: Sequence[Line]) -> bool:
    """Whether a result of the run is among its operands."""
    return any(other.results[0] in line.operands for other in run)


def _operands(run: Sequence[Line]) -> list[int | Const]:
    """What a run takes from outside, each slot once."""
    made = {slot for line in run for slot in line.results}
    given: dict[Any, int | Const] = {}
    for k, line in enumerate(run):
        for i, x in enumerate([*line.operands, *(Const(v) for v in _kernel(line)[1])]):
            if not (isinstance(x, int) and x in made):
                given.setdefault(x if isinstance(x, int) else (k, i), x)
    return list(given.values())


def _kernel(line: Line) -> tuple[str, list[float]]:
    return ATTRS[line.name](line.attrs) if line.name in ATTRS else (line.name, [])


def _chained(run: Sequence[Line], end: int, last: dict[int, int]) -> list[Line]:
    """The run as one line, if it is longer than that. end: the place after it."""
    if len(run) < 2:
        return list(run)
    operands = _operands(run)
    steps, number = _steps(run, operands)
    wanted = [line.results[0] for line in run if last.get(line.results[0], -1) >= end or line is run[-1]]
    call = _C.chain(len(operands), steps, [number[slot] for slot in wanted])
    return [Line("_".join(name for name, _ in steps), call, operands, wanted, several=len(wanted) > 1)]


def _steps(run: Sequence[Line], operands: Sequence[int | Const]) -> tuple[list[tuple[str, list[int]]], dict[int, int]]:
    """A run as `_C.chain` takes it, and the numbers of its values by slot."""
    number: dict[int, int] = {x: k for k, x in enumerate(operands) if isinstance(x, int)}
    constants = [k for k, x in enumerate(operands) if isinstance(x, Const)]
    steps: list[tuple[str, list[int]]] = []
    for line in run:
        name, more = _kernel(line)
        taken = [number[x] if isinstance(x, int) else constants.pop(0) for x in line.operands]
        steps.append((name, taken + [constants.pop(0) for _ in more]))
        number[line.results[0]] = len(operands) + len(steps) - 1
    return steps, number
