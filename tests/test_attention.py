"""Attention as users call it: agreement with PyTorch, masks, shared heads, dropout, errors."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
attend = dl.scaled_dot_product_attention


def compared(torch, shapes, mask=None, **attrs):
    """Values and gradients of both sides for the same random q, k and v."""
    arrays = [RNG.normal(size=s) for s in shapes]
    ours = [dl.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = attend(*ours, mask, **attrs)
    more = {"enable_gqa": True} if shapes[0][-3:-2] != shapes[1][-3:-2] else {}
    causal = attrs.pop("causal", False)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *theirs, None if mask is None else torch.tensor(mask), is_causal=causal, **attrs, **more
    )
    g = RNG.normal(size=y.shape)
    y.backward(dl.tensor(g))
    wanted.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), wanted.detach().numpy(), atol=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)


MASKS = {
    "none": None,
    "bool": RNG.random((3, 5)) < 0.7,
    "bool per head": RNG.random((2, 4, 3, 5)) < 0.7,
    "keys": np.asarray([[[[True, False, True, True, False]]], [[[True] * 5]]]),
    "added": RNG.normal(size=(4, 3, 5)),
}


@pytest.mark.torch
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_agrees_with_torch(mask, scale):
    torch = pytest.importorskip("torch")
    compared(torch, [(2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 2)], mask, scale=scale)


@pytest.mark.torch
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 5), (5, 3)])
def test_causal_agrees_with_torch(queries, keys):
    torch = pytest.importorskip("torch")
    compared(torch, [(2, 2, queries, 4), (2, 2, keys, 4), (2, 2, keys, 3)], causal=True)


@pytest.mark.torch
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_shared_heads_agree_with_torch(heads):
    torch = pytest.importorskip("torch")
    compared(torch, [(2, 6, 3, 4), (2, heads, 5, 4), (2, heads, 5, 4)], RNG.random((6, 3, 5)) < 0.8)


def test_query_that_sees_no_key_gets_0_and_passes_no_gradient(device):
    q, k, v = (dl.tensor(RNG.normal(size=(2, 3)), requires_grad=True, device=device) for _ in range(3))
    y = attend(q, k, v, dl.tensor([[True, True], [False, False]], device=device))
    assert not y.numpy()[1].any()
    assert y.numpy()[0].all()
    first = dl.gradients((y * y).sum(), [q, k, v], create_graph=True)
    second = dl.gradients(sum((g * g).sum() for g in first), [q, k, v])
    assert not first[0].numpy()[1].any()
    assert all(np.isfinite(g.numpy()).all() for g in [*first, *second])


def test_gradient_of_an_added_mask(device):
    arrays = [RNG.normal(size=s) for s in [(2, 3, 4), (2, 5, 4), (2, 5, 4), (3, 5)]]
    fused = [dl.tensor(a, requires_grad=True, device=device) for a in arrays]
    plain = [dl.tensor(a, requires_grad=True, device=device) for a in arrays]
    (attend(*fused) ** 2).sum().backward()
    q, k, v, bias = plain
    (dl.matmul(dl.softmax(dl.matmul(q, k.mT) / 2 + bias), v) ** 2).sum().backward()
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)


def test_dropout_drops_weights_and_keeps_their_mean(device):
    dl.manual_seed(0)
    v = dl.tensor(np.eye(200, dtype=np.float32), device=device)
    weights = attend(dl.zeros((200, 4), device=device), dl.zeros((200, 4), device=device), v, dropout_p=0.25).numpy()
    np.testing.assert_allclose(np.unique(weights), [0, 1 / 150], rtol=1e-5)
    assert abs((weights == 0).mean() - 0.25) < 0.01


def test_dropout_respects_masks(device):
    v = dl.tensor(np.eye(4, dtype=np.float32), device=device)
    q = dl.zeros((4, 2), device=device)
    weights = attend(q, q, v, dl.tensor([False, True, True, True], device=device), causal=True, dropout_p=0.5).numpy()
    assert not np.triu(weights, 1).any()
    assert not weights[:, 0].any()


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match="6 query heads do not share 4 key heads evenly"):
        attend(dl.ones((6, 2, 3)), dl.ones((4, 2, 3)), dl.ones((4, 2, 3)))


def test_bad_dropout_is_refused():
    with pytest.raises(ArgumentError, match=r"dropout_p must lie in \[0, 1\]; got 2"):
        attend(*[dl.ones((2, 3))] * 3, dropout_p=2)
