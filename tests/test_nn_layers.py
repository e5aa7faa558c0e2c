"""Layers against PyTorch with the same weights, and by formula where it is short."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError

TORCH = {
    "Linear": (lambda m: m.Linear(5, 3), [(2, 4, 5)]),
    "Linear without bias": (lambda m: m.Linear(5, 3, bias=False), [(2, 5)]),
    "Bilinear": (lambda m: m.Bilinear(5, 4, 3), [(2, 5), (2, 4)]),
    "Conv1d": (lambda m: m.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), [(2, 4, 9)]),
    "Conv2d": (lambda m: m.Conv2d(4, 6, (3, 2), dilation=2, padding=(1, 2)), [(2, 4, 7, 6)]),
    "Conv2d same": (lambda m: m.Conv2d(3, 3, 4, padding="same", groups=3, bias=False), [(1, 3, 7, 6)]),
    "Conv3d": (lambda m: m.Conv3d(2, 4, 2, stride=(1, 2, 1)), [(1, 2, 4, 5, 3)]),
    "ConvTranspose1d": (lambda m: m.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2), [(2, 4, 5)]),
    "ConvTranspose2d": (lambda m: m.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, True, 2), [(2, 4, 3, 4)]),
    "ConvTranspose3d": (lambda m: m.ConvTranspose3d(2, 3, 2, 2), [(1, 2, 2, 3, 2)]),
    "MaxPool1d": (lambda m: m.MaxPool1d(3, 2, 1), [(2, 3, 9)]),
    "MaxPool2d": (lambda m: m.MaxPool2d(2, ceil_mode=True), [(2, 3, 7, 5)]),
    "MaxPool3d": (lambda m: m.MaxPool3d(2), [(1, 2, 4, 4, 5)]),
    "AvgPool1d": (lambda m: m.AvgPool1d(3, 2), [(2, 3, 9)]),
    "AvgPool2d": (lambda m: m.AvgPool2d(3, 1, 1, count_include_pad=False), [(2, 3, 5, 4)]),
    "AvgPool3d": (lambda m: m.AvgPool3d(2), [(1, 2, 4, 4, 5)]),
    "PReLU": (lambda m: m.PReLU(3), [(2, 3, 4)]),
    "GLU": (lambda m: m.GLU(1), [(2, 6, 3)]),
    "LeakyReLU": (lambda m: m.LeakyReLU(0.25), [(3, 4)]),
    "Softplus": (lambda m: m.Softplus(2.0), [(3, 4)]),
    "Hardtanh": (lambda m: m.Hardtanh(-0.5, 0.2), [(3, 4)]),
    "Softmax": (lambda m: m.Softmax(1), [(3, 4, 2)]),
    "LogSoftmax": (lambda m: m.LogSoftmax(-1), [(3, 4)]),
    "PixelShuffle": (lambda m: m.PixelShuffle(2), [(2, 8, 3, 2)]),
    "PixelUnshuffle": (lambda m: m.PixelUnshuffle(2), [(2, 3, 4, 6)]),
    "AdaptiveAvgPool1d": (lambda m: m.AdaptiveAvgPool1d(3), [(2, 3, 7)]),
    "AdaptiveAvgPool2d": (lambda m: m.AdaptiveAvgPool2d((2, 3)), [(2, 3, 5, 7)]),
    "AdaptiveMaxPool2d": (lambda m: m.AdaptiveMaxPool2d(2), [(2, 3, 5, 4)]),
    "AdaptiveMaxPool3d": (lambda m: m.AdaptiveMaxPool3d(2), [(1, 2, 3, 5, 4)]),
    "Upsample": (lambda m: m.Upsample(scale_factor=2), [(1, 2, 3, 4)]),
    "Upsample to a size": (lambda m: m.Upsample(7, mode="linear", align_corners=True), [(2, 2, 4)]),
    "Flatten": (lambda m: m.Flatten(), [(2, 3, 4)]),
    "Unflatten": (lambda m: m.Unflatten(1, (2, 3)), [(4, 6)]),
    **{
        name: (lambda m, name=name: getattr(m, name)(), [(3, 7)])
        for name in (
            "ReLU", "ReLU6", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "Softsign",
            "Tanh", "Tanhshrink", "Hardsigmoid", "Hardswish", "Hardshrink", "Softshrink",
        )
    },
}  # fmt: skip


def with_same_weights(torch, make):
    """A dlcore layer and a PyTorch layer in float64 with the same weights."""
    theirs = make(torch.nn).double()
    ours = make(nn).astype("float64")
    ours.load_state_dict({name: x.numpy() for name, x in theirs.state_dict().items()})
    return ours, theirs


def values(shapes):
    rng = np.random.default_rng(3)
    return [rng.normal(size=s) * 2 for s in shapes]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_pytorch(name):
    torch = pytest.importorskip("torch")
    make, shapes = TORCH[name]
    ours, theirs = with_same_weights(torch, make)
    xs = [dl.tensor(x, requires_grad=True) for x in values(shapes)]
    ys = [torch.tensor(x, requires_grad=True) for x in values(shapes)]
    got, expected = ours(*xs), theirs(*ys)
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    weights = np.cos(np.arange(expected.numel())).reshape(expected.shape)
    (got * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    pairs = [(x.grad, y.grad) for x, y in zip(xs, ys, strict=True)]
    pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    rtol = 1e-7 if name == "Hardsigmoid" else 1e-9  # PyTorch rounds its slope of 1/6 to float32
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=rtol, atol=1e-11)


def test_linear_can_fuse_its_activation():
    layer = nn.Linear(3, 4, activation="relu")
    x = dl.tensor(values([(2, 3)])[0], "float32")
    expected = np.maximum(np.asarray(x) @ np.asarray(layer.weight).T + np.asarray(layer.bias), 0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_global_pools_reduce_all_spatial_axes():
    x = values([(2, 3, 4, 5)])[0]
    np.testing.assert_allclose(nn.GlobalAvgPool()(dl.tensor(x)), x.mean((2, 3)))
    np.testing.assert_array_equal(nn.GlobalMaxPool()(dl.tensor(x)), x.max((2, 3)))


def test_embedding_picks_rows_and_keeps_padding_at_zero():
    layer = nn.Embedding(5, 3, padding_idx=1)
    ids = dl.tensor([[0, 1], [4, 0]])
    np.testing.assert_array_equal(layer(ids), layer.weight.numpy()[ids.numpy()])
    assert not layer.weight.numpy()[1].any()
    layer(ids).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [2, 0, 0, 0, 1])
    with pytest.raises(IndexRangeError, match="embedding: "):
        layer(dl.tensor([5])).numpy()


def test_dropout_in_training_and_evaluation():
    dl.manual_seed(0)
    x, layer = dl.ones((100, 100)), nn.Dropout(0.3)
    y = layer(x).numpy()
    assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / 0.7))}
    assert abs((y == 0).mean() - 0.3) < 0.02
    assert layer.eval()(x) is x


def test_channel_dropout_zeroes_whole_channels():
    dl.manual_seed(0)
    y = nn.Dropout2d(0.5)(dl.ones((8, 16, 3, 3))).numpy().reshape(128, 9)
    assert (y == y[:, :1]).all()
    assert 40 < (y[:, 0] == 0).sum() < 88
    x = dl.ones((1, 2, 3))
    assert nn.Dropout1d(0.5).eval()(x) is x


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda: nn.Linear(4, 2), (3, 5), r"^0: linear: expected x\[\.\.\.,I\] w\[O,I\]"),
        (lambda: nn.Conv2d(3, 4, 3), (1, 2, 8, 8), r"^0: conv2d: expected .* got "),
        (lambda: nn.PixelShuffle(2), (1, 6, 2, 2), r"^0: pixel_shuffle: expected x\[N,4\*C,H,W\]"),
        (lambda: nn.GLU(), (2, 3), "^0: glu: axis -1 has odd size 3"),
    ],
)
def test_wrong_shapes_name_layer_and_op(make, x, message):
    with pytest.raises(ShapeError, match=message):
        nn.Sequential(make())(dl.zeros(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv2d: channels 3 and 4 do not split into 2 groups"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "Conv2d: kernel_size must be an int or 2 of them"),
        (lambda: nn.Dropout(1.5), r"Dropout: p must lie in \[0, 1\]; got 1.5"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_repr_shows_the_settings():
    shown = repr(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.LeakyReLU(0.2), nn.Linear(4, 2)))
    assert "Conv2d(1, 2, kernel_size=(3, 3), padding=1, bias=False)" in shown
    assert "LeakyReLU(slope=0.2)" in shown
    assert "Linear(4, 2, bias=True)" in shown
