"""Max pooling in captured programs: the gradient of a relu before it, and a convolution that it alone reads.

All of a window's gradient goes to its largest element, so the relu's mask may come first, on the few elements that are
pooled: there the largest elements are the results of the relu. Its other results are then read by the pooling alone,
and if a convolution makes them it does so in blocks of images, each pooled while it is in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dlcore import dtypes
from dlcore.backends.cpu.lines import native, readers_of
from dlcore.backends.cpu.pool import pooled
from dlcore.graph import Line, Value
from dlcore.op import OPS


def masks_first(lines: Sequence[Line], values: list[Value], kept: Sequence[int]) -> list[Line]:
    """The lines with every `relu_grad` of a `max_pool2d_grad` before it. values: grows by the masked gradients."""
    readers = readers_of(lines, kept)
    pools: dict[Any, Line] = {line.results[1]: line for line in lines if line.name == "max_pool2d" and native(line)}
    made = {slot for line in lines for slot in line.results}
    masks = {line.operands[0]: line for line in lines if line.name == "relu_grad" and native(line)}
    found: list[Line] = []
    dropped: set[int] = set()
    for line in lines:
        mask = masks.get(line.results[0]) if line.results and line.name == "max_pool2d_grad" else None
        pool = pools.get(line.operands[1]) if mask else None  # by the slot of its positions
        if mask and pool and readers[line.results[0]] == 1 and mask.operands[1] == pool.operands[0] in made:
            dy, i = line.operands
            values.append(values[pool.results[0]])
            found.append(replace(mask, operands=[dy, pool.results[0]], results=[len(values) - 1]))
            found.append(replace(line, operands=[len(values) - 1, i], results=mask.results))
            dropped |= {*mask.results}
        elif not dropped.intersection(line.results):
            found.append(line)
    return found


def pooled_convolutions(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    """The lines with every convolution whose result only a `max_pool2d` reads in its place."""
    readers = readers_of(lines, kept)
    pools = {line.operands[0]: line for line in lines if line.name == "max_pool2d" and native(line)}
    found: list[Line] = []
    dropped: set[int] = set()
    for line in lines:
        pool = pools.get(line.results[0]) if _is_convolution(line, values) else None
        if pool and readers[line.results[0]] == 1:
            call = pooled(line.call, values[line.results[0]], values[pool.results[0]], **pool.attrs)
            name = f"{line.name}_max_pool2d"
            found.append(replace(line, name=name, call=call, results=pool.results, several=True))
            dropped |= {*pool.results}
        elif not dropped.intersection(line.results):
            found.append(line)
    return found


def _is_convolution(line: Line, values: Sequence[Value]) -> bool:
    """Whether it is a `conv2d`, perhaps with a tail of one operand."""
    alone = {*line.attrs} - {"then"} == {*OPS["conv2d"].attrs} and len(line.operands) <= OPS["conv2d"].arity
    return native(line) and alone and values[line.results[0]].dtype in (dtypes.float32, dtypes.float64)
