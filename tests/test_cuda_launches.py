"""How many launches a training step takes, and that each is one that somebody would write."""

from collections import Counter

import pytest

from benchmarks import launches
from dlcore import dispatch

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module", autouse=True)
def sim():
    try:
        return dispatch.get_backend("sim")
    except dispatch.BackendError as error:
        pytest.skip(str(error))


def by_phase(make):
    counts = Counter()
    for (phase, _), count in launches.launches(make).items():
        counts[phase] += count
    return counts


EXPECTED = {
    "demo CNN": {"forward": 8, "loss": 2, "backward": 20, "optimizer": 1},
    "2-layer LSTM, 5 steps": {"forward": 9, "loss": 2, "backward": 19, "optimizer": 1},
}


@pytest.mark.parametrize("name", launches.MODELS)
def test_launches_of_a_training_step(name):
    assert by_phase(launches.MODELS[name]) == EXPECTED[name]
