"""Recurrent layers that read an embedding, in captured programs: they multiply its table and look the products up.

Where a batch has more tokens than the table has rows, as with characters, most of the first product is of equal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from dlcore.backends.cpu.lines import native, readers_of
from dlcore.backends.cpu.recurrent import Embedded
from dlcore.graph import Line, Value


def embedded_recurrences(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    """The lines with each recurrent layer that comes right after the embedding it reads in the place of both."""
    readers = readers_of(lines, kept)
    found: list[Line] = []
    for line in lines:
        if found and _reads_rows(line, found[-1], values):
            source = found[-1]
            if readers[source.results[0]] == 1:
                found.pop()
            operands = [*source.operands, *line.operands[1:]]
            line = replace(line, name=f"embedding_{line.name}", call=partial(_embedded, line.call), operands=operands)
        found.append(line)
    return found


def _reads_rows(line: Line, source: Line, values: Sequence[Value]) -> bool:
    """Whether it is a recurrent layer of an embedding with so many tokens that multiplying the table is less work."""
    if not (source.name == "embedding" and line.name in ("lstm", "gru", "rnn") and native(source) and native(line)):
        return False
    ids, table = source.operands
    if line.operands[0] != source.results[0] or not (isinstance(ids, int) and isinstance(table, int)):
        return False
    tokens: int = prod(values[ids].shape)
    return tokens >= 2 * Embedded.rows(values[table].shape[0])


def _embedded(call: Callable[..., Any], ids: Any, table: Any, *others: Any, **attrs: Any) -> Any:
    return call(Embedded(ids, table), *others, **attrs)
