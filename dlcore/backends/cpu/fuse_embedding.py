"""Recurrent layers that read an embedding, in captured programs: they multiply its table and look the products up.

Where a batch has more tokens than the table has rows, as with characters, most of the first product is of equal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

from dlcore.backends.cpu.lines import native, without_unread
from dlcore.backends.cpu.recurrent import Embedded
from dlcore.graph import Const, Line, Value

RECURRENT = ("lstm", "gru", "rnn")


class Rows(NamedTuple):
    """Where `table[ids]` comes from. swapped: with its first two axes exchanged."""

    ids: int | Const
    table: int | Const
    swapped: bool


def embedded_recurrences(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    """The lines with recurrent layers that take ids and table of an embedding, if only views and other recurrent layers
    lie between them, so that the table is as it was."""
    found: list[Line] = []
    rows: dict[int | Const, Rows] = {}
    fused = False
    for line in lines:
        known = rows.get(line.operands[0]) if line.operands and isinstance(line.operands[0], int) else None
        if line.name == "embedding" and native(line):
            ids, table = line.operands
            rows[line.results[0]] = Rows(ids, table, False)
        elif line.name == "permute_dims" and known and line.attrs["axes"] == (1, 0, 2):
            rows[line.results[0]] = known._replace(swapped=not known.swapped)
        elif line.name in RECURRENT and native(line):
            if known and _is_less(known, values):
                line = _of_rows(line, known)
                fused = True
        elif not line.view:
            rows.clear()
        found.append(line)
    return without_unread(found, kept, "embedding") if fused else found


def _is_less(rows: Rows, values: Sequence[Value]) -> bool:
    """Whether to multiply the table is less work, by half."""
    if not (isinstance(rows.ids, int) and isinstance(rows.table, int)):
        return False
    tokens: int = prod(values[rows.ids].shape)
    return tokens >= 2 * Embedded.rows(values[rows.table].shape[0])


def _of_rows(line: Line, rows: Rows) -> Line:
    call = partial(_embedded, line.call, rows.swapped)
    operands = [rows.ids, rows.table, *line.operands[1:]]
    return replace(line, name=f"embedding_{line.name}", call=call, operands=operands)


def _embedded(call: Callable[..., Any], swapped: bool, ids: Any, table: Any, *others: Any, **attrs: Any) -> Any:
    return call(Embedded(ids.T if swapped else ids, table), *others, **attrs)
