"""Training steps and inference of whole models, captured, beside PyTorch eager in either layout and compiled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import dlcore as dl
from benchmarks import compiling, harness, models, steps
from benchmarks.beside_torch import LAYOUTS
from benchmarks.row import COMPILED, Case, Run, Work, compared
from benchmarks.steps import STEPS, Spec
from dlcore import nn
from dlcore.profile import profile

LOSS = 1e-4  # largest error of a loss; Adam moves two biases that are only ever added twice as far as one
IMAGES = ("lenet", "resnet20")  # only convolutions gain by channels_last


def cases(eager: bool = False, compiled: bool = True) -> Iterator[Case]:
    """eager: ours are not captured. compiled: with `torch.compile` as a peer, if it works here."""
    for name, spec in STEPS.items():
        yield Case(name, partial(_step, spec, eager, compiled))
    yield Case("lenet b1 inference", partial(_inference, "lenet", (1, 1, 28, 28), eager))


def _step(spec: Spec, eager: bool, compiled: bool) -> Work:
    ours, theirs = models.twins(spec.model)
    layouts = list(LAYOUTS) if spec.model in IMAGES else ["torch"]
    error, peer_errors, flops = _gradient_errors(spec, ours, theirs, layouts)
    wide = copy.deepcopy(theirs).double()
    peers = {name: steps.theirs(spec, copy.deepcopy(theirs), name) for name in layouts}
    if compiled and (run := compiling.step(spec, theirs)):
        peers[COMPILED], peer_errors[COMPILED] = run, peer_errors["torch"]
    step = steps.ours(spec, ours, captured=not eager)
    _check_losses(steps.theirs(spec, wide), {"dlcore": step, **peers})
    return Work(step, peers, error, peer_errors, flops)


def _check_losses(exact: Run, others: dict[str, Run]) -> None:
    """Of the second step: captured steps replay, optimizers have changed the parameters."""
    expected = _second(exact)
    for name, step in others.items():
        if (error := harness.relative_error(_second(step), expected)) > LOSS:
            raise harness.WrongResultError(f"{name}: loss of the second step {error:.2g} from that in float64")


def _second(step: Run) -> Any:
    step()
    return step()


def _gradient_errors(spec: Spec, ours: Any, theirs: Any, layouts: list[str]) -> tuple[float, dict[str, float], float]:
    """Errors of all parameters' gradients against PyTorch in float64: ours, and PyTorch's by layout. FLOP of ours."""
    arrays = models.data(spec.model, spec.batch, spec.shape)
    x, labels = (torch.from_numpy(a) for a in arrays)
    exact = _torch_gradients(copy.deepcopy(theirs).double(), x.double() if x.is_floating_point() else x, labels)
    peers = {
        name: harness.relative_error(
            _torch_gradients(steps.in_layout(copy.deepcopy(theirs), name), LAYOUTS[name](x), labels), exact
        )
        for name in layouts
    }
    with profile() as p:
        nn.cross_entropy(ours(dl.asarray(arrays[0])), dl.asarray(arrays[1])).backward()
    error = harness.relative_error([parameter.grad for parameter in ours.parameters()], exact)
    ours.zero_grad()
    return error, peers, p.flops


def _torch_gradients(model: Any, x: Any, labels: Any) -> list[Any]:
    """Of the parameters; of the second of an LSTM's two biases, which dlcore does not have, nothing."""
    torch.autograd.backward(torch.nn.functional.cross_entropy(model(x), labels))
    return [p.grad.numpy() for name, p in model.named_parameters() if ".bias_hh" not in name]


def _inference(model: str, shape: tuple[int, ...], eager: bool) -> Work:
    ours, theirs = models.twins(model)
    array, _ = models.data(model, shape[0], shape[1:])
    x, tx = dl.asarray(array), torch.from_numpy(array)

    def run() -> list[Any]:
        with dl.no_grad():
            return [ours(x)]

    def peer(model: Any, x: Any) -> Run:
        def forward() -> list[Any]:
            with torch.no_grad():
                return [model(x)]

        return forward

    last = LAYOUTS["torch channels_last"]
    peers = {
        "torch": peer(theirs, tx),
        "torch channels_last": peer(copy.deepcopy(theirs).to(memory_format=torch.channels_last), last(tx)),
    }
    exact = peer(copy.deepcopy(theirs).double(), tx.double())()
    return compared(run if eager else dl.capture(run), peers, exact)
