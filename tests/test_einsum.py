"""Einsum and the products that reduce to matmul, against NumPy."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import autograd, dispatch
from dlcore.errors import ArgumentError, DlcoreError, IndexRangeError, ShapeError

RNG = np.random.default_rng(0)
SIZES = {"a": 2, "b": 3, "i": 4, "j": 5, "k": 2, "l": 3, "N": 2}
TEXT = """
    ij->ji  ij->  ij->j  ij  ji  ij->ij  N->  ii->i  ii  iji->j  aiia->ai
    i,i->  i,i->i  i,j->ij  ij,jk->ik  ij,jk  ij,kj->ik  ij,jk->ki  ij,ij->  ij,ij->ij  ij,j->i  ij,k->ijk  ijk,jil->kl
    bij,bjk->bik  bij,jk->bik  ij,bjk->bki  bi,bj->bij  abij,abkj->abik  aij,bij->ab  iij,jk->ik  Na,ab->Nb  ab,kl->abkl
    ij,jk,kl->il  i,j,k->kji  i,ij,j->  ab,b,b->a  bi,bj,bk->bijk
"""
EQUATIONS = TEXT.split()


def observed(run):
    """The ops that a function runs."""
    events = []
    with dispatch.listening(events.append):
        run()
    return events


def operands(equation, shapes=None):
    terms = equation.split("->")[0].split(",")
    return [RNG.normal(size=shapes[i] if shapes else [SIZES[c] for c in t]) for i, t in enumerate(terms)]


def assert_agrees(equation, arrays, device="numpy"):
    expected = np.einsum(equation, *arrays)
    tensors = [dl.tensor(x, device=device, requires_grad=True) for x in arrays]
    got = dl.einsum(equation, *tensors)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-12, atol=1e-12)
    assert_gradient_agrees(equation, arrays, got, tensors)


def assert_gradient_agrees(equation, arrays, got, tensors):
    """A multilinear function: its derivative along v in one operand is its value with v in that place."""
    weights = RNG.normal(size=got.shape)
    grads = autograd.gradients((got * weights).sum(), tensors)
    for i, g in enumerate(grads):
        v = RNG.normal(size=arrays[i].shape)
        moved = np.einsum(equation, *arrays[:i], v, *arrays[i + 1 :])
        np.testing.assert_allclose((np.asarray(g) * v).sum(), (moved * weights).sum(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_agrees_with_numpy(equation, device):
    assert_agrees(equation, operands(equation), device)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(3, 4), (2, 4, 5)]),
        ("...ij,jk", [(2, 1, 3, 4), (4, 2)]),
        ("...ij,...jk->ik...", [(2, 1, 3, 4), (5, 4, 2)]),
        ("b...,b...->b...", [(2, 3, 1), (2, 4)]),
        ("...,...->...", [(2, 3), ()]),
        ("i...->...i", [(2, 3, 4)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("ij,jk->ik", [(0, 3), (3, 2)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ij,jk->ik", [(1, 1), (1, 1)]),
        ("i,->i", [(3,), ()]),
        (" i j , j -> i ", [(2, 3), (3,)]),
    ],
    ids=str,
)
def test_ellipsis_and_edge_sizes(equation, shapes):
    assert_agrees(equation, operands(equation, shapes))


def test_a_contraction_is_one_matrix_product():
    ran = observed(lambda: dl.einsum("bhqd,bhkd->bhqk", dl.ones((2, 3, 4, 5)), dl.ones((2, 3, 6, 5))))
    assert [event.op.name for event in ran if not event.op.view] == ["matmul"]


@pytest.mark.parametrize(
    ("equation", "shapes", "error", "text"),
    [
        ("ij,jk->ik", [(2, 3)], ArgumentError, "names 2 operands; got 1"),
        ("ij->ii", [(2, 3)], ArgumentError, "unique"),
        ("ij->k", [(2, 3)], ArgumentError, "occur in an operand"),
        ("i1->i", [(2, 3)], ArgumentError, "letters"),
        ("i....->i", [(2, 3)], ArgumentError, "letters"),
        ("ijk->i", [(2, 3)], ShapeError, r"3 labels for an operand of shape \[2, 3\]"),
        ("i->i", [(2, 3)], ShapeError, "1 labels"),
        ("ij,jk->ik", [(2, 3), (4, 2)], ShapeError, "label 'j' .* sizes 3 and 4"),
        ("ii->i", [(2, 3)], ShapeError, "label 'i' .* sizes 2 and 3"),
        ("...,...->...", [(2,), (3,)], ShapeError, "label '...' .* sizes 2 and 3"),
    ],
    ids=str,
)
def test_mistakes_raise_one_line(equation, shapes, error, text):
    with pytest.raises(error, match=text) as caught:
        dl.einsum(equation, *[dl.ones(s) for s in shapes])
    assert "\n" not in str(caught.value)


# ---- matmul of vectors, tensordot, vecdot, outer

SHAPES = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2)), ((0,), (0,))]


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_matmul_of_vectors(a, b, device):
    x, y = RNG.normal(size=a), RNG.normal(size=b)
    for got in (dl.tensor(x, device=device) @ dl.tensor(y, device=device), x @ dl.tensor(y, device=device)):
        np.testing.assert_allclose(np.asarray(got), x @ y, rtol=1e-12)


@pytest.mark.parametrize("scalar", [2.0, np.asarray(2.0)])
def test_matmul_refuses_scalars(scalar):
    with pytest.raises(ShapeError, match="matmul: a scalar"):
        dl.ones(2) @ scalar


@pytest.mark.parametrize("axes", [0, 1, 2, ([0, -1], [2, 1]), ([2], [1])], ids=str)
def test_tensordot(axes):
    a, b = RNG.normal(size=(3, 3, 3)), RNG.normal(size=(3, 3, 3))
    got = dl.tensordot(dl.tensor(a), dl.tensor(b), axes)
    np.testing.assert_allclose(np.asarray(got), np.tensordot(a, b, axes), rtol=1e-12)


def test_vecdot_and_outer():
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=3)
    np.testing.assert_allclose(np.asarray(dl.vecdot(dl.tensor(a), dl.tensor(b))), a @ b)
    np.testing.assert_allclose(np.asarray(dl.outer(dl.tensor(a[0]), dl.tensor(b))), np.outer(a[0], b))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: dl.tensordot(dl.ones((2, 3)), dl.ones((2, 3)), 1), ShapeError),
        (lambda: dl.tensordot(dl.ones((2, 3)), dl.ones((2, 3)), ([0], [2])), IndexRangeError),
        (lambda: dl.outer(dl.ones((2, 3)), dl.ones(3)), ShapeError),
        (lambda: dl.ones((2, 3)) @ dl.ones(2), ShapeError),
        (lambda: dl.linear(dl.ones((2, 3)), dl.ones((4, 3)), activation="rleu"), ArgumentError),
    ],
)
def test_products_refuse_what_does_not_fit(call, error):
    assert issubclass(error, DlcoreError)
    with pytest.raises(error):
        call()


def test_the_gradient_of_a_shared_matrix_is_one_product():
    x, w = dl.ones((4, 5, 3)).detach(requires_grad=True), dl.ones((3, 2)).detach(requires_grad=True)
    for loss in ((x @ w).sum(), dl.linear(x, w.mT).sum()):
        ran = observed(lambda loss=loss: autograd.gradients(loss, [x, w]))
        assert [e.outputs[0].ndim for e in ran if e.op.name == "matmul"] == [2, 2]
        assert "sum_to" not in [e.op.name for e in ran]
