"""Losses: value and gradient against PyTorch and finite differences; refusals."""

import itertools
import math

import numpy as np
import pytest

import dlcore as dl
from dlcore import autograd, testing
from dlcore.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def between(low, high, *shape):
    return RNG.uniform(low, high, shape)


def signs(*shape):
    return RNG.choice([-1.0, 1.0], shape)


def labels(high, *shape):
    return RNG.integers(0, high, shape)


def probabilities(*shape):
    p = RNG.uniform(0.1, 1, shape)
    return p / p.sum(1, keepdims=True)


BCE = "binary_cross_entropy"
WEIGHT = np.asarray([0.5, 2.0, 1.0])
# name: (operands, of which the first `count` are differentiated, and attributes)
CASES = {
    "cross_entropy": [
        ([normal(4, 3), labels(3, 4)], 1, {}),
        ([normal(4, 3), np.asarray([0, -100, 2, 1]), WEIGHT], 1, {"label_smoothing": 0.1}),
        ([normal(2, 3, 4, 2), labels(3, 2, 4, 2), WEIGHT], 1, {"ignore_index": 1}),
        ([normal(3), np.asarray(1)], 1, {}),
        ([normal(4, 3), probabilities(4, 3)], 2, {}),
        ([normal(4, 3, 2), probabilities(4, 3, 2), WEIGHT], 2, {"label_smoothing": 0.3}),
    ],
    "nll_loss": [
        ([normal(4, 3), labels(3, 4)], 1, {}),
        ([normal(2, 3, 5), labels(3, 2, 5), WEIGHT], 1, {"ignore_index": 2}),
    ],
    BCE: [
        ([between(0.1, 0.9, 3, 4), between(0, 1, 3, 4)], 2, {}),
        ([between(0.1, 0.9, 3, 4), between(0, 1, 3, 4), between(0, 1, 4)], 2, {}),
    ],
    f"{BCE}_with_logits": [
        ([normal(3, 4) * 4, between(0, 1, 3, 4)], 2, {}),
        ([normal(3, 4), between(0, 1, 3, 4), between(0, 1, 4)], 2, {"pos_weight": between(1, 3, 4)}),
    ],
    "mse_loss": [([normal(3, 4), normal(3, 4)], 2, {})],
    "l1_loss": [([normal(3, 4), normal(3, 4)], 2, {})],
    "huber_loss": [([normal(3, 4) * 2, normal(3, 4)], 2, {"delta": 0.7})],
    "smooth_l1_loss": [([normal(3, 4) * 2, normal(3, 4)], 2, {"beta": b}) for b in (1.0, 0.3, 0.0)],
    "gaussian_nll_loss": [([normal(3, 4), normal(3, 4), between(0.1, 2, 3, 4)], 3, {"full": f}) for f in (0, 1)],
    "poisson_nll_loss": [
        ([normal(5), between(0, 4, 5)], 1, {"full": True}),
        ([between(0.1, 3, 5), between(0, 4, 5)], 1, {"log_input": False}),
    ],
    "kl_div": [
        ([normal(3, 4), probabilities(3, 4)], 2, {}),
        ([normal(3, 4), normal(3, 4)], 2, {"log_target": True}),
        ([normal(3, 4), np.asarray([[0.0, 1, 0, 0]] * 3)], 1, {}),
    ],
    "hinge_embedding_loss": [([between(0, 2, 3, 4), signs(3, 4)], 1, {"margin": 1.5})],
    "margin_ranking_loss": [([normal(5), normal(5), signs(5)], 2, {"margin": 0.3})],
    "triplet_margin_loss": [
        ([normal(5, 4), normal(5, 4), normal(5, 4)], 3, a) for a in ({}, {"swap": True, "p": 3.0, "margin": 2.0})
    ],
    "cosine_embedding_loss": [([normal(5, 4), normal(5, 4), signs(5)], 2, {"margin": -0.2})],
}
REDUCED = [
    pytest.param(name, operands, count, {**attrs, "reduction": r}, id=f"{name}-{i}-{r}")
    for name, cases in CASES.items()
    for i, (operands, count, attrs) in enumerate(cases)
    for r in ("none", "mean", "sum", *(("batchmean",) if name == "kl_div" else ()))
]


def run(name, operands, count, attrs, device):
    made = [dl.tensor(x, device=device, requires_grad=i < count) for i, x in enumerate(operands)]
    attrs = {k: dl.tensor(v, device=device) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    return getattr(dl, name)(*made, **attrs), made[:count]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # PyTorch on kl_div
@pytest.mark.parametrize(("name", "operands", "count", "attrs"), REDUCED)
def test_agrees_with_torch(name, operands, count, attrs, device):
    torch = pytest.importorskip("torch")
    made = [torch.tensor(x, requires_grad=i < count) for i, x in enumerate(operands)]
    given = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    expected = getattr(torch.nn.functional, name)(*made, **given)
    got, inputs = run(name, operands, count, attrs, device)
    np.testing.assert_allclose(np.asarray(got), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    weights = RNG.uniform(0.5, 1.5, got.shape)
    wanted = torch.autograd.grad((expected * torch.tensor(weights)).sum(), made[:count])
    for a, b in zip(autograd.gradients((got * weights).sum(), inputs), wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-10, atol=1e-12)


def slopes_agree(f, arrays):
    """The gradient of scalar f along a random direction agrees with a central difference."""
    tensors = [dl.tensor(x, requires_grad=True) for x in arrays]
    grads = autograd.gradients(f(*tensors), tensors)
    directions = [RNG.normal(size=x.shape) for x in arrays]
    analytic = sum((np.asarray(g) * v).sum() for g, v in zip(grads, directions, strict=True))

    def at(step):
        return f(*[dl.tensor(x + step * v) for x, v in zip(arrays, directions, strict=True)]).item()

    assert abs(analytic - (at(1e-6) - at(-1e-6)) / 2e-6) < 1e-7 * (1 + abs(analytic))


@pytest.mark.parametrize(
    ("name", "operands", "count", "attrs"), [c for c in REDUCED if c.values[3]["reduction"] == "sum"]
)
def test_gradient_agrees_with_finite_differences(name, operands, count, attrs):
    fixed = [dl.tensor(x) for x in operands[count:]]
    attrs = {k: dl.tensor(v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    slopes_agree(lambda *xs: getattr(dl, name)(*xs, *fixed, **attrs), operands[:count])


# ---- losses that PyTorch lacks, by their formula


def test_hinge_loss():
    s, y = normal(4, 3), signs(4, 3)
    got = dl.hinge_loss(dl.tensor(s, "float64"), dl.tensor(y, "float64"), margin=0.5)
    assert got.item() == pytest.approx(np.maximum(0, 0.5 - s * y).mean(), rel=1e-12)


def test_contrastive_loss():
    a, b, y = normal(5, 3), normal(5, 3), np.asarray([0.0, 1, 1, 0, 0])
    d = np.sqrt(((a - b + 1e-6) ** 2).sum(1))
    got = dl.contrastive_loss(dl.tensor(a), dl.tensor(b), dl.tensor(y), margin=2.0, reduction="none")
    np.testing.assert_allclose(np.asarray(got), np.where(y == 1, d**2, np.maximum(0, 2 - d) ** 2), rtol=1e-12)


@pytest.mark.torch
def test_cosine_similarity_agrees_with_torch():
    torch = pytest.importorskip("torch")
    a, b = normal(2, 3, 4), normal(3, 4)
    a[0, :, 0] = 0
    expected = torch.cosine_similarity(torch.tensor(a), torch.tensor(b), dim=1)
    np.testing.assert_allclose(np.asarray(dl.cosine_similarity(dl.tensor(a), dl.tensor(b))), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_labels_may_be_arrays_or_lists(name, device):
    x = dl.tensor(log_softmax(normal(3, 4)), device=device)
    y = [0, 3, 1]
    found = {getattr(dl, name)(x, made(y)).item() for made in (list, np.asarray, lambda v: dl.tensor(v, device=device))}
    assert len(found) == 1


# ---- large and 16-bit logits


@pytest.mark.parametrize("name", ["cross_entropy", f"{BCE}_with_logits"])
def test_large_logits_stay_finite(name):
    x = dl.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    target = dl.tensor([1]) if name == "cross_entropy" else dl.tensor([[0.0, 1.0, 0.0]])
    loss = getattr(dl, name)(x, target)
    loss.backward()
    assert math.isfinite(loss.item())
    assert np.isfinite(np.asarray(x.grad)).all()


def test_binary_cross_entropy_cuts_the_logarithm():
    p = dl.tensor([0.0, 1.0], requires_grad=True)
    loss = dl.binary_cross_entropy(p, dl.tensor([1.0, 1.0]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [100.0, 0.0]
    assert np.isfinite(np.asarray(p.grad)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cross_entropy_of_16_bit_logits(dtype):
    x = dl.tensor(normal(6, 50) * 5, dtype)
    y = labels(50, 6)
    wide = dl.cross_entropy(x.astype("float64"), y)
    assert testing.error(dl.cross_entropy(x, y), wide) < testing.TOLERANCE[dtype]


# ---- CTC


def ctc_by_enumeration(log_probs, target, blank):
    """-log of the summed probability of all frame labellings that collapse to the target."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        collapsed = [c for c, _ in itertools.groupby(path) if c != blank]
        if collapsed == list(target):
            total += math.exp(sum(log_probs[t, c] for t, c in enumerate(path)))
    return -math.log(total) if total else math.inf


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


TARGETS = [[1, 2], [1, 1], [2, 0], [0, 0], [2, 1]]
FRAMES, COUNTS = [5, 3, 4, 2, 1], [2, 2, 1, 0, 2]


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_agrees_with_enumeration(blank, device):
    x = log_softmax(normal(5, 5, 3))
    targets = [[{0: blank, blank: 0}.get(c, c) for c in row] for row in TARGETS]
    got = dl.ctc_loss(dl.tensor(x, device=device), np.asarray(targets), FRAMES, COUNTS, blank, "none")
    for n, (row, t, s) in enumerate(zip(targets, FRAMES, COUNTS, strict=True)):
        assert got[n].item() == pytest.approx(ctc_by_enumeration(x[:t, n], row[:s], blank), rel=1e-10)


def test_ctc_gradient_agrees_with_finite_differences():
    slopes_agree(
        lambda x: dl.ctc_loss(x, np.asarray(TARGETS), FRAMES, COUNTS, reduction="sum", zero_infinity=True),
        [log_softmax(normal(5, 5, 3))],
    )


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_agrees_with_torch(reduction):
    torch = pytest.importorskip("torch")
    x, y = normal(12, 3, 6), labels(5, 3, 4) + 1
    frames, counts = np.asarray([12, 10, 7]), np.asarray([4, 2, 3])
    ours, theirs = dl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = dl.ctc_loss(dl.log_softmax(ours, axis=-1), y, frames, counts, reduction=reduction)
    args = (torch.tensor(y), torch.tensor(frames), torch.tensor(counts))
    expected = torch.nn.functional.ctc_loss(theirs.log_softmax(-1), *args, reduction=reduction)
    np.testing.assert_allclose(np.asarray(got), expected.detach().numpy(), rtol=1e-12)
    got.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(np.asarray(ours.grad), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("zero_infinity", "expected"), [(False, math.inf), (True, 0.0)])
def test_ctc_of_an_impossible_target(zero_infinity, expected):
    x = dl.zeros((1, 1, 3)).detach(requires_grad=True)
    loss = dl.ctc_loss(x, np.asarray([[1, 2]]), [1], [2], zero_infinity=zero_infinity, reduction="sum")
    loss.backward()
    assert loss.item() == expected
    assert (np.asarray(x.grad) == 0).all()


def test_ctc_over_many_frames_of_16_bits():
    x = log_softmax(normal(400, 1, 4))
    y, lengths = np.asarray([[1, 2, 3]]), ([400], [3])
    got = dl.ctc_loss(dl.tensor(x, "float16"), y, *lengths)
    exact = dl.ctc_loss(dl.tensor(x, "float16").astype("float64"), y, *lengths)
    assert got.item() == pytest.approx(exact.item(), rel=1e-5)


# ---- refusals

F, L = dl.ones((4, 3)), dl.tensor([0, 1, 2, 0])
NAN = dl.tensor([[math.nan] * 3] * 4)
EMPTY = dl.zeros((0, 3))
SAME_SHAPE = [
    "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "kl_div", "poisson_nll_loss", BCE, f"{BCE}_with_logits",
    "hinge_loss", "hinge_embedding_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_shapes_do_not_broadcast(name):
    with pytest.raises(ShapeError, match=rf"^{name}: .*\[4,? ?3\].*\[4,? ?1\]"):
        getattr(dl, name)(F, dl.ones((4, 1)))


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_nan_targets_are_refused(name):
    with pytest.raises(ArgumentError, match=rf"^{name}: a target is NaN"):
        getattr(dl, name)(F, NAN)


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_the_mean_of_an_empty_batch_is_refused(name):
    with pytest.raises(ArgumentError, match=rf"^{name}: the mean of an empty batch"):
        getattr(dl, name)(EMPTY, EMPTY)
    assert getattr(dl, name)(EMPTY, EMPTY, reduction="sum").item() == 0


@pytest.mark.parametrize("name", [*SAME_SHAPE, "cross_entropy", "nll_loss"])
def test_an_unknown_reduction_is_refused(name):
    target = L if name in ("cross_entropy", "nll_loss") else dl.ones((4, 3))
    with pytest.raises(ArgumentError, match=f"^{name}: unknown reduction 'average'"):
        getattr(dl, name)(F, target, reduction="average")


def ctc(targets=((1, 2),), frames=(3,), counts=(2,), blank=0):
    return dl.ctc_loss(dl.zeros((3, 1, 4)), np.asarray(targets), frames, counts, blank)


MISTAKES = {
    "label": (lambda: dl.cross_entropy(F, dl.tensor([0, 1, 7, 0])), IndexRangeError, "label 7 .* 3 classes"),
    "label below 0": (lambda: dl.cross_entropy(F, dl.tensor([0, -1, -100, 0])), IndexRangeError, "entropy: label -1"),
    "negative label": (lambda: dl.nll_loss(F, dl.tensor([0, -1, 0, 0])), IndexRangeError, "nll_loss: label -1"),
    "label shape": (lambda: dl.cross_entropy(F, dl.tensor([0, 1])), ShapeError, "N: 4 vs 2"),
    "label rank": (lambda: dl.nll_loss(F, F.astype(int)), ShapeError, "labels.*got"),
    "float labels": (lambda: dl.cross_entropy(F, L.astype(float)), ShapeError, "integer labels"),
    "bool labels": (lambda: dl.cross_entropy(F, L > 0), DTypeError, "int"),
    "weights": (lambda: dl.cross_entropy(F, L, dl.ones(4)), ShapeError, "C: 3 vs 4"),
    "weights with gradient": (
        lambda: dl.cross_entropy(F, L, dl.ones(3).detach(requires_grad=True)), ArgumentError, "detach"),
    "weights of probabilities": (lambda: dl.cross_entropy(F, F, dl.ones(4)), ShapeError, "weight"),
    "smoothing": (lambda: dl.cross_entropy(F, L, label_smoothing=1.5), ArgumentError, "label_smoothing"),
    "all ignored": (lambda: dl.cross_entropy(F, dl.full(4, -100)), ArgumentError, "every label is ignored"),
    "empty classes": (lambda: dl.cross_entropy(EMPTY, dl.zeros(0, int)), ArgumentError, "empty batch"),
    "probability": (lambda: dl.binary_cross_entropy(F * 2, F), ArgumentError, "[0, 1]"),
    "target": (lambda: dl.binary_cross_entropy_with_logits(F, F * 2), ArgumentError, "[0, 1]"),
    "weight shape": (lambda: dl.binary_cross_entropy(F, F, dl.ones((2, 4, 3))), ShapeError, "weight"),
    "sign": (lambda: dl.hinge_loss(F, F * 0), ArgumentError, "1 or -1"),
    "variance": (lambda: dl.gaussian_nll_loss(F, F, -F), ArgumentError, "variance"),
    "count": (lambda: dl.poisson_nll_loss(F, -F), ArgumentError, "poisson"),
    "delta": (lambda: dl.huber_loss(F, F, delta=0.0), ArgumentError, "delta"),
    "beta": (lambda: dl.smooth_l1_loss(F, F, beta=-1.0), ArgumentError, "beta"),
    "triplet": (lambda: dl.triplet_margin_loss(F, F, dl.ones((4, 2))), ShapeError, "negative"),
    "pairs": (lambda: dl.contrastive_loss(F, F, dl.ones(3)), ShapeError, "targets"),
    "ctc shape": (lambda: ctc(counts=(2, 2)), ShapeError, "target_lengths"),
    "ctc frames": (lambda: ctc(frames=(4,)), ArgumentError, "input_lengths"),
    "ctc count": (lambda: ctc(counts=(3,)), ArgumentError, "target_lengths"),
    "ctc label": (lambda: ctc(targets=((1, 4),)), IndexRangeError, "label 4 .* 4 classes"),
    "ctc blank": (lambda: ctc(blank=1), ArgumentError, "blank label 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_one_line(name):
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text) as caught:
        call().numpy()
    assert "\n" not in str(caught.value)
