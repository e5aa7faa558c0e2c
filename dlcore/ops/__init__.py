"""Every op, one file per family. Importing this package fills the op table."""

from dlcore.ops import activation, conv, elementwise, index, matmul, reduce, shape, softmax

__all__ = ["activation", "conv", "elementwise", "index", "matmul", "reduce", "shape", "softmax"]
