"""The same models in dlcore and PyTorch, with equal weights."""

from __future__ import annotations

from typing import Any

import dlcore as dl
from dlcore import nn


def layers(library: Any, name: str) -> Any:
    """Build model `name` from `library` (`torch.nn` or `dlcore.nn`), which name their layers alike."""
    return {"mlp": _mlp, "lenet": _lenet, "resnet20": _resnet20}[name](library)


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
    class Block(n.Module):  # type: ignore[misc, name-defined]
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


def twins(name: str) -> tuple[Any, Any]:
    """A dlcore model and a PyTorch model with the same weights."""
    import torch

    torch.manual_seed(0)
    theirs = layers(torch.nn, name)
    ours = layers(nn, name)
    state = {k: dl.tensor(v.numpy()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    return ours, theirs
