"""Every op, one file per family. Importing this package fills the op table."""

from dlcore.ops import (
    activation,
    conv,
    conv_records,
    einsum,
    elementwise,
    embed,
    gather,
    index,
    join,
    matmul,
    pool,
    reduce,
    shape,
    softmax,
    window,
)

__all__ = [
    "activation",
    "conv",
    "conv_records",
    "einsum",
    "elementwise",
    "embed",
    "gather",
    "index",
    "join",
    "matmul",
    "pool",
    "reduce",
    "shape",
    "softmax",
    "window",
]
