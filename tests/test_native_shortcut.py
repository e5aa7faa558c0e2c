"""The extension's way through an op does what `dispatch.apply` does."""

import gc
import sys
import threading

import numpy as np
import pytest

import dlcore as dl
from dlcore import autograd, dispatch, testing
from dlcore.errors import DeviceError, DTypeError, ShapeError
from dlcore.op import OPS, Op

CASES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in OPS.values() for i, s in enumerate(testing.samples(op))]


@pytest.fixture(autouse=True)
def _with_extension():
    pytest.importorskip("dlcore._C", reason="the C++ extension is not built")
    dispatch.get_backend("cpu")


def outputs_of(run, operands, attrs):
    result = run(*operands, **attrs)
    return result if isinstance(result, tuple) else (result,)


def what_is_kept(y, operands):
    """All that apply decides of an output: its bytes and dtype, and what the tape has of it."""
    told = [np.asarray(y).tobytes(), y._meta, y._backend, y.requires_grad, y.grad, y._of_computed, y.version]
    told += [id(y._base)]
    if y._edge is None:
        return told
    node, index = y._edge
    edges = {i: next(j for j, x in enumerate(operands) if x is edge) for i, edge in node.edges.items()}
    inputs = {i: x is None or x is operands[i] for i, x in node.inputs.items()}
    outputs = {i: a.tobytes() for i, a in node.outputs.items()}
    return [*told, index, node.plan, node.attrs, node.saves, edges, inputs, outputs]


@pytest.mark.parametrize(("op", "s"), CASES)
def test_it_records_what_apply_records(op: Op, s):
    _, operands = testing.call(op, testing.arrays(op, s, np.float32), s.attrs, "cpu", requires_grad=True)
    op(*operands, **s.attrs)  # now there is a plan
    quick, full = (
        outputs_of(run, operands, s.attrs) for run in (op, lambda *xs, **attrs: dispatch.apply(op, *xs, **attrs))
    )
    assert [what_is_kept(y, operands) for y in quick] == [what_is_kept(y, operands) for y in full]


@pytest.fixture
def applied(monkeypatch):
    """Names of the ops that reached `dispatch.apply`."""
    seen = []

    def apply(op, *operands, **attrs):
        seen.append(op.name)
        return dispatch_apply(op, *operands, **attrs)

    dispatch_apply = dispatch.apply
    monkeypatch.setattr(dispatch, "apply", apply)
    dispatch._take_shortcut()
    yield seen
    monkeypatch.undo()
    dispatch._take_shortcut()


def test_a_second_call_of_a_kind_does_not_reach_apply(applied):
    x = dl.ones((2, 3), device="cpu").detach(requires_grad=True)
    for _ in range(3):
        (x * 2.5 + x).sum(axis=0)
    assert applied == ["multiply", "add", "sum"]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: OPS["add"](x, np.ones(3, np.float32)),  # an array
        lambda x: OPS["add"](x, np.float32(1)),  # a NumPy scalar
        lambda x: OPS["add"](1.0, 2.0),  # no tensor: on the default device
        lambda x: OPS["reshape"](x, shape=[3, 1]),  # an attribute that cannot be hashed
        lambda x: OPS["add"](x, 1),  # a cast
        lambda x: OPS["concat"](*[x] * 40, axis=0),  # very many operands
    ],
    ids=["array", "numpy scalar", "no tensor", "list", "cast", "many"],
)
def test_what_is_out_of_the_ordinary_reaches_apply_every_time(applied, call):
    x = dl.ones(3, device="cpu")
    call(x)
    first = len(applied)
    call(x)
    assert first >= 1
    assert len(applied) == 2 * first


def test_listeners_see_every_op():
    x, seen = dl.ones(3, device="cpu"), []
    for _ in range(2):
        with dispatch.listening(lambda event: seen.append(event.op.name)):
            _ = x + x
    assert seen == ["add", "add"]


def test_no_grad_leaves_no_node():
    x = dl.ones(3, device="cpu").detach(requires_grad=True)
    _ = x * x
    with autograd.no_grad():
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_errors_of_the_implementation_and_of_apply_pass_through():
    x, y = dl.ones(3, device="cpu"), dl.ones(3, device="numpy")
    _ = x + x, y + y
    with pytest.raises(DeviceError, match="add: operands live on different devices"):
        _ = x + y
    with pytest.raises(ShapeError, match="add"):
        _ = x + dl.ones(4, device="cpu")
    with pytest.raises(DTypeError, match="add"):
        _ = x + object()
    dl.take(x, dl.tensor([0], device="cpu"), axis=0)
    with pytest.raises(IndexError, match="take"):
        dl.take(x, dl.tensor([3], device="cpu"), axis=0)


def test_threads_run_ops_side_by_side():
    x, found = dl.ones(1000, device="cpu").detach(requires_grad=True), []

    def work():
        for _ in range(200):
            y = x
            for _ in range(5):
                y = y * 1.5
        found.append(float(y.sum()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1000 * 1.5**5] * 4


def test_calls_leak_nothing():
    x = dl.ones(3, device="cpu").detach(requires_grad=True)
    held = [x, x._array, x._meta, x._backend, (x * 2.5)._edge[0].plan, 2.5]
    for _ in range(3):
        x * 2.5
    gc.collect()
    before = [sys.getrefcount(o) for o in held]
    for _ in range(1000):
        x * 2.5
        dl.sum(x, axis=0)
    gc.collect()
    assert all(abs(sys.getrefcount(o) - b) < 10 for o, b in zip(held, before, strict=True))
