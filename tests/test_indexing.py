"""Indexing, gather and scatter, embedding, and the functions that join, split and pad."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import autograd
from dlcore.errors import ArgumentError, DTypeError, GraphError, IndexRangeError, ShapeError

X = np.arange(60.0).reshape(3, 4, 5)
MASK = X % 3 == 0
INDICES = {
    "int": 1,
    "negative": -3,
    "numpy int": np.int64(2),
    "tuple": (1, 2, 3),
    "slice": slice(1, None),
    "step": (slice(None), slice(None, None, -2)),
    "beyond": slice(-100, 100),
    "empty slice": slice(2, 1),
    "ellipsis": (..., 2),
    "middle": (0, ..., slice(1, 3)),
    "new axis": (None, slice(None), None, 1),
    "all": (),
    "list": [2, 0, 0],
    "array": np.asarray([[1, -1], [0, 2]]),
    "two arrays": (np.asarray([0, 2, 1]), np.asarray([3, 0, 0])),
    "broadcast arrays": (np.asarray([[0], [2]]), np.asarray([3, 0])),
    "arrays apart": (np.asarray([0, 1]), slice(None), np.asarray([4, 4])),
    "array and int": (slice(None), np.asarray([1, 1]), 0),
    "array and slice": (slice(1, 3), [0, 3]),
    "array and new axis": (np.asarray([1]), None, slice(2)),
    "small ints": np.asarray([1, 2], np.uint8),
    "empty list": [],
    "mask": MASK,
    "mask of the first axis": np.asarray([True, False, True]),
    "mask of two axes": MASK[:, :, 0],
    "mask inside": (slice(None), np.asarray([True, False, True, False])),
    "empty mask": np.zeros((3, 4, 5), bool),
}


@pytest.mark.parametrize("name", INDICES)
def test_value_and_gradient_agree_with_numpy(name, device):
    index = INDICES[name]
    x = dl.tensor(X, device=device, requires_grad=True)
    got = x[index]
    np.testing.assert_array_equal(np.asarray(got), X[index])
    weights = np.arange(1.0, got.size + 1).reshape(got.shape)
    (got * weights).sum().backward()
    expected = np.zeros_like(X)
    np.add.at(expected, index, weights)
    np.testing.assert_array_equal(np.asarray(x.grad), expected)


@pytest.mark.parametrize("name", ["array", "mask", "two arrays"])
def test_tensors_index_like_arrays(name, device):
    index = INDICES[name]
    entries = index if isinstance(index, tuple) else (index,)
    placed = tuple(dl.asarray(e, device=device) for e in entries)
    np.testing.assert_array_equal(np.asarray(dl.tensor(X, device=device)[placed]), X[index])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16"])
def test_the_dtype_stays(dtype, device):
    x = dl.tensor([0, 1, 1], dtype, device)
    assert x[1:].dtype == x[[0, 2]].dtype == dl.take(x, [1]).dtype == x.dtype


def test_iteration_and_unpacking():
    a, b = dl.tensor([[1, 2], [3, 4]])
    assert (a.tolist(), b.tolist()) == ([1, 2], [3, 4])


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (3, IndexRangeError, "index 3 .* axis 0 of size 3"),
        ((0, -5), IndexRangeError, "index -5 .* axis 1 of size 4"),
        ((..., [1, 9]), IndexRangeError, "index 9 .* axis 2 of size 5"),
        ((0, 0, 0, 0), IndexRangeError, "4 indices for 3 dimensions"),
        ((..., ...), IndexRangeError, "at most one"),
        ("a", DTypeError, "str"),
        (1.0, DTypeError, "float"),
        (np.asarray([0.5]), DTypeError, "float64"),
        (np.ones((3, 3), bool), ShapeError, r"mask of shape \(3, 3\)"),
        ((np.asarray([0, 1]), np.asarray([0, 1, 2])), ShapeError, "broadcast"),
        (slice(None, None, 0), ArgumentError, "step"),
    ],
    ids=str,
)
def test_bad_indices_raise_one_line(index, error, text, device):
    x = dl.tensor(X, device=device)
    with pytest.raises(error, match=text) as caught:
        x[index].numpy()
    assert "\n" not in str(caught.value)
    assert x[0, 0, 1].item() == 1


def test_a_tensor_is_not_written_by_index():
    with pytest.raises(GraphError, match=r"dl\.scatter"):
        dl.zeros(3)[0] = 1.0


# ---- gather and scatter

GATHER_MISTAKES = {
    "take": (lambda x: dl.take(x, [0, 4], axis=1), IndexRangeError, "take: index 4 .* axis 1 of size 4"),
    "take axis": (lambda x: dl.take(x, [0], axis=3), IndexRangeError, "take: axis 3"),
    "take floats": (lambda x: dl.take(x, np.asarray([0.0])), DTypeError, "take: indices"),
    "along": (lambda x: dl.take_along_axis(x, np.full((3, 4, 1), -6)), IndexRangeError, "index -6 .* axis 2 of size 5"),
    "along shape": (lambda x: dl.take_along_axis(x, np.zeros((3, 1, 1), int)), ShapeError, "along axis 2 only"),
    "scatter": (
        lambda x: dl.scatter(x, np.full((3, 4, 1), 5), np.ones((3, 4, 1))), IndexRangeError, "scatter: index 5"),
    "scatter_add": (
        lambda x: dl.scatter_add(x, np.zeros((3, 4, 1), int), np.ones((3, 4, 2))), ShapeError, "scatter_add: expected"),
    "index_add": (lambda x: dl.index_add(x, [7], np.ones((1, 4, 5))), IndexRangeError, "index_add: index 7"),
    "index_add shape": (lambda x: dl.index_add(x, [1], np.ones((2, 4, 5))), ShapeError, "updates must have shape"),
    "one_hot": (lambda x: dl.one_hot([3], 3), IndexRangeError, "one_hot: label 3 .* 3 classes"),
    "embedding": (lambda x: dl.embedding([1, 9], x[0]), IndexRangeError, "embedding: index 9 .* size 4"),
    "padding_idx": (lambda x: dl.embedding([1], x[0], padding_idx=4), IndexRangeError, "embedding: index 4"),
    "masked_select": (lambda x: dl.masked_select(x, np.ones(3, bool)), ShapeError, "masked_select: mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", GATHER_MISTAKES)
def test_mistakes_raise_one_line(name, device):
    call, error, text = GATHER_MISTAKES[name]
    with pytest.raises(error, match=text) as caught:
        call(dl.tensor(X, device=device)).numpy()
    assert "\n" not in str(caught.value)


def test_scatter_keeps_the_last_of_repeated_positions():
    x = dl.ones(3).detach(requires_grad=True)
    updates = dl.tensor([5.0, 6.0, 7.0], requires_grad=True)
    y = dl.scatter(x, [2, 0, 2], updates)
    assert y.tolist() == [6, 1, 7]
    dx, du = autograd.gradients((y * dl.tensor([1.0, 2.0, 3.0])).sum(), [x, updates])
    assert dx.tolist() == [0, 2, 0]
    assert du.tolist() == [0, 1, 3]


def test_sums_at_one_position_run_in_order():
    """In float32, 1e8 - 1e8 + 1 is 1 in this order and 0 in others."""
    values = dl.tensor([1e8, -1e8, 1.0])
    assert dl.index_add(dl.zeros(1), [0, 0, 0], values).item() == 1
    assert dl.scatter_add(dl.zeros(1), [0, 0, 0], values).item() == 1
    table = dl.zeros((1, 1)).detach(requires_grad=True)
    (dl.embedding([0, 0, 0], table).reshape(3) * values).sum().backward()
    assert table.grad.item() == 1


def test_masks():
    x, mask = dl.tensor(X), dl.tensor(MASK)
    np.testing.assert_array_equal(np.asarray(dl.masked_select(x, mask)), X[MASK])
    np.testing.assert_array_equal(np.asarray(dl.masked_select(x, mask[0])), X[np.broadcast_to(MASK[0], X.shape)])
    np.testing.assert_array_equal(np.asarray(dl.masked_fill(x, mask, -1.0)), np.where(MASK, -1, X))
    for got, expected in zip(dl.nonzero(mask), np.nonzero(MASK), strict=True):
        np.testing.assert_array_equal(np.asarray(got), expected)


@pytest.mark.parametrize("padding_idx", [1, -3])
def test_the_padding_row_of_an_embedding_gets_no_gradient(padding_idx):
    table = dl.tensor(X[0], requires_grad=True)
    y = dl.embedding([[1, 0], [-3, 1]], table, padding_idx=padding_idx)
    np.testing.assert_array_equal(np.asarray(y), X[0][[[1, 0], [1, 1]]])
    y.sum().backward()
    assert table.grad.sum(axis=1).tolist() == [5, 0, 0, 0]


# ---- joining, splitting, moving

REFLECT, WIDE = [(0, 2), (3, 0), (1, 1)], [(7, 0), (0, 0), (1, 9)]
FUNCTIONS = {
    "concat": (lambda x: dl.concat([x, x[:1]], 0), lambda x: np.concatenate([x, x[:1]])),
    "stack": (lambda x: dl.stack([x, x], -1), lambda x: np.stack([x, x], -1)),
    "split": (lambda x: dl.split(x, [1, 3], 1)[1], lambda x: x[:, 1:]),
    "split by size": (lambda x: dl.split(x, 3, -1)[1], lambda x: x[..., 3:]),
    "chunk": (lambda x: dl.chunk(x, 2, 2)[0], lambda x: x[..., :3]),
    "unstack": (lambda x: dl.unstack(x, 1)[2], lambda x: x[:, 2]),
    "squeeze": (lambda x: dl.squeeze(x[:1, :, :1]), lambda x: x[0, :, 0]),
    "squeeze one": (lambda x: dl.squeeze(x[:1, :, :1], -1), lambda x: x[:1, :, 0]),
    "expand_dims": (lambda x: dl.expand_dims(x, -2), lambda x: np.expand_dims(x, -2)),
    "flatten": (lambda x: dl.flatten(x, 1), lambda x: x.reshape(3, 20)),
    "unflatten": (lambda x: dl.unflatten(x, 1, (2, -1)), lambda x: x.reshape(3, 2, 2, 5)),
    "moveaxis": (lambda x: dl.moveaxis(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0))),
    "swapaxes": (lambda x: dl.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1)),
    "flip": (lambda x: dl.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1))),
    "flip all": (dl.flip, np.flip),
    "roll": (lambda x: dl.roll(x, (1, -7), (0, 2)), lambda x: np.roll(x, (1, -7), (0, 2))),
    "roll flat": (lambda x: dl.roll(x, 13), lambda x: np.roll(x, 13)),
    "tile": (lambda x: dl.tile(x, (2, 1, 3, 1)), lambda x: np.tile(x, (2, 1, 3, 1))),
    "tile last": (lambda x: dl.tile(x, (2,)), lambda x: np.tile(x, (2,))),
    "repeat": (lambda x: dl.repeat(x, 2, 1), lambda x: np.repeat(x, 2, 1)),
    "repeat each": (lambda x: dl.repeat(x, [2, 0, 1], 0), lambda x: np.repeat(x, [2, 0, 1], 0)),
    "repeat flat": (lambda x: dl.repeat(x, 3), lambda x: np.repeat(x, 3)),
    "diagonal": (dl.diagonal, lambda x: np.diagonal(x, 0, 1, 2)),
    "diagonal off": (lambda x: dl.diagonal(x, -1, 2, 0), lambda x: np.diagonal(x, -1, 2, 0)),
    "diagonal beyond": (lambda x: dl.diagonal(x, 9), lambda x: np.diagonal(x, 9, 1, 2)),
    "pad": (lambda x: dl.pad(x, 1, value=2.0), lambda x: np.pad(x, 1, constant_values=2)),
    "reflect": (lambda x: dl.pad(x, REFLECT, "reflect"), lambda x: np.pad(x, REFLECT, "reflect")),
    "replicate": (lambda x: dl.pad(x, WIDE, "replicate"), lambda x: np.pad(x, WIDE, "edge")),
    "circular": (lambda x: dl.pad(x, REFLECT, "circular"), lambda x: np.pad(x, REFLECT, "wrap")),
    "meshgrid": (lambda x: dl.meshgrid(x[0, 0], x[0, :, 0])[1], lambda x: np.meshgrid(x[0, 0], x[0, :, 0])[1]),
    "meshgrid ij": (
        lambda x: dl.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0],
        lambda x: np.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_agree_with_numpy_and_move_gradients_back(name, device):
    """All of them copy elements, so the gradient of sum(w * f(x)) counts w at each element's copies."""
    ours, theirs = FUNCTIONS[name]
    x = dl.tensor(X, device=device, requires_grad=True)
    got = ours(x)
    np.testing.assert_array_equal(np.asarray(got), theirs(X))
    source = theirs(X + 1).astype(int) - 1  # the element's own position; padding with a constant has none
    if name == "pad":
        source = theirs(X).astype(int)
        source[theirs(np.zeros_like(X)) == 2] = -1
    weights = np.arange(1.0, got.size + 1).reshape(got.shape)
    (got * weights).sum().backward()
    expected = np.bincount(source.ravel() + 1, weights.ravel(), minlength=61)[1:].reshape(X.shape)
    np.testing.assert_array_equal(np.asarray(x.grad), expected)


def test_concat_promotes_and_skips_constants():
    a = dl.ones(2, "float16").detach(requires_grad=True)
    y = dl.concat([a, dl.ones(1, "float32")])
    assert y.dtype == np.float32
    y.sum().backward()
    assert a.grad.dtype == np.float16


JOIN_MISTAKES = {
    "nothing": (lambda x: dl.concat([]), ShapeError, "concat: no tensor"),
    "concat": (lambda x: dl.concat([x, x[:, :2]]), ShapeError, "concat: shapes .* axis 0 only"),
    "concat axis": (lambda x: dl.concat([x, x], 3), IndexRangeError, "concat: axis 3"),
    "stack": (lambda x: dl.stack([x, x[:2]]), ShapeError, "stack: shapes differ"),
    "split": (lambda x: dl.split(x, [1, 1]), ShapeError, "split: sizes"),
    "split size": (lambda x: dl.split(x, 0), ShapeError, "split: pieces of size 0"),
    "chunk": (lambda x: dl.chunk(x, 0), ShapeError, "chunk: 0 pieces"),
    "squeeze": (lambda x: dl.squeeze(x, 1), ShapeError, "squeeze: axis 1"),
    "flatten": (lambda x: dl.flatten(x, 2, 1), ShapeError, "flatten: axis 2"),
    "unflatten": (lambda x: dl.unflatten(x, 1, (3, -1)), ShapeError, "unflatten: axis 1 of size 4"),
    "moveaxis": (lambda x: dl.moveaxis(x, (0, 1), (0,)), ShapeError, "moveaxis"),
    "roll": (lambda x: dl.roll(x, (1, 2), 0), ShapeError, "roll: 2 shifts for 1 axes"),
    "tile": (lambda x: dl.tile(x, (-1,)), ArgumentError, "tile"),
    "repeat": (lambda x: dl.repeat(x, [1, 2], 0), ArgumentError, "repeat"),
    "pad widths": (lambda x: dl.pad(x, [(1, 1)]), ShapeError, "pad: 1 pairs .* 3 axes"),
    "pad negative": (lambda x: dl.pad(x, -1), ArgumentError, "pad: negative"),
    "pad mode": (lambda x: dl.pad(x, 1, "mirror"), ArgumentError, "pad: unknown mode 'mirror'"),
    "pad reflect": (lambda x: dl.pad(x, 3, "reflect"), ArgumentError, "pad: .* up to 2"),
    "meshgrid": (lambda x: dl.meshgrid(x), ArgumentError, "meshgrid"),
}


@pytest.mark.parametrize("name", JOIN_MISTAKES)
def test_joining_mistakes_raise_one_line(name):
    call, error, text = JOIN_MISTAKES[name]
    with pytest.raises(error, match=text) as caught:
        call(dl.tensor(X))
    assert "\n" not in str(caught.value)


# ---- pieces


def test_gradients_of_pieces_are_joined_once():
    x, ran = dl.tensor(np.arange(6.0), requires_grad=True), []
    a, _, c = dl.split(x, [1, 2, 3])
    with dl.dispatch.listening(lambda event: ran.append(event.op.name)):
        (a.sum() + (c * c).sum()).backward()
    assert x.grad.tolist() == [1, 0, 0, 6, 8, 10]
    assert ran.count("concat") == 1
    assert "getitem_grad" not in ran


def test_pieces_share_the_memory_and_the_version():
    x = dl.tensor(np.arange(4.0))
    pieces = [*dl.split(x, 2), *dl.split(x, 2)]  # of a new kind of call, and of a known one
    x.assign(0)
    assert [p.tolist() for p in pieces] == [[0, 0]] * 4
    assert [p.version for p in pieces] == [x.version] * 4


def test_one_piece_is_the_whole():
    x = dl.ones(3)
    assert dl.split(x, 5)[0].tolist() == [1, 1, 1]
    assert len(dl.chunk(x, 1)) == 1
