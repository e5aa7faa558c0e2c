"""Embedding: rows of a table by integer ids."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from dlcore.errors import named
from dlcore.indexing import in_range
from dlcore.op import Arr, Op, define, sample
from dlcore.ops.index import NO_SCATTER
from dlcore.ops.shape import where
from dlcore.signature import Dims, Shape
from dlcore.tensor import Tensor


def _embedding(xp: Any, ids: Any, table: Any, *, padding_idx: int | None = None) -> Any:
    picked = xp.take(table, xp.reshape(ids, (prod(ids.shape),)), axis=0)
    return xp.reshape(picked, ids.shape + table.shape[1:])


def _table_gradient(g: Tensor, ids: Tensor, table_shape: Shape, padding_idx: int | None) -> Tensor:
    out: Tensor = embedding_grad(ids, g, rows=table_shape[0], padding_idx=padding_idx)
    return out


_embedding_op: Op = define(
    "embedding",
    "ids[...]:int table[V,D] -> y[...,D]",
    _embedding,
    vjp={"table": _table_gradient},
    check=lambda read, ids, table, **_: in_range(read(ids), table.shape[0], 0),
    samples=lambda: [
        sample(np.asarray([[1, 0, 1], [4, -1, 1]]), (5, 3)),
        sample(np.asarray(0), (1, 1)),
        sample(Arr((0,), dtype="int64"), (2, 3)),
    ],
    doc="Rows of a table.",
)


def _embedding_grad(xp: Any, ids: Any, g: Any, *, rows: int = 0, padding_idx: int | None = None) -> Any:
    y = xp.zeros((rows, g.shape[-1]), dtype=g.dtype)
    xp.add.at(y, ids, g)
    if padding_idx is not None:
        y[padding_idx, :] = 0
    return y


def _rows_gradient(g: Tensor, ids: Tensor, rows: int, padding_idx: int | None) -> Tensor:
    found: Tensor = _embedding_op(ids, g, padding_idx=padding_idx)
    if padding_idx is None:
        return found
    padding = (ids == padding_idx % rows) | (ids == padding_idx % rows - rows)
    kept: Tensor = where(padding.reshape(*ids.shape, 1), 0.0, found)
    return kept


def _table_shape(d: Dims, *, rows: int, **_: Any) -> Mapping[str, Any]:
    return {"V": rows}


embedding_grad: Op = define(
    "embedding_grad",
    "ids[S...]:int g[S...,D] -> dtable[V,D]",
    _embedding_grad,
    vjp={"g": _rows_gradient},
    infer=_table_shape,
    flops=lambda d: d.size("S") * d.D,
    samples=lambda: [
        sample(np.asarray([[1, 0, 1], [4, -1, 1]]), (2, 3, 3), rows=5, padding_idx=-4),
        sample(np.asarray(0), (1,), rows=1),
        sample(Arr((0,), dtype="int64"), (0, 3), rows=2),
    ],
    exempt=NO_SCATTER,
    doc="Gradients added up per row of the table, in the order of the ids; zero for the padding row.",
)


def embedding(ids: Any, table: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `table[V, D]` for integer `ids[...]`, giving `[..., D]`.

    padding_idx: a row that receives no gradient. Raises IndexRangeError for an id outside [-V, V).

    >>> embedding(dl.tensor([2, 0]), dl.eye(3))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    if padding_idx is not None:
        with named("embedding"):
            in_range(padding_idx, table.shape[0], 0)
    out: Tensor = _embedding_op(ids, table, padding_idx=padding_idx)
    return out
