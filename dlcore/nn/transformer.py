"""Transformer layers. Vaswani et al., "Attention is all you need" (2017). Sequences are batch first: `[N, L, E]`.

Boolean masks are True where a key is VISIBLE: those of PyTorch's layers, True where it is hidden, must be inverted.
Float masks are added to the scores. `mask` is `[L, S]` or broadcasts to `[N, heads, L, S]`; `key_mask` is `[N, S]`,
False for padding.
"""

from __future__ import annotations

import copy
from typing import Any

from dlcore.nn.attention import MultiheadAttention
from dlcore.nn.containers import ModuleList
from dlcore.nn.dropout import Dropout
from dlcore.nn.linear import Linear
from dlcore.nn.module import Module
from dlcore.nn.norm import LayerNorm
from dlcore.tensor import Tensor


class _Block(Module):
    """What encoder and decoder layers share: feed-forward part and residual connections.

    norm_first: normalise the input of each part rather than the sum after it (Xiong et al., 2020).
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str = "relu",
        norm_first: bool = False, layer_norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        self.norm_first = norm_first
        self.self_attn = MultiheadAttention(d_model, nhead, dropout)
        self.linear1 = Linear(d_model, dim_feedforward, activation=activation)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = LayerNorm(d_model, layer_norm_eps), LayerNorm(d_model, layer_norm_eps)
        self.dropout = Dropout(dropout)

    def _add(self, x: Tensor, norm: Module, part: Any) -> Tensor:
        """x + dropout(part(x)), normalised before or after."""
        if self.norm_first:
            z: Tensor = x + self.dropout(part(norm(x)))
            return z
        y: Tensor = norm(x + self.dropout(part(x)))
        return y

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear2(self.dropout(self.linear1(x)))
        return y


class TransformerEncoderLayer(_Block):
    """Self-attention and a feed-forward network, each with residual connection and layer norm; `[N, L, E]`.

    >>> TransformerEncoderLayer(64, nhead=4)(dl.zeros((2, 10, 64))).shape
    (2, 10, 64)
    """

    def forward(self, x: Tensor, mask: Any = None, key_mask: Any = None, causal: bool = False) -> Tensor:
        """Of the shape of `x`."""
        x = self._add(x, self.norm1, lambda y: self.self_attn(y, mask=mask, key_mask=key_mask, causal=causal))
        return self._add(x, self.norm2, self._feed_forward)


class TransformerDecoderLayer(_Block):
    """Self-attention (causal by default), attention to the encoder's output, and a feed-forward network.

    >>> TransformerDecoderLayer(64, nhead=4)(dl.zeros((2, 5, 64)), dl.zeros((2, 10, 64))).shape
    (2, 5, 64)
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str = "relu",
        norm_first: bool = False, layer_norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, norm_first, layer_norm_eps)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout)
        self.norm3 = LayerNorm(d_model, layer_norm_eps)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Any = None, key_mask: Any = None, memory_mask: Any = None,
        memory_key_mask: Any = None, causal: bool = True,
    ) -> Tensor:  # fmt: skip
        """`x[N, L, E]` and the encoder's output `memory[N, S, E]` give `[N, L, E]`."""
        x = self._add(x, self.norm1, lambda y: self.self_attn(y, mask=mask, key_mask=key_mask, causal=causal))
        x = self._add(
            x, self.norm2, lambda y: self.multihead_attn(y, memory, mask=memory_mask, key_mask=memory_key_mask)
        )
        return self._add(x, self.norm3, self._feed_forward)


class _Stack(Module):
    """Copies of a layer, one after another, and an optional last norm. All copies start with the same weights."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None = None) -> None:
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The arguments after `x` go to every layer."""
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of encoder layers.

    >>> TransformerEncoder(TransformerEncoderLayer(64, 4), num_layers=6)
    """


class TransformerDecoder(_Stack):
    """A stack of decoder layers; call it with `x` and the encoder's output.

    >>> TransformerDecoder(TransformerDecoderLayer(64, 4), num_layers=6)
    """
