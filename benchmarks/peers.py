"""dlcore against PyTorch eager on the CPU: matrix products, layers, functions, and whole training steps, captured."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import dlcore as dl
from benchmarks import attention, functions, harness, models, recurrent
from dlcore import nn, optim
from dlcore.profile import profile

STEPS = [  # name, model, batch, shape of an input, optimizer
    ("mlp step b32 sgd", "mlp", 32, (784,), "sgd"),
    ("mlp step b32 adam", "mlp", 32, (784,), "adam"),
    ("mlp step b128 sgd", "mlp", 128, (784,), "sgd"),
    ("mlp step b128 adam", "mlp", 128, (784,), "adam"),
    ("lenet step b128 adam", "lenet", 128, (1, 28, 28), "adam"),
    ("resnet20 step b64 sgd", "resnet20", 64, (3, 32, 32), "sgd"),
    ("transformer step d256 L4 b16 T128 adamw", "transformer", 16, (128,), "adamw"),
    ("char lm step h256 L2 T64 b32 adam clip", "char lm", 64, (32,), "clipped adam"),
]
OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {  # class and arguments
    "sgd": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-3}),
    "adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.01}),
    "clipped adam": ("Adam", {"lr": 1e-3}),
}
SIZES = (512, 1024, 2048)


def rows(only: str = "", eager: bool = False) -> Iterator[harness.Row]:
    """Every row whose name contains `only`. eager: training steps are not captured."""
    from dlcore import _C

    dl.set_device("cpu")
    torch.set_num_threads(_C.num_threads())
    peak = max(_C.fma_peak(0.1) for _ in range(10))  # the machine at its quietest
    for n in SIZES:
        if only in f"sgemm {n}":
            yield _sgemm(n, peak)
    for name, *spec in STEPS:
        if only in name:
            yield _step(name, *spec, peak, eager)
    for family in (recurrent, attention, functions):
        yield from family.rows(only, peak)


def _sgemm(n: int, peak: float) -> harness.Row:
    rng = np.random.default_rng(n)
    a, b = (rng.normal(size=(n, n)).astype(np.float32) for _ in range(2))
    ta, tb, da, db = torch.from_numpy(a), torch.from_numpy(b), dl.asarray(a), dl.asarray(b)
    exact = [a.astype(np.float64) @ b]
    errors = harness.relative_error([da @ db], exact), harness.relative_error([ta @ tb], exact)
    return harness.compare(f"sgemm {n}", lambda: da @ db, lambda: ta @ tb, errors, 2 * n**3, peak)


def _step(
    name: str, model: str, batch: int, shape: tuple[int, ...], optimizer: str, peak: float, eager: bool
) -> harness.Row:
    ours, theirs = models.twins(model)
    x, labels = models.data(model, batch, shape)
    dx, dy, tx, ty = dl.asarray(x), dl.asarray(labels), torch.from_numpy(x), torch.from_numpy(labels)
    errors = _gradient_errors(ours, theirs, (dx, dy), (tx, ty))
    step, peer = _dlcore_step(ours, optimizer, dx, dy), _torch_step(theirs, optimizer, tx, ty)
    with profile() as p:
        step()
    return harness.compare(name, step if eager else dl.capture(step), peer, errors, p.flops, peak)


def _gradient_errors(ours: Any, theirs: Any, ours_data: Any, peer_data: Any) -> tuple[float, float]:
    """Errors of all parameters' gradients against the peer in float64."""
    x, labels = peer_data
    exact = _torch_gradients(copy.deepcopy(theirs).double(), x.double() if x.is_floating_point() else x, labels)
    peer = _torch_gradients(copy.deepcopy(theirs), x, labels)
    nn.cross_entropy(ours(ours_data[0]), ours_data[1]).backward()
    errors = (
        harness.relative_error([p.grad for p in ours.parameters()], exact),
        harness.relative_error(peer, exact),
    )
    ours.zero_grad()
    return errors


def _torch_gradients(model: Any, x: Any, labels: Any) -> list[Any]:
    """Of the parameters; of the second of an LSTM's two biases, which dlcore does not have, nothing."""
    torch.nn.functional.cross_entropy(model(x), labels).backward()
    return [p.grad.numpy() for name, p in model.named_parameters() if ".bias_hh" not in name]


def _dlcore_step(model: Any, optimizer: str, x: Any, y: Any) -> Any:
    parameters = list(model.parameters())
    kind, arguments = OPTIMIZERS[optimizer]
    opt = getattr(optim, kind)(parameters, **arguments)

    def step() -> None:
        loss = nn.cross_entropy(model(x), y)
        loss.backward()
        if optimizer.startswith("clipped"):
            optim.clip_grad_norm(parameters, 1.0)
        opt.step()
        opt.zero_grad()

    return step


def _torch_step(model: Any, optimizer: str, x: Any, y: Any) -> Any:
    kind, arguments = OPTIMIZERS[optimizer]
    opt = getattr(torch.optim, kind)(model.parameters(), **arguments)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if optimizer.startswith("clipped"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()

    return step


def main(argv: list[str]) -> None:
    """Print the table; with --json also write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains TEXT")
    parser.add_argument("--eager", action="store_true", help="training steps as they are, not captured")
    given = parser.parse_args(argv)
    found = []
    print(harness.HEADER)
    for row in rows(given.only, given.eager):
        print(harness.line(row), flush=True)
        found.append(row)
    harness.save(given.json, found)
