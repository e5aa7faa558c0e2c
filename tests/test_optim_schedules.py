"""Learning-rate schedules against their formulas and PyTorch's."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim
from dlcore.errors import ArgumentError


def optimizer(lr=0.4, name="SGD", **options):
    return getattr(optim, name)([nn.Parameter(dl.zeros(1))], lr=lr, **options)


def rates(schedule, count):
    found = []
    for _ in range(count):
        found.append(schedule.lr)
        schedule.step()
    return found


def test_warmup_then_cosine():
    got = rates(optim.WarmupCosine(optimizer(), warmup=4, total=10, min_lr=0.1), 12)
    ramp = [0.1, 0.2, 0.3, 0.4]
    cosine = [0.1 + 0.15 * (1 + math.cos(math.pi * t / 6)) for t in range(1, 7)]
    np.testing.assert_allclose(got, [*ramp, 0.4, *cosine, 0.1])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: optim.StepLR(o, 2, 0.5), [8, 8, 4, 4, 2]),
        (lambda o: optim.MultiStepLR(o, [3, 1], 0.5), [8, 4, 4, 2, 2]),
        (lambda o: optim.ExponentialLR(o, 0.5), [8, 4, 2, 1, 0.5]),
        (lambda o: optim.LambdaLR(o, lambda t: t), [0, 8, 16, 24, 32]),
        (lambda o: optim.LinearWarmup(o, 2, 0.5), [4, 6, 8, 8, 8]),
        (lambda o: optim.CosineAnnealingLR(o, 2, 2.0), [8, 5, 2, 5, 8]),
        (lambda o: optim.CosineAnnealingWarmRestarts(o, 2), [8, 4, 8, 4, 8]),
        (lambda o: optim.ChainedLR(o, [optim.LinearWarmup(o, 2, 0.5), optim.ExponentialLR(o, 0.5)]), [4, 3, 2, 1, 0.5]),
        (
            lambda o: optim.SequentialLR(o, [optim.LinearWarmup(o, 2, 0.5), optim.ExponentialLR(o, 0.5)], [2]),
            [4, 6, 8, 4, 2],
        ),
    ],
)
def test_formula(make, expected):
    np.testing.assert_allclose(rates(make(optimizer(8.0)), 5), expected, atol=1e-12)


TORCH = {
    "StepLR": (lambda s, o: s.StepLR(o, 7, 0.5), lambda o: optim.StepLR(o, 7, 0.5)),
    "MultiStepLR": (lambda s, o: s.MultiStepLR(o, [5, 20], 0.3), lambda o: optim.MultiStepLR(o, [5, 20], 0.3)),
    "ExponentialLR": (lambda s, o: s.ExponentialLR(o, 0.9), lambda o: optim.ExponentialLR(o, 0.9)),
    "CosineAnnealingLR": (lambda s, o: s.CosineAnnealingLR(o, 12, 0.1), lambda o: optim.CosineAnnealingLR(o, 12, 0.1)),
    "CosineAnnealingWarmRestarts": (
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, 0.02),
        lambda o: optim.CosineAnnealingWarmRestarts(o, 5, 2, 0.02),
    ),
    "LinearWarmup": (lambda s, o: s.LinearLR(o, 0.2, 1.0, 9), lambda o: optim.LinearWarmup(o, 9, 0.2)),
    "LambdaLR": (lambda s, o: s.LambdaLR(o, lambda t: 1 / (t + 1)), lambda o: optim.LambdaLR(o, lambda t: 1 / (t + 1))),
    "SequentialLR": (
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.2, 1.0, 6), s.CosineAnnealingLR(o, 20)], [6]),
        lambda o: optim.SequentialLR(o, [optim.LinearWarmup(o, 6, 0.2), optim.CosineAnnealingLR(o, 20)], [6]),
    ),
    "ChainedLR": (
        lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.2, 1.0, 6), s.ExponentialLR(o, 0.9)]),
        lambda o: optim.ChainedLR(o, [optim.LinearWarmup(o, 6, 0.2), optim.ExponentialLR(o, 0.9)]),
    ),
    "OneCycleLR": (lambda s, o: s.OneCycleLR(o, 0.5, 31), lambda o: optim.OneCycleLR(o, 0.5, 31)),
    "OneCycleLR-linear": (
        lambda s, o: s.OneCycleLR(o, 0.5, 31, pct_start=0.4, anneal_strategy="linear"),
        lambda o: optim.OneCycleLR(o, 0.5, 31, pct_start=0.4, anneal="linear"),
    ),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*deprecat.*")  # PyTorch's own SequentialLR passes an epoch number
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("kind", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_agrees_with_pytorch(name, kind, options):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.optim, kind)([torch.zeros(1, requires_grad=True)], lr=0.4, **options)
    ours = optimizer(0.4, kind, **options)
    make_theirs, make_ours = TORCH[name]
    schedules = make_theirs(torch.optim.lr_scheduler, theirs), make_ours(ours)
    for _ in range(30):
        group = theirs.param_groups[0]
        assert ours.lr == pytest.approx(group["lr"], rel=1e-9)
        key = "betas" if kind == "Adam" else "momentum"
        assert ours.groups[0][key] == pytest.approx(group[key], rel=1e-9)
        theirs.step()
        for schedule in schedules:
            schedule.step()


METRICS = [5, 4, 4, 4.5, 4, 3, 3.1, 3, 3, 3, 3, 3, 3, 3, 2.99995, 1, 1, 1, 1, 1, 1]
PLATEAU = [
    {"patience": 2}, {"patience": 0, "cooldown": 3, "factor": 0.5}, {"patience": 1, "min_lr": 0.05},
    {"mode": "max", "patience": 3}, {"threshold": 0.5, "threshold_mode": "abs", "patience": 2},
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("options", PLATEAU)
def test_plateau_agrees_with_pytorch(options):
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    ours = optim.ReduceLROnPlateau(optimizer(), **options)
    for metric in METRICS:
        schedule.step(metric)
        ours.step(metric)
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"])


def test_plateau_reduces_after_patience():
    schedule = optim.ReduceLROnPlateau(optimizer(1.0), patience=1, factor=0.5)
    found = []
    for metric in [3, 3, 3, 3, 3, 2]:
        schedule.step(metric)
        found.append(schedule.lr)
    assert found == [1, 1, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ArgumentError, match="needs the metric"):
        schedule.step()


def test_every_group_keeps_its_own_base():
    a, b = (nn.Parameter(dl.zeros(1)) for _ in range(2))
    opt = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=1.0)
    optim.ExponentialLR(opt, 0.5).step()
    assert [g["lr"] for g in opt.groups] == [0.5, 0.25]


@pytest.mark.parametrize(
    "make",
    [lambda o: optim.WarmupCosine(o, 3, 9), lambda o: optim.ReduceLROnPlateau(o, patience=1)],
    ids=["formula", "plateau"],
)
def test_goes_on_from_a_saved_state(make, tmp_path):
    def walk(schedule, metrics):
        found = []
        for m in metrics:
            schedule.step(m)
            found.append(schedule.lr)
        return found

    opt = optimizer()
    schedule = make(opt)
    walk(schedule, [3, 3])
    dl.save(tmp_path / "opt.safetensors", opt.state_dict())
    dl.save(tmp_path / "schedule.safetensors", schedule.state_dict())
    again = optimizer()
    twin = make(again)
    again.load_state_dict(dl.load(tmp_path / "opt.safetensors"))
    twin.load_state_dict(dl.load(tmp_path / "schedule.safetensors"))
    assert walk(twin, [3, 3, 3, 3]) == walk(schedule, [3, 3, 3, 3])
    with pytest.raises(ArgumentError, match="expected t"):
        twin.load_state_dict({})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.StepLR(o, 0), "step_size must be an int >= 1"),
        (lambda o: optim.WarmupCosine(o, 5, 5), "0 <= warmup < total"),
        (lambda o: optim.OneCycleLR(o, 1.0, 10, anneal="exp"), "anneal must be"),
        (lambda o: rates(optim.OneCycleLR(o, 1.0, 3), 4), "step 3 of a schedule of 3 steps"),
        (lambda o: optim.SequentialLR(o, [optim.StepLR(o, 1)], [2]), "one rising milestone"),
        (lambda o: optim.ReduceLROnPlateau(o, mode="best"), "mode is 'min' or 'max'"),
    ],
)
def test_bad_arguments_give_one_clear_line(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(optimizer())
