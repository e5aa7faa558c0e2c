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
    """Peak bytes of a step of the plain model and of its checkpointed stages.

    Gradients, and with them the new parameters, and running statistics must be the same bits.
    """
    before = copied(model)
    usual, expected = train_step(model, x)
    after = copied(model)
    model.load_state_dict(before)
    model.zero_grad()
    bounded, got = train_step(nn.Sequential(*(nn.Checkpoint(stage) for stage in stages)), x)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in copied(model).items():
        np.testing.assert_array_equal(value, after[name])
    return usual, bounded


def copied(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


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


def conv_norm(inputs, outputs, kernel, stride=1):
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


def bottleneck(inputs, width, stride):
    """He et al. (2015), figure 5, right; the stride sits in the 3x3 convolution."""
    outputs = 4 * width
    body = [*conv_norm(inputs, width, 1), nn.ReLU(), *conv_norm(width, width, 3, stride), nn.ReLU()]
    same = stride == 1 and inputs == outputs
    shortcut = None if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))
    return nn.Sequential(nn.Residual(nn.Sequential(*body, *conv_norm(width, outputs, 1)), shortcut), nn.ReLU())


def resnet(depths, width):
    """Bottleneck ResNet without its pooling stem; (3, 8, 36, 3) are the 152 layers with stem and classifier."""
    layers = [nn.Sequential(*conv_norm(3, width, 7), nn.ReLU())]
    inputs = width
    for i, depth in enumerate(depths):
        for j in range(depth):
            layers.append(bottleneck(inputs, width * 2**i, stride=2 if i and j == 0 else 1))
            inputs = 4 * width * 2**i
    return nn.Sequential(*layers, nn.Lambda(lambda x: x.mean(axis=(2, 3))), nn.Linear(inputs, 10))


@pytest.mark.slow
def test_a_resnet_of_152_layers():
    dl.manual_seed(0)
    with dl.device("numpy"):
        model = resnet((3, 8, 36, 3), width=2)
        assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == 152 + 4  # four projections
        x = np.random.default_rng(0).normal(size=(32, 3, 16, 16)).astype(np.float32)
        usual, bounded = peaks(model, [model[i : i + 4] for i in range(0, len(model), 4)], x)
    assert bounded < usual / 2.5, f"peak {bounded / 2**20:.1f} MiB with, {usual / 2**20:.1f} MiB without checkpoints"
