"""Ops that read and write elements by position."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore import indexing
from dlcore.op import define, sample
from dlcore.signature import Dims


def _indexed(d: Dims, *, index: indexing.Key) -> dict[str, Any]:
    probe = np.broadcast_to(np.empty((), np.bool_), d.S)
    return {"R": probe[indexing.decode(index, [np.zeros(s, np.int64) for s in d.ids])].shape}


getitem = define(
    "getitem",
    "x[S...]:any *ids[...]:int -> y[R...]",
    lambda xp, x, *ids, index=(): x[indexing.decode(index, ids)],
    infer=_indexed,
    view=True,
    samples=lambda: [
        sample((4, 5), index=(1, ("slice", None, None, 2))),
        sample((4, 5), np.asarray([3, 0, 0]), index=(("array", 0), "...")),
        sample((3, 0), index=("...", None)),
    ],
    exempt={"array_api": "the standard leaves indexing with integer arrays and slices together undefined"},
    doc="Elements by a NumPy-style index; written `x[...]`.",
)
