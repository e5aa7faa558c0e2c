"""Multi-head attention and sinusoidal positions. Sequences are batch first: `[N, L, E]`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlcore.creation import tensor, zeros
from dlcore.errors import ArgumentError, DTypeError, ShapeError
from dlcore.nn import init
from dlcore.nn.dropout import Dropout
from dlcore.nn.linear import Linear
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter
from dlcore.ops import attention, matmul, shape
from dlcore.tensor import Tensor


class MultiheadAttention(Module):
    """Attention with `num_heads` heads of size embed_dim / num_heads. Vaswani et al. (2017), section 3.2.2.

    It differs from PyTorch's layer of that name in two ways. Sequences are always BATCH FIRST, `[N, L, E]`. In boolean
    masks True means VISIBLE, as for `dl.scaled_dot_product_attention`, where that layer has hidden; invert its masks:
    `mask=~attn_mask`, `key_mask=~key_padding_mask`. Float masks are added to the scores in both.

    in_proj_weight `[3E, E]` holds the projections of query, key and value, Glorot uniform; biases start at zero.
    dropout: of the attention weights. Raises ArgumentError where the heads do not divide `embed_dim`.

    >>> MultiheadAttention(64, 4)(dl.zeros((2, 10, 64))).shape
    (2, 10, 64)
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        if num_heads < 1 or embed_dim % num_heads:
            raise ArgumentError(f"MultiheadAttention: {embed_dim} features do not split into {num_heads} heads")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.in_proj_weight = Parameter(zeros((3 * embed_dim, embed_dim)))
        init.glorot_uniform(self.in_proj_weight)
        self.in_proj_bias = Parameter(zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            init.zeros(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, mask: Any = None,
        key_mask: Any = None, causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """`query[N, L, E]` attends to `key[N, S, E]` and `value[N, S, E]` (default: the query, the key).

        mask: bool, True for VISIBLE (PyTorch's layer: hidden), or floats added to the scores; `[L, S]` or what
        broadcasts to `[N, heads, L, S]`. key_mask: bool `[N, S]`, True for VISIBLE, False for padding. causal: position
        i sees keys 0 to i only. A query that sees no key gets the output of zeros: its bias.
        """
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = (self._heads(x) for x in self._projected(query, key, value))
        y = attention.scaled_dot_product_attention(
            q, k, v, _joined(mask, key_mask), causal=causal, dropout_p=self.dropout if self.training else 0.0
        )
        n, _, length, _ = y.shape
        out: Tensor = self.out_proj(y.permute(0, 2, 1, 3).reshape(n, length, self.embed_dim))
        return out

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        e, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if query is key is value:
            joint: Tensor = matmul.linear(query, weight, bias)
            return [joint[..., i * e : (i + 1) * e] for i in range(3)]
        rows = [slice(i * e, (i + 1) * e) for i in range(3)]
        return [
            matmul.linear(x, weight[r], None if bias is None else bias[r])
            for x, r in zip((query, key, value), rows, strict=True)
        ]

    def _heads(self, x: Tensor) -> Tensor:
        """`[N, L, E]` as `[N, heads, L, E / heads]`."""
        if x.ndim != 3:
            raise ShapeError(f"multihead_attention: expected query[N,L,E]; got {x.ndim} dimensions")
        return x.reshape(*x.shape[:2], self.num_heads, -1).permute(0, 2, 1, 3)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"


def _joined(mask: Any, key_mask: Any) -> Any:
    """One mask for attention from a mask of pairs and a mask of keys."""
    if key_mask is None:
        return mask
    keys = key_mask if isinstance(key_mask, Tensor) else tensor(key_mask)
    if keys.dtype != np.bool_:
        raise DTypeError(f"multihead_attention: key_mask must be bool, True for visible; got {keys.dtype}")
    keys = keys.reshape(-1, 1, 1, keys.shape[-1])
    if mask is None:
        return keys
    pairs = mask if isinstance(mask, Tensor) else tensor(mask)
    return keys & pairs if pairs.dtype == np.bool_ else shape.where(keys, pairs, -np.inf)


def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """Position codes `[length, d_model]`: sin and cos of position / 10000^(2i / d_model) in turn.

    Vaswani et al. (2017), section 3.5.
    """
    rates = 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    angles = np.arange(length)[:, None] * rates
    codes = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)
    return tensor(codes[:, :d_model], "float32")


class SinusoidalEncoding(Module):
    """Add position codes to `x[N, L, E]`, then dropout. Raises ShapeError for sequences above `max_len`."""

    def __init__(self, d_model: int, max_len: int = 5000, dropout: float = 0.0) -> None:
        self.register_buffer("codes", sinusoidal_encoding(max_len, d_model), persistent=False)
        self.dropout = Dropout(dropout)

    codes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        if x.shape[-2] > self.codes.shape[0]:
            raise ShapeError(f"positions: {x.shape[-2]} exceed max_len {self.codes.shape[0]}; got x{list(x.shape)}")
        out: Tensor = self.dropout(x + self.codes[: x.shape[-2]])
        return out
