"""The extension's ways through an op and a backward pass do what `dispatch.apply` and `autograd.walk` do."""

import gc
import sys
import threading

import numpy as np
import pytest

import dlcore as dl
from dlcore import autograd, dispatch, testing
from dlcore.errors import DeviceError, DlcoreError, DTypeError, GraphError, ShapeError
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
    """Names of the ops that reached `dispatch.apply`; no plan is known yet."""
    seen = []
    dispatch.get_backend("cpu").plans.clear()

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


# ---- backward passes


@pytest.fixture(params=["walk", "extension"])
def engine(request, monkeypatch):
    """Backward passes by `autograd.walk`, and by the extension's."""
    if request.param == "walk":
        monkeypatch.setattr(autograd, "engine", autograd.walk)
    return autograd.engine


def test_the_extension_walks():
    assert autograd.engine is not autograd.walk


DIFFERENTIABLE = [c for c in CASES if c.values[0].gradient_rules]


@pytest.mark.parametrize(("op", "s"), DIFFERENTIABLE)
def test_it_finds_the_gradients_that_walk_finds(op: Op, s, monkeypatch):
    _, operands = testing.call(op, testing.arrays(op, s, np.float32), s.attrs, "cpu", requires_grad=True)
    found = []
    for engine in (autograd.engine, autograd.walk):
        monkeypatch.setattr(autograd, "engine", engine)
        outputs = [y for y in outputs_of(op, operands, s.attrs) if y.requires_grad]
        leaves = [x for x in operands if isinstance(x, dl.Tensor) and x.requires_grad]
        grads = autograd.gradients(outputs, leaves, [dl.ones_like(y) for y in outputs]) if outputs else []
        found.append([None if g is None else (g.shape, g.dtype, np.asarray(g).tobytes()) for g in grads])
    assert found[0] == found[1]


def test_gradients_of_results_in_between_and_an_end_there(engine):
    x = dl.tensor([1.0, 2.0], device="cpu", requires_grad=True)
    y = x * x
    z = y * y
    dx, dy = autograd.gradients((z + y).sum(), [x, y], retain_graph=True)
    assert (dy.tolist(), dx.tolist()) == ([3, 9], [6, 36])
    beyond, at = autograd.gradients((z + y).sum(), [x, y], stop=True)
    assert (beyond, at.tolist()) == (None, [3, 9])


def test_second_derivatives(engine):
    x = dl.tensor([2.0], device="cpu", requires_grad=True)
    (dx,) = autograd.gradients((x * x * x).sum(), [x], create_graph=True)
    assert autograd.gradients(dx, [x])[0].tolist() == [12]


def test_checkpoints_run_again(engine):
    x = dl.tensor([2.0], device="cpu", requires_grad=True)
    autograd.checkpoint(lambda v: v * v * v, x).sum().backward()
    assert x.grad.tolist() == [12]


def test_a_freed_graph_and_an_overwritten_operand_are_refused(engine):
    x = dl.tensor([2.0], device="cpu", requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphError, match="freed"):
        y.backward()
    y = (x * x).sum()
    x.assign(3.0)
    with pytest.raises(GraphError, match="overwritten"):
        y.backward()


@pytest.mark.parametrize(
    ("vjp", "error"),
    [
        ({"x": lambda g: g + object()}, "add: cannot take"),
        ({"x": lambda g: 2.0}, "twice: its vjp returned a float where a tensor was due"),
        (lambda g: (g, g, g), "twice: its vjp returned 3 gradients for 1 operands"),
    ],
    ids=["raises", "no tensor", "too many"],
)
def test_errors_of_vjps_pass_through(engine, vjp, error):
    twice = Op("twice", "x[...] -> y[...]", lambda xp, x: x + x, vjp=vjp)
    x = dl.tensor([2.0], device="cpu", requires_grad=True)
    with pytest.raises(DlcoreError, match=error):
        twice(x).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4]


def test_a_graph_100_000_nodes_deep(engine):
    x = y = dl.tensor([1.0], device="cpu", requires_grad=True)
    for _ in range(100_000):
        y = y + x
    y.sum().backward()
    assert x.grad.tolist() == [100_001]


def test_passes_leak_nothing():
    x = dl.ones(3, device="cpu").detach(requires_grad=True)
    held = [x, x._array, x._meta, x._backend, (x * 2.5)._edge[0].plan, None]

    def work():
        x.grad = None
        (x * x + x).sum(axis=0).backward()
        autograd.gradients((x * x).sum(), [x])

    for _ in range(3):
        work()
    gc.collect()
    before = [sys.getrefcount(o) for o in held]
    for _ in range(1000):
        work()
    gc.collect()
    assert all(abs(sys.getrefcount(o) - b) < 10 for o, b in zip(held, before, strict=True))
