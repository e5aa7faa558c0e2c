"""Very deep models train in bounded memory when stages are checkpointed."""

import tracemalloc

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim


def train_step(model, x):
    """Peak bytes of one step, and the parameters' gradients."""
    opt = optim.SGD(model.parameters(), lr=1e-3)
    tracemalloc.start()
    try:
        y = model(dl.tensor(x))
        (y * y).mean().backward()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    grads = [p.grad.numpy() for p in model.parameters()]
    opt.step()
    return peak, grads


def peaks(model, stages, x):
    """Peak bytes of a step of the plain model and of its checkpointed stages, whose gradients must be the same."""
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    usual, expected = train_step(model, x)
    model.load_state_dict(before)
    model.zero_grad()
    bounded, got = train_step(nn.Sequential(*(nn.Checkpoint(stage) for stage in stages)), x)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    return usual, bounded


@pytest.mark.slow
def test_a_residual_mlp_of_1000_layers():
    dl.manual_seed(0)
    with dl.device("numpy"):
        blocks = [nn.Residual(nn.Sequential(nn.Linear(16, 16), nn.ReLU())) for _ in range(1000)]
        for block in blocks:
            nn.init.normal(block.body[0].weight, std=0.01)
        model = nn.Sequential(*blocks)
        x = np.random.default_rng(0).normal(size=(512, 16)).astype(np.float32)
        usual, bounded = peaks(model, [model[i : i + 32] for i in range(0, 1000, 32)], x)
    assert bounded < usual / 10, f"peak {bounded / 2**20:.1f} MiB with, {usual / 2**20:.1f} MiB without checkpoints"
