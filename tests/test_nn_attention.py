"""Attention and Transformer layers against PyTorch with the same weights."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, DTypeError, ShapeError

N, L, S, E, HEADS = 2, 4, 5, 6, 3


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def with_same_weights(torch, make):
    """A dlcore and a PyTorch layer in float64 with the same, perturbed weights."""
    theirs = make(torch.nn, batch_first=True).double()
    for i, p in enumerate(theirs.parameters()):
        p.data += torch.tensor(0.1 * values(*p.shape, seed=i))
    ours = make(nn).astype("float64")
    ours.load_state_dict({name: x.detach().numpy() for name, x in theirs.state_dict().items()})
    return ours, theirs


def check(torch, ours, theirs, call_ours, call_theirs, *shapes):
    """Outputs, and gradients of inputs and parameters, agree."""
    xs = [dl.tensor(values(*s, seed=i), requires_grad=True) for i, s in enumerate(shapes)]
    zs = [torch.tensor(values(*s, seed=i), requires_grad=True) for i, s in enumerate(shapes)]
    got, expected = call_ours(ours, *xs), call_theirs(theirs, *zs)
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-9, atol=1e-11)
    weights = np.cos(np.arange(expected.numel())).reshape(expected.shape)
    (got * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    grads = dict(theirs.named_parameters())
    pairs = [(x.grad, z.grad) for x, z in zip(xs, zs, strict=True)]
    pairs += [(p.grad, grads[name].grad) for name, p in ours.named_parameters()]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-8, atol=1e-10)


def mha(m, **options):
    return m.MultiheadAttention(E, HEADS, **options)


@pytest.mark.torch
def test_self_attention_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = with_same_weights(torch, mha)
    check(torch, ours, theirs, lambda m, x: m(x), lambda m, x: m(x, x, x)[0], (N, L, E))


@pytest.mark.torch
def test_masked_cross_attention_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = with_same_weights(torch, lambda m, **o: mha(m, bias=False, **o))
    mask = np.random.default_rng(1).random((L, S)) < 0.7
    mask[:, 0] = True
    keys = np.array([[True] * S, [True, True, True, False, False]])
    check(
        torch, ours, theirs,
        lambda m, q, k, v: m(q, k, v, mask=mask, key_mask=keys),
        lambda m, q, k, v: m(q, k, v, attn_mask=~torch.tensor(mask), key_padding_mask=~torch.tensor(keys))[0],
        (N, L, E), (N, S, E), (N, S, E),
    )  # fmt: skip


def test_a_float_mask_is_added_and_joins_a_mask_of_keys():
    layer, x = mha(nn), dl.tensor(values(N, S, E), "float32")
    keys = np.array([[True] * S, [True, True, False, False, False]])
    bias = np.where(np.tri(S, dtype=bool), 0.0, -np.inf).astype(np.float32)
    got = layer(x, mask=bias, key_mask=keys)
    np.testing.assert_allclose(got, layer(x, causal=True, key_mask=keys), rtol=1e-5, atol=1e-6)


def test_causal_attention_does_not_look_ahead():
    layer = mha(nn)
    x = values(1, L, E).astype(np.float32)
    other = x.copy()
    other[:, -1] += 1
    a, b = layer(dl.tensor(x), causal=True).numpy(), layer(dl.tensor(other), causal=True).numpy()
    np.testing.assert_array_equal(a[:, :-1], b[:, :-1])
    assert (a[:, -1] != b[:, -1]).any()


@pytest.mark.torch
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}, {"layer_norm_eps": 0.1}], ids=str)
def test_encoder_layer_agrees_with_pytorch(options):
    torch = pytest.importorskip("torch")
    ours, theirs = with_same_weights(
        torch, lambda m, **o: m.TransformerEncoderLayer(E, HEADS, 7, dropout=0.0, **options, **o)
    )
    causal = torch.nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    check(torch, ours, theirs, lambda m, x: m(x, causal=True), lambda m, x: m(x, src_mask=causal), (N, L, E))


@pytest.mark.torch
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}], ids=str)
def test_decoder_layer_agrees_with_pytorch(options):
    torch = pytest.importorskip("torch")
    ours, theirs = with_same_weights(
        torch, lambda m, **o: m.TransformerDecoderLayer(E, HEADS, 7, dropout=0.0, **options, **o)
    )
    keys = np.array([[True] * S, [True, True, True, False, False]])
    causal = torch.nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    padding = torch.where(torch.tensor(keys), 0.0, -torch.inf).double()
    check(
        torch, ours, theirs,
        lambda m, x, memory: m(x, memory, memory_key_mask=keys),
        lambda m, x, memory: m(x, memory, tgt_mask=causal, memory_key_padding_mask=padding),
        (N, L, E), (N, S, E),
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_encoder_and_decoder_stacks_agree_with_pytorch():
    torch = pytest.importorskip("torch")

    def encoder(m, **o):
        return m.TransformerEncoder(
            m.TransformerEncoderLayer(E, HEADS, 7, dropout=0.0, norm_first=True, **o), 2, norm=m.LayerNorm(E)
        )

    def decoder(m, **o):
        return m.TransformerDecoder(m.TransformerDecoderLayer(E, HEADS, 7, dropout=0.0, **o), 2)

    ours, theirs = with_same_weights(torch, encoder)
    check(torch, ours, theirs, lambda m, x: m(x), lambda m, x: m(x), (N, L, E))
    ours, theirs = with_same_weights(torch, decoder)
    check(
        torch, ours, theirs,
        lambda m, x, memory: m(x, memory, causal=False), lambda m, x, memory: m(x, memory), (N, L, E), (N, S, E),
    )  # fmt: skip


def test_dropout_acts_in_training_only():
    dl.manual_seed(0)
    x = dl.tensor(values(N, L, E), "float32")
    for layer in (nn.TransformerEncoderLayer(E, HEADS, 7, dropout=0.3), mha(nn, dropout=0.3)):
        assert (layer(x).numpy() != layer(x).numpy()).any()
        layer.eval()
        np.testing.assert_array_equal(layer(x), layer(x))


def test_sinusoidal_encoding():
    codes = nn.sinusoidal_encoding(7, 6).numpy()
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(codes[position, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)
    layer = nn.SinusoidalEncoding(6, max_len=7)
    np.testing.assert_array_equal(layer(dl.zeros((2, 4, 6)))[1], codes[:4])
    assert layer.state_dict() == {}
    assert nn.sinusoidal_encoding(3, 5).shape == (3, 5)


def masked(**masks):
    return nn.MultiheadAttention(E, HEADS)(dl.zeros((N, L, E)), **masks)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.MultiheadAttention(6, 4), ArgumentError, "6 features do not split into 4 heads"),
        (lambda: masked(mask=np.eye(L, dtype=int)), DTypeError, r"mask must be bool \(True: visible\) .*; got int64"),
        (lambda: masked(key_mask=np.ones((N, L))), DTypeError, "key_mask must be bool, True for visible; got float64"),
        (lambda: mha(nn)(dl.zeros((L, E))), ShapeError, r"multihead_attention: expected query\[N,L,E\]"),
        (lambda: mha(nn)(dl.zeros((N, L, E + 1))), ShapeError, "linear: expected"),
        (lambda: nn.SinusoidalEncoding(6, max_len=3)(dl.zeros((1, 4, 6))), ShapeError, "4 exceed max_len 3"),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(E, HEADS, 7), 2)(dl.zeros((1, 2, 5))),
            ShapeError,
            r"^layers\.0\.self_attn: linear: ",
        ),
    ],
)
def test_bad_input_gives_one_clear_line(call, error, message):
    with pytest.raises(error, match=message):
        call()
