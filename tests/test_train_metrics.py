"""Running metrics against their definitions on the whole set."""

import numpy as np
import pytest

from dlcore.errors import ArgumentError, ShapeError
from dlcore.train import Accuracy, ConfusionMatrix, MeanAbsoluteError, MeanLoss, TopK

rng = np.random.default_rng(0)
scores, labels = rng.normal(size=(50, 4)), rng.integers(4, size=50)
ranks = (scores > np.take_along_axis(scores, labels[:, None], 1)).sum(1)
recalls = [(ranks[labels == c] == 0).mean() for c in range(4)]

CASES = [
    (Accuracy(), scores, labels, (ranks == 0).mean()),
    (TopK(1), scores, labels, (ranks == 0).mean()),
    (TopK(2), scores, labels, (ranks < 2).mean()),
    (ConfusionMatrix(4), scores, labels, np.mean(recalls)),
    (MeanAbsoluteError(), scores, scores + 0.5, 0.5),
]
IDS = [case[0].name for case in CASES]


def feed(metric, outputs, targets, sizes):
    metric.reset()
    for part in np.split(np.arange(len(outputs)), np.cumsum(sizes)):
        metric.update(outputs[part], targets[part], 0.0)
    return metric


@pytest.mark.parametrize(("metric", "outputs", "targets", "expected"), CASES, ids=IDS)
@pytest.mark.parametrize("sizes", [[], [7, 20, 1]])
def test_equals_the_definition_for_any_batches(metric, outputs, targets, expected, sizes):
    assert feed(metric, outputs, targets, sizes).compute() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("metric", "outputs", "targets", "expected"), CASES, ids=IDS)
def test_goes_on_from_a_saved_state(metric, outputs, targets, expected):
    state = feed(metric, outputs[:20], targets[:20], []).state_dict()
    saved = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in state.items()}
    metric.reset().load_state_dict(saved)
    metric.update(outputs[20:], targets[20:], 0.0)
    assert metric.compute() == pytest.approx(expected, rel=1e-12)


def test_mean_loss_weighs_batches_by_their_size():
    metric = MeanLoss()
    for size, loss in [(3, 1.0), (1, 5.0)]:
        metric.update(np.zeros((size, 2)), np.zeros(size), loss)
    assert metric.compute() == 2.0


def test_confusion_matrix_counts_label_by_prediction():
    metric = ConfusionMatrix(3)
    metric.update(np.eye(3)[[0, 2, 2]], np.array([0, 1, 2]), 0.0)
    assert metric.matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_topk_of_equal_scores_is_not_always_right():
    metric = TopK(1)
    metric.update(np.zeros((4, 4)), np.arange(4), 0.0)
    assert metric.compute() == 0.25


@pytest.mark.parametrize("metric", [Accuracy(), TopK(2), ConfusionMatrix(4), MeanAbsoluteError()], ids=lambda m: m.name)
def test_shapes_that_do_not_fit_are_refused(metric):
    with pytest.raises(ShapeError, match=metric.name):
        metric.update(scores, labels[:10], 0.0)


@pytest.mark.parametrize("metric", [MeanLoss(), ConfusionMatrix(2)], ids=lambda m: m.name)
def test_nothing_seen_is_said(metric):
    with pytest.raises(ArgumentError, match="no batch was seen"):
        metric.compute()
