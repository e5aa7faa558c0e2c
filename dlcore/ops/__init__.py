"""Every op, one file per family. Importing this package fills the op table."""

from dlcore.ops import activation, elementwise, index, matmul, reduce, shape

__all__ = ["activation", "elementwise", "index", "matmul", "reduce", "shape"]
