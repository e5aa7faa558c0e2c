"""One-hot vectors and target weights of cross-entropy on `kernels/targets.cu`."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

from dlcore import dtypes
from dlcore.backends.cuda.launch import driver_of, empty, launch
from dlcore.backends.cuda.ops_assign import refuse_large
from dlcore.backends.cuda.ops_copy import CASTS, astype, contiguous, positions
from dlcore.backends.cuda.ops_elementwise import BLOCK, as_array, grid_of
from dlcore.dispatch import Call, implement
from dlcore.ops.index import NO_CLASS

Array = Any

NO_LABEL = -1


def _refuse(call: Call) -> str | None:
    dtype = call.attrs["dtype"]
    return refuse_large(call) if dtype in CASTS else f"no kernel for {dtype}"


def _refuse_empty(call: Call) -> str | None:
    return _refuse(call) if call.attrs["num_classes"] else "no classes"


def _refuse_weight(call: Call) -> str | None:
    known = call.shapes[1] is None or (call.dtype in CASTS and dtypes.kind(call.attrs["dtype"]) == "float")
    return _refuse(call) if known else f"no kernel for weights of {call.dtype} and targets of {call.attrs['dtype']}"


def _run(
    labels: Array, weight: Array | None, y: Array, note: Array | None, keep: float, share: float, ignored: int
) -> Array:
    """Fill `y[N,C,S...]` from `labels[N,S...]`."""
    inner = prod(y.shape[2:])
    packed = struct.pack("<ddqIIIxxxx", keep, share, ignored, y.shape[1], inner, y.size)
    if y.size:
        kernel = f"targets.targets_{CASTS[y.dtype]}"
        launch(kernel, grid_of(y.size, y), (BLOCK,), positions(labels), weight, y, note, packed, like=y)
    return y


@implement("one_hot", "cuda", refuse=_refuse_empty, checks=True)
def one_hot(labels: Array, *, num_classes: int, dtype: Any) -> Array:
    """`labels[S...] -> y[S...,C]`."""
    labels = as_array(labels)
    y = empty((labels.size, num_classes), dtype, labels)
    note = driver_of(labels).refusals.record("one_hot", NO_CLASS, num_classes)
    return _run(labels, None, y, note, 1.0, 0.0, NO_LABEL).reshape(*labels.shape, num_classes)


@implement("cross_entropy_targets", "cuda", refuse=_refuse_weight)
def cross_entropy_targets(
    labels: Array, weight: Array | None, *, num_classes: int, ignore_index: int, label_smoothing: float, dtype: Any
) -> Array:
    """`labels[N,S...] weight[C]? -> t[N,C,S...]`."""
    if weight is not None:
        weight = contiguous(weight) if weight.dtype == dtype else astype(weight, dtype=dtype)
    y = empty((labels.shape[0], num_classes, *labels.shape[1:]), dtype, labels)
    return _run(labels, weight, y, None, 1 - label_smoothing, label_smoothing / num_classes, ignore_index)
