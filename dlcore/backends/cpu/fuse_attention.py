"""Gradients of attention that captured programs join: side by side from the start.

A projection to queries, keys and values of all heads is split for attention; on the way back its gradient is a concat
of three. Here the gradient of attention writes three parts of one array, and nothing is left to join.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dlcore.backends.cpu.attention import joined_gradients
from dlcore.backends.cpu.lines import native, readers_of, without_unread
from dlcore.graph import Const, Line, Value


def joined_attention(lines: Sequence[Line], values: Sequence[Value], kept: Sequence[int]) -> list[Line]:
    """The lines with every `attention_grad` in the place of a concat that alone reads its results, through views."""
    readers = readers_of(lines, kept)
    makers = {slot: line for line in lines for slot in line.results}
    joined: dict[int, Line] = {}  # by the first result of the attention_grad
    concats: set[int] = set()
    for line in lines:
        parts = [_of_heads(x, makers, readers, values) for x in line.operands] if _joins_columns(line, values) else []
        source = makers.get(parts[0]) if parts else None
        if source and source.name == "attention_grad" and native(source) and parts == source.results:
            call, name = joined_gradients, "attention_grad_concat"
            joined[parts[0]] = replace(source, name=name, call=call, results=line.results, several=False)
            concats |= {*line.results}
    if not joined:
        return list(lines)
    left = [line for line in lines if not concats.intersection(line.results)]
    return without_unread([joined.get(line.results[0], line) if line.results else line for line in left], kept)


def _joins_columns(line: Line, values: Sequence[Value]) -> bool:
    return line.name == "concat" and line.attrs["axis"] in (-1, len(values[line.results[0]].shape) - 1)


def _of_heads(x: int | Const, makers: dict[int, Line], readers: Counter[int], values: Sequence[Value]) -> int:
    """The slot [..., H, T, D] of which x[..., T, H*D] is made by views that nothing else reads, or -1."""
    flat = makers.get(x) if isinstance(x, int) else None
    inside = flat.operands[0] if flat and flat.name == "reshape" else None
    swap = makers.get(inside) if isinstance(inside, int) else None
    source = swap.operands[0] if swap and swap.name == "permute_dims" else None
    if not (isinstance(x, int) and isinstance(inside, int) and swap and isinstance(source, int)):
        return -1
    shape, rank = values[source].shape, len(values[source].shape)
    swapped = rank > 2 and swap.attrs["axes"] == (*range(rank - 3), rank - 2, rank - 3, rank - 1)
    fits = swapped and values[x].shape == (*shape[:-3], shape[-2], shape[-3] * shape[-1])
    return source if fits and readers[x] == readers[inside] == readers[source] == 1 else -1
