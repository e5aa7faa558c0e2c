"""The same work done by other libraries on the same memory: cuBLAS through CuPy, cuBLAS and cuDNN through PyTorch.

In a rehearsal NumPy stands for CuPy and PyTorch runs on the CPU, so that each line is seen to compute the right thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.operands import Operands, listed
from benchmarks.static.families import Family
from dlcore import dtypes

Run = Callable[[], list[Any]]


def peers(family: Family, operands: Operands) -> dict[str, Callable[[], Run]]:
    """Of each library that has this work: a function that prepares it and gives the function to time.

    That one returns the family's first results, None for one that the library does not give.
    """
    arrays = [x._array for x in operands.tensors]
    found: dict[str, Callable[[], Run]] = {}
    on_gpu = operands.device == "cuda"
    product, torch = ("cuBLAS by CuPy", "PyTorch") if on_gpu else ("NumPy", "PyTorch on the CPU")
    slow = not on_gpu and arrays[0].dtype.itemsize == 2  # NumPy takes seconds for products of 16-bit numbers
    if family.kernel.startswith("gemm_") and "tf32" not in family.kernel and not slow:
        found[product] = lambda: _product(family.kernel)(None, *arrays)
    if (prepare := _torch_work(family)) and _torch() is not None:
        found[torch] = lambda: _on_torch(family, prepare, arrays)
    return found


def _product(kernel: str) -> Callable[..., Run]:
    left, right = tuple(_layout(kernel))

    def prepare(_: Any, a: Any, b: Any) -> Run:
        x, y = a.T if left == "t" else a, b.T if right == "t" else b
        return lambda: [x @ y]

    return prepare


def _layout(kernel: str) -> str:
    """Which operands are transposed ("t"), by the kernel's name."""
    which, *more = kernel.split("_")[1:]
    if which == "skinny":
        return {"k": "nt", "n": "nn"}[more[0]]
    return "nn" if which == "reduce" else which


def on_host_of_peer(array: Any) -> np.ndarray[Any, Any]:
    """A result of PyTorch, CuPy or NumPy as a NumPy array."""
    if hasattr(array, "detach"):
        return np.asarray(array.detach().cpu().double())
    return np.asarray(array.get() if hasattr(array, "get") else array)


# ---- PyTorch


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _torch_work(family: Family) -> Callable[..., Any] | None:
    if family.kernel.startswith("gemm_"):
        return _product(family.kernel)
    return next((work for name, work in TORCH.items() if re.match(name, family.kernel)), None)


def _on_torch(family: Family, prepare: Callable[..., Any], arrays: list[Any]) -> Run:
    torch = _torch()
    tf32 = "tf32" in family.kernel  # elsewhere f32 means f32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True  # its fastest algorithm
    work = prepare(torch, *[_shared(torch, x) for x in arrays])
    return lambda: listed(work())


def _shared(torch: Any, array: Any) -> Any:
    """A PyTorch tensor over the memory of an array; bfloat16, which not every library passes on, as 16-bit integers."""
    if array.dtype == dtypes.bfloat16:
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def _lstm(torch: Any, h: Any, c: Any, x: Any, w_ih: Any, w_hh: Any) -> Callable[[], Any]:
    module = torch.nn.LSTM(x.shape[2], h.shape[1], bias=False, device=x.device, dtype=x.dtype).requires_grad_(False)
    module.weight_ih_l0.copy_(w_ih)  # into the one piece of memory that cuDNN wants
    module.weight_hh_l0.copy_(w_hh)
    return lambda: module(x, (h[None], c[None]))[0]


def _conv_dw(side: int) -> Callable[..., Any]:
    """The gradient for filters of side x side taps."""

    def prepare(torch: Any, dy: Any, x: Any) -> Callable[[], Any]:
        shape = (dy.shape[1], x.shape[1], side, side)
        return lambda: torch.nn.grad.conv2d_weight(x, shape, dy, padding=side // 2)

    return prepare


def _cross_entropy(torch: Any, x: Any, t: Any) -> Callable[[], Any]:
    return lambda: (None, torch.nn.functional.cross_entropy(x, t, reduction="none"))


# beginning of a kernel's name: from the operands of its family's call what gives the first results of that
TORCH: dict[str, Callable[..., Any]] = {
    "conv_(few_|patch_)?forward": lambda torch, x, w: lambda: torch.nn.functional.conv2d(x, w, padding=1),
    "conv_depthwise_forward": lambda torch, x, w: lambda: torch.nn.functional.conv2d(x, w, padding=1, groups=64),
    "conv_patch_dw|conv_dw_f32": _conv_dw(3),
    "conv_dw": _conv_dw(1),
    "attention_(tensor|forward)": lambda torch, q, k, v: (
        lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)
    ),
    "lstm_(step|all)_(?!grad)": _lstm,
    "elementwise_add": lambda torch, a, b: lambda: a + b,
    "elementwise_multiply": lambda torch, a, b: lambda: a * b,
    "elementwise_gelu": lambda torch, x: lambda: torch.nn.functional.gelu(x),
    "copy_cast_f32_bf16": lambda torch, x: lambda: x.to(torch.bfloat16),
    "copy_strided": lambda torch, x: lambda: x.reshape(-1, 8, 512).swapaxes(0, 1).contiguous(),
    "copy_transpose": lambda torch, x: lambda: x.T.contiguous(),
    "reduce_(warp|block)_sum": lambda torch, x: lambda: x.sum(1),
    "reduce_columns_sum": lambda torch, x: lambda: x.sum(0),
    "softmax_grad_(warp|block|long)": lambda torch, dy, y: lambda: torch._softmax_backward_data(dy, y, -1, y.dtype),
    "softmax_(warp|block|long)": lambda torch, x: lambda: torch.softmax(x, -1),
    "cross_entropy_(warp|block|long|columns)": _cross_entropy,
    "gather_rows": lambda torch, i, table: lambda: torch.nn.functional.embedding(i, table),
}
