"""Recurrent layers against PyTorch with the same weights, and their own options."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError

KINDS = ["RNN", "GRU", "LSTM"]
OPTIONS = [
    {}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "num_layers": 2}, {"bias": False},
]  # fmt: skip
T, N, D, H = 5, 3, 4, 2


def x_values(seed=0, shape=(T, N, D)):
    return np.random.default_rng(seed).normal(size=shape)


def pair(torch, kind, options, cell=False):
    """A dlcore and a PyTorch layer in float64 with the same weights."""
    name = kind + "Cell" if cell else kind
    theirs, ours = (getattr(m, name)(D, H, **options) for m in (torch.nn, nn))
    theirs, ours = theirs.double(), ours.astype("float64")
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state if kind == "GRU" else nn.summed_biases(state))
    return ours, theirs


def flat(state):
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.torch
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_pytorch(kind, options):
    torch = pytest.importorskip("torch")
    ours, theirs = pair(torch, kind, options)
    x, z = dl.tensor(x_values(), requires_grad=True), torch.tensor(x_values(), requires_grad=True)
    batch = T if options.get("batch_first") else N
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    starts = [x_values(seed, (count, batch, H)) for seed in range(1 + (kind == "LSTM"))]
    first = (tuple(map(dl.tensor, starts)), tuple(map(torch.tensor, starts)))
    first = first if kind == "LSTM" else (first[0][0], first[1][0])
    (y, state), (expected, their_state) = ours(x, first[0]), theirs(z, first[1])
    for a, b in zip([y, *flat(state)], [expected, *flat(their_state)], strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-10, atol=1e-12)
    (y * y).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(x.grad, z.grad.numpy(), rtol=1e-9, atol=1e-12)
    grads = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        name = name if kind == "GRU" else name.replace("bias", "bias_ih")
        np.testing.assert_allclose(p.grad, grads[name].grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_agree_with_packed_sequences(kind):
    torch = pytest.importorskip("torch")
    ours, theirs = pair(torch, kind, {"num_layers": 2, "bidirectional": True})
    lengths = [3, 5, 1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x_values()), lengths, enforce_sorted=False)
    expected, their_state = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected)
    y, state = ours(dl.tensor(x_values()), lengths=lengths)
    for a, b in zip([y, *flat(state)], [expected, *flat(their_state)], strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_cells_agree_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    ours, theirs = pair(torch, kind, {}, cell=True)
    mine = other = None
    for seed in range(3):
        x = x_values(seed, (N, D))
        mine, other = ours(dl.tensor(x), mine), theirs(torch.tensor(x), other)
    for a, b in zip(flat(mine), flat(other), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_cell_step_by_step(kind):
    layer, cell = getattr(nn, kind)(D, H), getattr(nn, kind + "Cell")(D, H)
    cell.load_state_dict({name.removesuffix("_l0"): x for name, x in layer.state_dict().items()})
    x, state = dl.tensor(x_values(), "float32"), None
    for t in range(T):
        state = cell(x[t], state)
    y, last = layer(x)
    np.testing.assert_allclose(y[-1], flat(state)[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(flat(last)[-1][0], flat(state)[-1], rtol=1e-6, atol=1e-7)


def test_dropout_between_layers_only_in_training():
    x = dl.tensor(x_values(), "float32")
    layer = nn.GRU(D, H, num_layers=2, dropout=0.5)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0], layer(x)[0])
    single = nn.GRU(D, H, dropout=0.5)
    np.testing.assert_array_equal(single(x)[0], single(x)[0])


@pytest.mark.parametrize("make", [lambda: nn.LSTM(D, H, forget_bias=1.5), lambda: nn.LSTMCell(D, H, forget_bias=1.5)])
def test_forget_bias(make):
    bias = next(p for name, p in make().named_parameters() if name.startswith("bias")).numpy()
    assert (bias[H : 2 * H] == 1.5).all()
    assert (bias[:H] != 1.5).all()
    assert (bias[2 * H :] != 1.5).all()


def test_relu_recurrence():
    x = dl.tensor(x_values(), "float32")
    assert (nn.RNN(D, H, activation="relu")(x)[0].numpy() >= 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(D, H)(dl.zeros((T, N))), ShapeError, r"lstm: expected x\[T,N,I\]; got x\[5, 3\]"),
        (lambda: nn.GRU(D, H)(dl.zeros((T, N, D + 1))), ShapeError, "gru: expected .*I: "),
        (
            lambda: nn.GRU(D, H)(dl.zeros((T, N, D)), dl.zeros((1, 9, H))),
            ShapeError,
            r"gru: expected 1 state\(s\) of shape",
        ),
        (lambda: nn.LSTM(D, H)(dl.zeros((T, N, D)), dl.zeros((1, N, H))), ShapeError, r"lstm: expected 2 state\(s\)"),
        (lambda: nn.RNN(D, H)(dl.zeros((T, N, D)), lengths=[9, 1, 1]), IndexRangeError, "rnn: lengths must lie in"),
        (lambda: nn.LSTM(D, H, bias=False, forget_bias=1.0), ArgumentError, "LSTM: forget_bias needs bias=True"),
        (lambda: nn.RNN(D, H, activation="gelu")(dl.zeros((T, N, D))), ArgumentError, "rnn: "),
        (lambda: nn.GRUCell(D, H)(dl.zeros((T, N, D))), ShapeError, r"gru_cell: expected x\[N,I\]"),
    ],
)
def test_bad_input_gives_one_clear_line(call, error, message):
    with pytest.raises(error, match=message):
        call()
