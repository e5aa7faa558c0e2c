"""The host's side of the cuda backend, in the emulator: refused values."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch
from dlcore.backends.cuda import refusals
from dlcore.errors import IndexRangeError

pytestmark = pytest.mark.sim


def tensor(values):
    return dl.tensor(values, device="sim")


# ---- values that kernels refuse

X, UPDATES, LABELS = np.ones((3, 4), np.float32), np.ones((2, 4), np.float32), [0, 4, 9]
REFUSED = {
    "take": (lambda: dl.take(tensor(X), tensor([0, 3])), "take: index 3 is out of range for axis 0 of size 3"),
    "embedding": (lambda: dl.embedding(tensor([1, -4]), tensor(X)), "embedding: index -4 .* axis 0 of size 3"),
    "along": (
        lambda: dl.take_along_axis(tensor(X), tensor([[1, 4]] * 3)), "take_along_axis: index 4 .* axis 1 of size 4"),
    "index_add": (lambda: dl.index_add(tensor(X), tensor([2, 5]), tensor(UPDATES)), "index_add: index 5 .* size 3"),
    "rows": (lambda: dl.scatter_add(tensor(X), tensor([[1, 7]] * 3), tensor(X[:, :2])), "scatter_add: index 7"),
    "elements": (
        lambda: dl.scatter_add(tensor(X), tensor([[1, 7, 1, 1]]), tensor(X[:1]), axis=0), "scatter_add: index 7"),
    "labels": (lambda: dl.cross_entropy(tensor(X), tensor(LABELS)), "cross_entropy: label 4 .* for 4 classes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_out_of_range_is_raised_when_a_result_is_read(name):
    call, message = REFUSED[name]
    result = call()
    with pytest.raises(IndexRangeError, match=rf"{message}.* \(at position 1\)"):
        result.numpy()
    assert np.isfinite(result.numpy()).all()


def test_of_several_the_first_position_is_named():
    ids = np.full(3000, 9)
    ids[:1234] = 0
    result = dl.take(tensor(X), tensor(ids))
    with pytest.raises(IndexRangeError, match=r"index 9 .*at position 1234"):
        result.numpy()
    np.testing.assert_array_equal(result.numpy()[:, 0], ids == 0)


def test_waiting_for_the_device_raises_too_and_only_once():
    dl.take(tensor(X), tensor([5]))
    dl.take(tensor(X), tensor([0]))
    with pytest.raises(IndexRangeError):
        dispatch.get_backend("sim").synchronize()
    dispatch.get_backend("sim").synchronize()


@pytest.mark.parametrize(("index", "shown"), [(2**40, "2147483647 or more"), (-(2**40), "-2147483648 or less")])
def test_positions_beyond_32_bits_are_refused(index, shown):
    result = dl.take(tensor(X), tensor([index]))
    with pytest.raises(IndexRangeError, match=shown):
        result.numpy()


def test_a_gradient_skips_what_was_refused():
    x = tensor(X).detach(requires_grad=True)
    dl.take(x, tensor([0, 3, -7])).sum().backward()
    with pytest.raises(IndexRangeError, match="take: index 3"):
        x.grad.numpy()
    np.testing.assert_array_equal(x.grad.numpy()[:, 0], [1, 0, 0])


def test_an_op_without_such_a_kernel_checks_on_the_host():
    with pytest.raises(IndexRangeError, match="index_add: index 3"):
        dl.index_add(tensor(np.ones(3, np.int64)), tensor([3]), tensor([1]))


def test_more_sites_than_records_begin_again():
    found = refusals.Refusals(np.empty, lambda array: array)
    first = found.record("op", "index {} of {}", -1)
    for n in range(refusals.SITES):
        found.record("op", "index {} of {}", n)
    first[...] = 3 << 32 | 7
    with pytest.raises(IndexRangeError, match=rf"op: index 7 of {refusals.SITES - 1} \(at position 3\)"):
        found.check()
