"""The same models in dlcore and PyTorch, with equal weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import dlcore as dl
from dlcore import nn

VOCABULARY = {"transformer": 1000, "char lm": 65}
"""Models of sequences of tokens, with the number of those; the others classify images into 10 classes."""


def layers(library: Any, name: str) -> Any:
    """Build model `name` from `library` (`torch.nn` or `dlcore.nn`), which name their layers alike."""
    makers = {"mlp": _mlp, "lenet": _lenet, "resnet20": _resnet20, "transformer": _transformer, "char lm": _char_lm}
    return makers[name](library)


def data(name: str, batch: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Random inputs for model `name` and a label for each row of its output."""
    rng = np.random.default_rng(0)
    if name in VOCABULARY:
        tokens = rng.integers(0, VOCABULARY[name], (2, batch, *shape))
        return tokens[0], tokens[1].ravel()
    return rng.normal(size=(batch, *shape)).astype(np.float32), rng.integers(0, 10, batch)


def _mlp(n: Any) -> Any:
    return n.Sequential(n.Linear(784, 512), n.ReLU(), n.Linear(512, 512), n.ReLU(), n.Linear(512, 10))


def _lenet(n: Any) -> Any:
    return n.Sequential(
        n.Conv2d(1, 32, 3, padding=1), n.ReLU(), n.MaxPool2d(2),
        n.Conv2d(32, 64, 3, padding=1), n.ReLU(), n.MaxPool2d(2),
        n.Flatten(), n.Linear(64 * 7 * 7, 128), n.ReLU(), n.Linear(128, 10),
    )  # fmt: skip


def _resnet20(n: Any) -> Any:
    """He et al. 2016, section 4.2: three stages of three blocks with 16, 32 and 64 channels; 1x1 shortcuts."""
    block = _block(n)
    stages = [block(c_in, c_out, s) for c_in, c_out, s in
              [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2]  # fmt: skip
    stem = [n.Conv2d(3, 16, 3, padding=1, bias=False), n.BatchNorm2d(16), n.ReLU()]
    return n.Sequential(*stem, *stages, n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(64, 10))


def _block(n: Any) -> Any:
    class Block(n.Module):  # type: ignore[misc]
        def __init__(self, c_in: int, c_out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = n.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
            self.bn1 = n.BatchNorm2d(c_out)
            self.conv2 = n.Conv2d(c_out, c_out, 3, padding=1, bias=False)
            self.bn2 = n.BatchNorm2d(c_out)
            self.relu = n.ReLU()
            plain = stride == 1 and c_in == c_out
            self.shortcut = n.Identity() if plain else n.Conv2d(c_in, c_out, 1, stride=stride, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + self.shortcut(x))

    return Block


def _transformer(n: Any) -> Any:
    """A decoder as in GPT-2 (Radford et al., 2019): 4 layers, 8 heads, 256 features, at most 128 positions."""
    vocabulary, block = VOCABULARY["transformer"], _decoder_block(n)

    class Transformer(n.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = n.Embedding(vocabulary, 256), n.Embedding(128, 256)
            self.blocks = n.Sequential(*[block(256, 8) for _ in range(4)])
            self.norm, self.head = n.LayerNorm(256), n.Linear(256, vocabulary)

        def forward(self, ids: Any) -> Any:
            x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
            return self.head(self.norm(self.blocks(x))).reshape(-1, vocabulary)

    return Transformer()


def _decoder_block(n: Any) -> Any:
    class Block(n.Module):  # type: ignore[misc]
        def __init__(self, size: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = n.LayerNorm(size), n.LayerNorm(size)
            self.joint, self.out = n.Linear(size, 3 * size), n.Linear(size, size)
            self.mlp = n.Sequential(n.Linear(size, 4 * size), n.GELU(), n.Linear(4 * size, size))

        def forward(self, x: Any) -> Any:
            x = x + self.out(self.attended(self.joint(self.norm1(x))))
            return x + self.mlp(self.norm2(x))

        def attended(self, joint: Any) -> Any:
            by_head = [x.reshape(*x.shape[:2], self.heads, -1).permute(0, 2, 1, 3) for x in _thirds(n, joint)]
            return _causal_attention(n, *by_head).permute(0, 2, 1, 3).reshape(*joint.shape[:2], -1)

    return Block


def _thirds(n: Any, x: Any) -> Any:
    return dl.chunk(x, 3, -1) if n is nn else x.chunk(3, -1)


def _causal_attention(n: Any, q: Any, k: Any, v: Any) -> Any:
    if n is nn:
        return nn.scaled_dot_product_attention(q, k, v, causal=True)
    return n.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _char_lm(n: Any) -> Any:
    """Two LSTM layers of 256 units on characters `[T, N]`."""
    vocabulary = VOCABULARY["char lm"]

    class CharLM(n.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.characters = n.Embedding(vocabulary, 256)
            self.lstm, self.head = n.LSTM(256, 256, num_layers=2), n.Linear(256, vocabulary)

        def forward(self, ids: Any) -> Any:
            return self.head(self.lstm(self.characters(ids))[0]).reshape(-1, vocabulary)

    return CharLM()


def twins(name: str) -> tuple[Any, Any]:
    """A dlcore model and a PyTorch model with the same weights."""
    import torch

    torch.manual_seed(0)
    theirs = layers(torch.nn, name)
    ours = layers(nn, name)
    state = {k: dl.tensor(v.numpy()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(nn.summed_biases(state))
    return ours, theirs
