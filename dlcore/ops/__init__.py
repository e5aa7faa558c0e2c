"""Every op, one file per family. Importing this package fills the op table."""

from dlcore.ops import elementwise, index, matmul, reduce, shape

__all__ = ["elementwise", "index", "matmul", "reduce", "shape"]
