"""Losses as layers."""

import inspect

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, ShapeError
from dlcore.nn.losses import Loss

LOSSES = {cls.__name__: cls for cls in Loss.__subclasses__()}
RNG = np.random.default_rng(0)


def draw(low, high, *shape):
    return dl.tensor(RNG.uniform(low, high, shape))


def signs():
    return dl.tensor([1.0, -1.0, 1.0, 1.0], "float64")


OPERANDS = {
    "CrossEntropyLoss": lambda: (draw(-1, 1, 4, 3), dl.tensor([0, 2, 1, 1])),
    "NLLLoss": lambda: (draw(-2, -1, 4, 3), dl.tensor([0, 2, 1, 1])),
    "BCELoss": lambda: (draw(0.1, 0.9, 4), draw(0, 1, 4)),
    "BCEWithLogitsLoss": lambda: (draw(-1, 1, 4), draw(0, 1, 4)),
    "GaussianNLLLoss": lambda: (draw(-1, 1, 4), draw(-1, 1, 4), draw(0.5, 1, 4)),
    "KLDivLoss": lambda: (draw(-2, -1, 4, 3), draw(0, 1, 4, 3)),
    "PoissonNLLLoss": lambda: (draw(-1, 1, 4), draw(0, 4, 4)),
    "HingeLoss": lambda: (draw(-1, 1, 4), signs()),
    "HingeEmbeddingLoss": lambda: (draw(0, 2, 4), signs()),
    "MarginRankingLoss": lambda: (draw(-1, 1, 4), draw(-1, 1, 4), signs()),
    "TripletMarginLoss": lambda: (draw(-1, 1, 4, 3), draw(-1, 1, 4, 3), draw(-1, 1, 4, 3)),
    "ContrastiveLoss": lambda: (draw(-1, 1, 4, 3), draw(-1, 1, 4, 3), draw(0, 1, 4)),
    "CosineEmbeddingLoss": lambda: (draw(-1, 1, 4, 3), draw(-1, 1, 4, 3), signs()),
    "CTCLoss": lambda: (draw(-2, -1, 5, 2, 4), dl.tensor([[1, 2], [3, 3]]), dl.tensor([5, 4]), dl.tensor([2, 1])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_function(name):
    operands = OPERANDS.get(name, lambda: (draw(-1, 1, 4), draw(-1, 1, 4)))()
    cls = LOSSES[name]
    for reduction in ("mean", "sum"):
        got = nn.Sequential({"loss": cls(reduction=reduction)}).loss(*operands)
        np.testing.assert_array_equal(got, cls.run(*operands, reduction=reduction))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("HingeLoss", "ContrastiveLoss")])
def test_defaults_agree_with_pytorch(name):
    torch = pytest.importorskip("torch")
    operands = OPERANDS.get(name, lambda: (draw(-1, 1, 4), draw(-1, 1, 4)))()
    expected = getattr(torch.nn, name)()(*[torch.tensor(np.array(x)) for x in operands])
    np.testing.assert_allclose(LOSSES[name]()(*operands), expected.numpy(), rtol=1e-10)


def test_class_weights_are_saved_and_move_with_the_model():
    loss = nn.CrossEntropyLoss(weight=dl.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    assert list(loss.state_dict()) == ["weight"]
    assert loss.astype("float64").weight.dtype == np.float64
    logits, labels = OPERANDS["CrossEntropyLoss"]()
    expected = nn.cross_entropy(logits, labels, weight=loss.weight, label_smoothing=0.1)
    np.testing.assert_array_equal(loss(logits, labels), expected)
    assert repr(loss) == "CrossEntropyLoss(label_smoothing=0.1)"


def test_errors():
    with pytest.raises(ArgumentError, match="MSELoss: unknown setting 'reduce'; it takes reduction"):
        nn.MSELoss(reduce=True)
    with pytest.raises(ShapeError, match="mse_loss: expected operands of one shape"):
        nn.MSELoss()(dl.zeros(3), dl.zeros((3, 1)))


def test_every_loss_function_has_a_layer():
    functions = [f for name, f in inspect.getmembers(nn, inspect.isfunction) if "reduction" in parameters(f)]
    assert {f.__name__ for f in functions} == {cls.run.__name__ for cls in LOSSES.values()}


def parameters(f):
    return inspect.signature(f).parameters
