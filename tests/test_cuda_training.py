"""Training on the emulated GPU gives the losses of the native backend."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim

pytestmark = pytest.mark.sim
EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist.py"


def demo_model() -> nn.Module:
    spec = importlib.util.spec_from_file_location("fashion_mnist", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_model(28)


class Classifier(nn.Module):
    """A two-layer LSTM whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 12, num_layers=2)
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][-1])


def losses(make, shape, device: str) -> list[float]:
    dl.manual_seed(0)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=shape).astype(np.float32), rng.integers(0, 10, 6)
    with dl.device(device):
        model = make()
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        found = []
        for _ in range(3):
            loss = nn.cross_entropy(model(dl.tensor(x)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
    return found


@pytest.mark.parametrize(
    ("make", "shape"), [(demo_model, (6, 1, 28, 28)), (Classifier, (7, 6, 5))], ids=["demo CNN", "LSTM"]
)
def test_three_steps_give_the_losses_of_the_cpu(make, shape):
    pytest.importorskip("dlcore._C")
    found, expected = losses(make, shape, "sim"), losses(make, shape, "cpu")
    assert expected[2] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
