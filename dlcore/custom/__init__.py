"""Ops of one's own: `dl.elementwise` from a Python function of numbers, `dl.cuda_kernel` from CUDA C."""

from dlcore.custom.cuda import cuda_kernel
from dlcore.custom.pointwise import elementwise

__all__ = ["cuda_kernel", "elementwise"]
