"""The benchmarks beside PyTorch: every row of the peers suite computes the same as PyTorch, and all rows are there."""

import argparse

import pytest

import dlcore as dl
from benchmarks import harness, memory, suites
from benchmarks.row import COMPILED, check
from benchmarks.steps import STEPS

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("dlcore._C", reason="the native extension is not built")


def cases():
    return {case.name: case for case in suites.peers(argparse.Namespace(eager=False, compile=False))}


def test_all_rows_are_there():
    found = " | ".join(cases())
    for row in (
        "sgemm 1024", "sgemm 2048", "conv 3x3 64->64 56x56 b32 f", "conv 3x3 64->64 56x56 b32 f+b",
        "conv 3x3 256->256 14x14 b32 f", "conv 3x3 256->256 14x14 b32 f+b", "conv 3x3 1->32 28x28 b128 f+b, no dx",
        "lstm", "softmax", "layer norm", "gelu", "chain", "tiny autograd", "lenet b1 inference",
    ):  # fmt: skip
        assert row in found
    assert all("step" in name and name in found for name in STEPS)


CHECKED = [
    "conv 3x3 1->32 28x28 b128 f+b, no dx",
    "conv 3x3 256->256 14x14 b32 f",
    "lstm T100 B1 I128 H128 forward+backward",
    "gru T64 B32 I256 H256 forward",
    "attention B16 H8 T128 D32 causal f+b",
    "tiny autograd captured",
    "lenet b1 inference",
    "mlp step b32 adam",
]


@pytest.mark.parametrize("name", CHECKED)
def test_rows_are_right(name):
    with dl.device("cpu"):
        work = cases()[name].work()
    check(work)
    assert set(work.peer_errors) == set(work.peers)
    assert ("torch channels_last" in work.peers) == name.startswith(("conv", "lenet"))


def test_rows_of_convolutions_differ_in_what_they_compute():
    with dl.device("cpu"):
        results = len(cases()["conv 3x3 1->32 28x28 b128 f+b, no dx"].work().ours())
    assert results == 2  # y and dw


def test_where_nothing_can_be_compiled_the_run_says_so_and_goes_on(monkeypatch, capsys):
    from benchmarks import training

    def fail(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", fail)
    with dl.device("cpu"):
        work = next(training.cases()).work()
    assert COMPILED not in work.peers
    assert "no C++ compiler" in capsys.readouterr().out


def test_a_step_that_trains_otherwise_is_told():
    from benchmarks import training

    losses = iter([2.0, 1.5])
    with pytest.raises(harness.WrongResultError, match=r"dlcore: loss of the second step 0\.25"):
        training._check_losses(lambda: [2.0], {"dlcore": lambda: [next(losses)]})


@pytest.mark.slow
@pytest.mark.skipif(not memory.works(), reason="the system does not count a process's peak")
@pytest.mark.parametrize("library", ["dlcore", "torch"])
def test_a_step_needs_its_parameters_gradients_and_momentum_at_least(library):
    assert memory.megabytes(library, "mlp step b32 sgd") > 3 * 4 * 669_706e-6
