"""Whole training steps: forward, loss, backward, update. One function for each library, which `memory` uses as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dlcore as dl
from benchmarks import models
from benchmarks.row import Run
from dlcore import nn, optim


@dataclass(frozen=True)
class Spec:
    """model, batch, shape: as for `models.data`."""

    model: str
    batch: int
    shape: tuple[int, ...]
    optimizer: str


STEPS = {
    "mlp step b32 sgd": Spec("mlp", 32, (784,), "sgd"),
    "mlp step b32 adam": Spec("mlp", 32, (784,), "adam"),
    "mlp step b128 sgd": Spec("mlp", 128, (784,), "sgd"),
    "mlp step b128 adam": Spec("mlp", 128, (784,), "adam"),
    "lenet step b128 adam": Spec("lenet", 128, (1, 28, 28), "adam"),
    "resnet20 step b64 sgd": Spec("resnet20", 64, (3, 32, 32), "sgd"),
    "transformer step d256 L4 b16 T128 adamw": Spec("transformer", 16, (128,), "adamw"),
    "char lm step h256 L2 T64 b32 adam clip": Spec("char lm", 64, (32,), "clipped adam"),
}
OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {  # class and arguments
    "sgd": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-3}),
    "adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.01}),
    "clipped adam": ("Adam", {"lr": 1e-3}),
}


def ours(spec: Spec, model: Any, captured: bool = True) -> Run:
    """A step of dlcore's model; it returns the loss."""
    x, labels = (dl.asarray(a) for a in models.data(spec.model, spec.batch, spec.shape))
    x = x.astype(next(model.parameters()).dtype) if spec.model not in models.VOCABULARY else x
    parameters = list(model.parameters())
    kind, arguments = OPTIMIZERS[spec.optimizer]
    opt = getattr(optim, kind)(parameters, **arguments)

    def step() -> list[Any]:
        loss = nn.cross_entropy(model(x), labels)
        loss.backward()
        if spec.optimizer.startswith("clipped"):
            optim.clip_grad_norm(parameters, 1.0)
        opt.step()
        opt.zero_grad()
        return [loss.detach()]

    return dl.capture(step) if captured else step


def in_layout(model: Any, layout: str) -> Any:
    """PyTorch's model with weights as that layout of images wants them."""
    import torch

    return model.to(memory_format=torch.channels_last) if "last" in layout else model


def theirs(spec: Spec, model: Any, layout: str = "torch", compiled: bool = False) -> Run:
    """A step of PyTorch's model. compiled: forward, loss and their gradients."""
    import torch

    from benchmarks.beside_torch import LAYOUTS

    x, labels = (torch.from_numpy(a) for a in models.data(spec.model, spec.batch, spec.shape))
    x = x.to(next(model.parameters()).dtype) if spec.model not in models.VOCABULARY else x
    x, model = LAYOUTS[layout](x), in_layout(model, layout)
    kind, arguments = OPTIMIZERS[spec.optimizer]
    opt = getattr(torch.optim, kind)(model.parameters(), **arguments)

    def loss_of(x: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), labels)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> list[Any]:
        loss = forward(x, labels)
        loss.backward()
        if spec.optimizer.startswith("clipped"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        return [loss.detach()]

    return step
