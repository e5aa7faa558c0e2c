"""The tensor: dtypes, creation, NumPy and DLPack, indexing, and what a Python object should do."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dlcore as dl
from dlcore import dtypes
from dlcore.errors import ArgumentError, DTypeError, GraphError, IndexRangeError, ShapeError

NAMES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "bool"]
quick = settings(max_examples=60, deadline=None, database=None, derandomize=True)


# ---- dtypes and promotion


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "int64", "float16"),
        ("float32", "int64", "float32"),
        ("bfloat16", "int8", "bfloat16"),
        ("int32", "int64", "int64"),
        ("int8", "uint8", "int16"),
        ("uint8", "uint16", "uint16"),
        ("bool", "bool", "bool"),
        ("bool", "int8", "int8"),
        ("bool", "float16", "float16"),
    ],
)
def test_promotion(a, b, expected, device):
    x, y = dl.ones(2, a, device), dl.ones(2, b, device)
    assert (x + y).dtype.name == (y + x).dtype.name == expected


@pytest.mark.parametrize(
    ("name", "scalar", "expected"),
    [
        ("float16", 2.5, "float16"),
        ("bfloat16", 2.5, "bfloat16"),
        ("float64", 2, "float64"),
        ("int8", 2, "int8"),
        ("int8", 2.5, "float32"),
        ("bool", 2, "int64"),
        ("bool", True, "bool"),
        ("int32", True, "int32"),
        ("float16", np.float64(2.5), "float16"),
        ("int8", np.int64(2), "int8"),
        ("float16", np.float32(2.5), "float32"),
    ],
)
def test_python_scalars_are_weak(name, scalar, expected):
    x = dl.ones(2, name)
    assert (x * scalar).dtype.name == (scalar * x).dtype.name == expected


def test_a_scalar_that_does_not_fit_is_refused():
    with pytest.raises(DTypeError, match=r"^add: 300 does not fit int8$"):
        dl.ones(2, "int8") + 300


@pytest.mark.parametrize(("name", "expected"), [("float32", "float32"), ("int32", "float32"), ("bool", "float32")])
def test_division_and_functions_give_floats(name, expected):
    x = dl.ones(2, name)
    assert (x / 2).dtype.name == dl.exp(x).dtype.name == dl.mean(x).dtype.name == expected


def test_dtype_accepts_names_types_and_numpy_dtypes():
    assert dtypes.dtype("float32") is dtypes.dtype(float) is dtypes.dtype(np.float32) is dtypes.float32
    assert dtypes.dtype(int) is dtypes.int64
    assert dtypes.dtype(bool) is dtypes.bool_


@pytest.mark.parametrize("spec", ["complex64", "float128", "no such", "U4", "datetime64[s]", ">f4"])
def test_an_unknown_dtype_lists_the_known_ones(spec):
    with pytest.raises(DTypeError, match="expected one of float64, float32"):
        dl.zeros(2, spec)


def test_bfloat16_rounds_to_nearest_and_sums_in_float32(device):
    x = dl.full(1000, 1 / 3, "bfloat16", device)
    assert x[0].item() == 0.333984375
    assert abs(x.sum().item() / 333.984375 - 1) < 2**-8


# ---- creation


def test_python_data_gets_default_dtypes():
    assert dl.tensor([1.0, 2]).dtype == dtypes.float32
    assert dl.tensor([1, 2]).dtype == dtypes.int64
    assert dl.tensor(True).dtype == dtypes.bool_
    assert dl.tensor([]).dtype == dtypes.float32
    assert dl.tensor(np.ones(2)).dtype == dtypes.float64


@pytest.mark.parametrize("name", [*NAMES, "bfloat16"])
def test_filled_tensors(name, device):
    assert dl.zeros((2, 3), name, device).tolist() == [[0, 0, 0]] * 2
    assert dl.ones(2, name, device).dtype.name == name
    assert dl.full((), 1, name, device).shape == ()
    assert dl.ones_like(dl.zeros((2, 0), name, device)).shape == (2, 0)


def test_ranges():
    assert dl.arange(3).tolist() == [0, 1, 2]
    assert dl.arange(1, 2, 0.5).tolist() == [1.0, 1.5]
    assert dl.arange(1, 2, 0.5).dtype == dtypes.float32
    assert dl.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
    assert dl.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_tensor_copies_and_asarray_shares():
    a = np.zeros(2, np.float32)
    copied, shared = dl.tensor(a), dl.asarray(a)
    a[0] = 5
    assert copied.tolist() == [0, 0]
    assert shared.tolist() == [5, 0]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([[1.0], [1.0, 2.0]], ShapeError, "nested lists have unequal lengths"),
        (["a"], DTypeError, "cannot make a tensor of <U1 data"),
        (1j, DTypeError, "cannot make a tensor of complex128 data"),
        (object(), DTypeError, "cannot make a tensor of object data"),
        (None, DTypeError, "cannot make a tensor of object data"),
    ],
)
def test_what_is_no_number_is_refused(data, error, message):
    with pytest.raises(error, match=f"^asarray: {message}"):
        dl.tensor(data)


def test_negative_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"negative size in shape \(-1, 2\)"):
        dl.zeros((-1, 2))


def test_big_endian_data_is_converted():
    x = dl.tensor(np.array([1.5, 2.5], ">f4"))
    assert (x.dtype, x.tolist()) == (dtypes.float32, [1.5, 2.5])
    assert (dl.ones(2) + np.array([1, 2], ">i4")).tolist() == [2, 3]


def test_the_constructor_points_to_the_functions():
    with pytest.raises(DTypeError, match=r"dl.tensor\(data\)"):
        dl.Tensor()


# ---- NumPy and DLPack


def test_numpy_reads_a_tensor(device):
    x = dl.tensor([[1.0, 2.0]], device=device)
    assert np.array_equal(np.asarray(x), [[1, 2]])
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.max(np.array(x)) == 2


def test_numpy_gets_shared_memory_that_it_cannot_write():
    x = dl.zeros(3, device="numpy")
    view = x.numpy()
    assert np.shares_memory(view, x.numpy())
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    copied = np.array(x)
    copied[0] = 1
    assert x.tolist() == [0, 0, 0]


def test_numpy_may_not_ask_for_a_cast_without_a_copy():
    with pytest.raises(ValueError, match="float32 tensor cannot become float64 without a copy"):
        np.asarray(dl.zeros(3), dtype=np.float64, copy=False)


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide", "pow", "maximum"])
def test_arrays_mix_with_tensors_in_both_orders(operation):
    a, b = np.array([1.0, 4.0]), np.array([2.0, 0.5])
    f, reference = getattr(dl, operation), getattr(np, operation if operation != "pow" else "power")
    assert np.allclose(f(dl.asarray(a), b), reference(a, b))
    assert np.allclose(f(a, dl.asarray(b)), reference(a, b))


def test_operators_with_an_array_on_the_left_give_tensors():
    a, t = np.array([6.0, 9.0]), dl.tensor([2.0, 3.0], "float64")
    for got, expected in [(a * t, [12, 27]), (a - t, [4, 6]), (a / t, [3, 3]), (a**t, [36, 729]), (a % t, [0, 0])]:
        assert isinstance(got, dl.Tensor)
        assert got.tolist() == expected
    assert isinstance(a > t, dl.Tensor)
    assert (np.eye(2) @ t).tolist() == [2, 3]
    assert (np.float64(3) * t).tolist() == [6, 9]


@pytest.mark.parametrize("operand", ["a", 1j, object(), {"a": 1}, [["a"]], np.array([1j])])
def test_an_operand_of_a_wrong_type_is_refused_in_one_line(operand):
    with pytest.raises(DTypeError, match=r"^add: cannot ") as caught:
        dl.add(dl.ones(2), operand)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call", [lambda t: dl.logical_and(t > 0, 1), lambda t: dl.where(1.0, t, t), lambda t: dl.logical_not(t)]
)
def test_an_operand_of_a_wrong_kind_is_refused(call):
    with pytest.raises(DTypeError, match="must be of bool dtype; got"):
        call(dl.ones(2))


def test_dlpack_with_numpy(device):
    x = dl.tensor([1.0, 2.0], device=device)
    assert np.from_dlpack(x).tolist() == [1, 2]
    assert dl.asarray(np.arange(3)).tolist() == [0, 1, 2]
    with pytest.raises(GraphError, match=r"call .detach\(\) first"):
        np.from_dlpack(dl.tensor([1.0], requires_grad=True))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "int64", "uint8", "bool"])
def test_dlpack_with_torch_shares_memory(name):
    torch = pytest.importorskip("torch")
    theirs = torch.ones(3, dtype=getattr(torch, name))
    mine = dl.asarray(theirs)
    assert (mine.dtype.name, mine.tolist()) == (name, [1, 1, 1])
    theirs[0] = 0
    assert mine.tolist() == [0, 1, 1]
    back = torch.from_dlpack(mine)
    assert back.data_ptr() == theirs.data_ptr()


@pytest.mark.torch
def test_a_torch_tensor_that_dlpack_refuses_gives_one_clear_line():
    torch = pytest.importorskip("torch")
    with pytest.raises(DTypeError, match=r"^asarray: cannot take a torch.Tensor: ") as caught:
        dl.asarray(torch.ones(2, requires_grad=True))
    assert "\n" not in str(caught.value)


# ---- indexing

BASE = np.arange(2 * 3 * 4).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        (1, 2),
        (1, 2, 3),
        np.int64(1),
        slice(None),
        slice(None, None, -1),
        (slice(1), slice(None, None, 2)),
        (..., 0),
        (0, ..., slice(1, 3)),
        None,
        (slice(None), None, 1),
        [1, 0, 1],
        np.array([[0, 1], [1, 0]]),
        (slice(None), [2, 0]),
        ([0, 1], [2, 0]),
        ([0, 1], slice(None), [3, 0]),
        (0, slice(None), [3, 0]),
        ([[0], [1]], [0, 2]),
        [],
        BASE > 7,
        (0, BASE[0] > 3),
        (0, BASE[0, :, 0] > 3),
        (slice(None), [True, False, True]),
        np.zeros((2, 3), bool),
    ],
    ids=repr,
)
def test_indexing_is_numpys(index, device):
    x = dl.tensor(BASE, device=device)
    assert x[index].shape == BASE[index].shape
    assert np.array_equal(x[index], BASE[index])


def test_tensors_index_tensors(device):
    x = dl.tensor(BASE, device=device)
    assert np.array_equal(x[dl.tensor([1, 0], device=device)], BASE[[1, 0]])
    assert np.array_equal(x[x > 7], BASE[BASE > 7])
    assert np.array_equal(x[dl.tensor(1, device=device)], BASE[1])


@quick
@given(st.data())
def test_basic_indices_are_numpys(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    a = np.arange(math.prod(shape)).reshape(shape)
    got = dl.asarray(a, device="numpy")[index]
    assert got.shape == np.shape(a[index])
    assert np.array_equal(got, a[index])


@quick
@given(st.data())
def test_integer_array_indices_are_numpys(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    index = data.draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
    a = np.arange(math.prod(shape)).reshape(shape)
    assert np.array_equal(dl.asarray(a, device="numpy")[index], a[index])


@quick
@given(hnp.arrays(bool, hnp.array_shapes(max_dims=3, max_side=4, min_side=0)))
def test_masks_are_numpys(mask):
    a = np.arange(mask.size).reshape(mask.shape)
    assert np.array_equal(dl.asarray(a, device="numpy")[mask], a[mask])


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (2, IndexRangeError, "index 2 is out of range for axis 0 of size 2"),
        ((0, -4), IndexRangeError, "index -4 is out of range for axis 1 of size 3"),
        ([0, 5], IndexRangeError, "index 5 is out of range for axis 0 of size 2"),
        ((0, 0, 0, 0), IndexRangeError, "4 indices for 3 dimensions"),
        ((..., ...), IndexRangeError, "at most one '...'"),
        (1.0, DTypeError, "cannot index with float"),
        ("a", DTypeError, "cannot index with str"),
        (np.array([1.0]), DTypeError, "cannot index with float64"),
        (np.ones((2, 2), bool), ShapeError, r"mask of shape \(2, 2\) on axes of sizes \(2, 3\)"),
    ],
    ids=repr,
)
def test_a_bad_index_is_explained(index, error, message):
    with pytest.raises(error, match=message):
        dl.tensor(BASE)[index]


def test_a_gradient_flows_through_indexing():
    x = dl.tensor(np.ones((3, 2)), requires_grad=True)
    (x[[0, 0, 2]].sum() + x[x > 0].sum() + x[1, 1]).backward()
    assert x.grad.tolist() == [[3, 3], [1, 2], [2, 2]]


def test_writing_by_index_points_to_the_alternatives():
    with pytest.raises(GraphError, match=r"dl.where, dl.scatter or t.assign"):
        dl.zeros(3)[0] = 1


# ---- a Python object


def test_scalars_convert():
    assert (int(dl.tensor(3)), float(dl.tensor(2.5)), bool(dl.tensor([1]))) == (3, 2.5, True)
    assert [10, 20][dl.tensor(1)] == 20
    assert isinstance(dl.tensor(1.5, "bfloat16").item(), float)
    with pytest.raises(ShapeError, match=r"item\(\) needs one element; got shape \(2,\)"):
        bool(dl.ones(2))
    with pytest.raises(DTypeError, match="a float32 tensor is no index"):
        [10][dl.tensor(0.0)]


def test_iteration_and_length():
    x = dl.tensor([[1, 2], [3, 4]])
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    (a, b), _ = x
    assert (a.item(), b.item(), len(x)) == (1, 2, 2)
    for f in (len, iter):
        with pytest.raises(ShapeError, match="0-d tensor"):
            f(dl.tensor(1))


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (lambda: dl.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: dl.tensor(3), "tensor(3)"),
        (lambda: dl.tensor([True]), "tensor([ True])"),
        (lambda: dl.tensor([1.5], "float64", requires_grad=True), "tensor([1.5], dtype=float64, requires_grad=True)"),
        (lambda: dl.tensor([1.5], "bfloat16"), "tensor([1.5], dtype=bfloat16)"),
        (lambda: dl.zeros((2, 0)), "tensor([], shape=(2, 0))"),
        (lambda: dl.tensor([[1, 2], [3, 4]]), "tensor([[1, 2],\n        [3, 4]])"),
    ],
)
def test_repr(t, text):
    assert repr(t()) == text


def test_repr_of_a_large_tensor_is_short():
    assert len(repr(dl.zeros(10_000))) < 200


def test_transposes():
    x = dl.tensor(BASE)
    assert np.array_equal(x.mT, BASE.swapaxes(1, 2))
    assert np.array_equal(x[0].T, BASE[0].T)
    with pytest.raises(ShapeError, match="T is for matrices"):
        _ = x.T
    with pytest.raises(ShapeError, match=r"mT needs two axes; got shape \(3,\)"):
        _ = dl.ones(3).mT


def test_equality_is_element_wise_and_hash_is_identity():
    x = dl.tensor([1, 2])
    assert (x == dl.tensor([1, 3])).tolist() == [True, False]
    assert (x != 1).tolist() == [False, True]
    assert len({x, x, dl.tensor([1, 2])}) == 2


def test_operators_agree_with_functions():
    x, y = dl.tensor([7, -7]), dl.tensor([2, 2])
    assert (x // y).tolist() == [3, -4]
    assert (x % y).tolist() == [1, 1]
    assert (abs(x).tolist(), (-x).tolist(), (+x).tolist()) == ([7, 7], [-7, 7], [7, -7])
    assert ((x & 3).tolist(), (x | y).tolist(), (x ^ y).tolist(), (~y).tolist()) == ([3, 1], [7, -5], [5, -5], [-3, -3])
    assert (~(x > 0)).tolist() == [False, True]
    assert (2**y).tolist() == [4, 4]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std", "all", "any", "argmax", "argmin"])
def test_reductions_are_methods_too(name):
    x = dl.tensor([[1.0, 0.0], [3.0, 2.0]])
    assert getattr(x, name)().tolist() == getattr(dl, name)(x).tolist()
    assert getattr(x, name)(axis=1, keepdims=True).shape == (2, 1)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "relu", "abs"])
def test_functions_are_methods_too(name):
    x = dl.tensor([0.5, 2.0])
    assert getattr(x, name)().tolist() == getattr(dl, name)(x).tolist()


def test_pickling_points_to_save():
    with pytest.raises(DTypeError, match=r"cannot be pickled; use dl.save"):
        pickle.dumps(dl.ones(2))


def test_deepcopy_has_memory_of_its_own():
    x = dl.tensor([1.0], requires_grad=True)
    twin, again = copy.deepcopy([x, x])
    assert twin is again
    assert twin.requires_grad
    twin.assign(5.0)
    assert (x.tolist(), x.version) == ([1], 0)
    with pytest.raises(GraphError, match="deepcopy of a tensor with a graph"):
        copy.deepcopy(x * 2)


def test_to_moves_between_host_backends():
    pytest.importorskip("dlcore._C")
    x = dl.tensor([1.0], device="numpy", requires_grad=True)
    moved = x.to("cpu")
    assert (moved.device, moved.tolist(), moved.requires_grad) == ("cpu", [1], True)
    assert x.to("numpy") is x


# ---- assign


def test_assign_writes_in_place_and_broadcasts(device):
    x = dl.zeros((2, 3), device=device)
    view = x.reshape(6)
    x.assign([1, 2, 3])
    assert view.tolist() == [1, 2, 3, 1, 2, 3]
    first = x.version
    x.assign(dl.ones((2, 1), device=device))
    x.assign(7)
    assert x.tolist() == [[7] * 3] * 2
    assert 0 < first < x.version == view.version


@pytest.mark.parametrize(
    ("make", "value", "error", "message"),
    [
        (lambda: dl.zeros((2, 3)), [1, 2], ShapeError, r"assign: cannot write shape \(2,\) into \(2, 3\)"),
        (lambda: dl.zeros(3), [[1, 2, 3]] * 2, ShapeError, r"assign: cannot write shape \(2, 3\) into \(3,\)"),
        (lambda: dl.zeros(3, int), 1.5, DTypeError, "assign: cannot write float32 into int64; use astype"),
        (lambda: dl.asarray(np.broadcast_to(1.0, 3)), 1.0, ArgumentError, "assign: the memory is read-only"),
    ],
)
def test_a_bad_assign_is_explained_and_changes_nothing(make, value, error, message):
    x = make()
    before = x.tolist()
    with pytest.raises(error, match=message):
        x.assign(value)
    assert (x.tolist(), x.version) == (before, 0)


# ---- attributes and the cache of plans


def test_numpy_ints_are_axes():
    assert dl.sum(dl.tensor(BASE), axis=np.int64(1)).shape == (2, 4)


@pytest.mark.parametrize("axis", [True, 1.0, "1"])
def test_an_attribute_equal_to_a_legal_one_is_still_checked(axis):
    x = dl.tensor(BASE)
    assert dl.sum(x, axis=1).shape == (2, 4)
    with pytest.raises(ArgumentError, match=f"^sum: axis must be an int; got {axis!r}"):
        dl.sum(x, axis=axis)


def test_attributes_may_be_lists():
    assert dl.sum(dl.tensor(BASE), axis=[0, 2]).shape == (3,)


@pytest.mark.parametrize("value", [{"a": {}}, np.zeros(2), [{}]])
def test_an_attribute_that_is_no_plain_value_is_refused(value):
    with pytest.raises(DTypeError, match=r"^sum: an attribute must be a plain value; got a (dict|ndarray)$"):
        dl.sum(dl.ones(2), axis=value)


def test_nan_as_an_attribute():
    for _ in range(3):
        assert dl.threshold(dl.tensor([-1.0, 1.0]), value=float("nan")).tolist()[1] == 1


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool_"])
def test_dtypes_are_public_names(name):
    assert dl.zeros(2, getattr(dl, name)).dtype == getattr(dl, name)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dlcore' has no attribute 'flaot32'"):
        dl.flaot32  # noqa: B018
