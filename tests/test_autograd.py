"""The tape: what it records, keeps, refuses and frees."""

import gc
import threading
import weakref

import numpy as np
import pytest

import dlcore as dl
from dlcore import testing
from dlcore.errors import GraphError
from dlcore.op import OPS, sample
from dlcore.random import next_key


def leaf(values, dtype="float64"):
    return dl.tensor(values, dtype, requires_grad=True)


@pytest.fixture
def own_op():
    """Removes ops that a test defines."""
    before = set(OPS)
    yield
    for name in set(OPS) - before:
        del OPS[name]


# ---- recording


def test_gradients_accumulate_in_leaves():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5, 7]


def test_a_tensor_used_twice_gets_both_gradients():
    x = leaf([2.0])
    y = x * x
    (y * y + x).sum().backward()
    assert x.grad.tolist() == [4 * 8 + 1]


def test_broadcast_operands_get_gradients_of_their_own_shape_and_dtype():
    x, b = leaf(np.ones((2, 3))), leaf(np.ones(3), "float32")
    (x * b).sum().backward()
    assert (b.grad.shape, b.grad.dtype.name) == ((3,), "float32")
    assert b.grad.tolist() == [2, 2, 2]


def test_nothing_is_recorded_without_need():
    x = leaf([1.0])
    assert not (dl.ones(2) + 1).requires_grad
    assert not (x > 0).requires_grad
    with dl.no_grad():
        assert not (x + 1).requires_grad
    assert (x + 1).requires_grad
    assert not (x + 1).detach().requires_grad


def test_no_grad_is_also_a_decorator():
    @dl.no_grad()
    def f(x):
        return x + 1

    assert not f(leaf([1.0])).requires_grad
    assert not f(leaf([1.0])).requires_grad


def test_no_grad_holds_for_its_own_thread():
    x, found = leaf([1.0]), []
    with dl.no_grad():
        thread = threading.Thread(target=lambda: found.append((x + 1).requires_grad))
        thread.start()
        thread.join()
    assert found == [True]


def test_threads_record_and_run_apart():
    def work(results, seed):
        x = leaf(np.full(5, float(seed)))
        for _ in range(30):
            x.grad = None
            (x * x).sum().backward()
        results[seed] = x.grad.tolist()

    results: dict = {}
    threads = [threading.Thread(target=work, args=(results, n)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: [2.0 * n] * 5 for n in range(4)}


def test_only_floats_require_gradients():
    with pytest.raises(TypeError, match="only floating-point tensors require gradients; got int64"):
        dl.tensor([1, 2], requires_grad=True)


# ---- asking for gradients


def test_gradients_leave_grad_alone_and_give_none_without_a_path():
    x, unused = leaf([1.0, 2.0]), leaf([1.0])
    found = dl.gradients((x * x).sum(), [x, unused])
    assert found[0].tolist() == [2, 4]
    assert found[1] is None
    assert x.grad is None


def test_gradients_of_intermediates():
    x = leaf([3.0])
    y = x * x
    z = y * y
    by_y, by_z = dl.gradients(z.sum(), [y, z])
    assert (by_y.tolist(), by_z.tolist()) == ([18], [1])


def test_several_outputs_with_their_own_seeds():
    x = leaf([1.0, 2.0])
    (found,) = dl.gradients([x * 2, x * x], [x], [dl.tensor([1.0, 1.0]), dl.tensor([10.0, 10.0])])
    assert found.tolist() == [2 + 20, 2 + 40]


def test_grad_and_value_and_grad():
    value, (by_x, by_y) = dl.value_and_grad(lambda x, y: (x * x * y).sum(), (0, 1))(
        dl.tensor([2.0, 3.0]), dl.tensor([1.0, 5.0])
    )
    assert value.item() == 4 + 45
    assert (by_x.tolist(), by_y.tolist()) == ([4, 30], [4, 9])
    assert not value.requires_grad
    assert not by_x.requires_grad


def test_grad_of_an_unused_argument_is_zero():
    assert dl.grad(lambda x, y: x.sum(), 1)(dl.ones(2), dl.ones(3)).tolist() == [0, 0, 0]


def test_grad_nests_to_any_order():
    f = lambda x: (x**4).sum()  # noqa: E731
    third = dl.grad(lambda x: dl.grad(lambda x: dl.grad(f)(x).sum())(x).sum())
    assert third(dl.tensor([2.0], "float64")).tolist() == [24 * 2]


def test_nested_grad_sees_what_the_function_closes_over():
    inner = lambda w: dl.grad(lambda x: (w * x * x).sum())(dl.tensor([3.0])).sum()  # noqa: E731
    assert dl.grad(inner)(dl.tensor([1.0])).tolist() == [6]


def test_nested_grad_tells_a_variable_from_the_tensor_it_came_from():
    f = lambda x: dl.grad(lambda y: (x * y).sum())(x).sum()  # noqa: E731
    assert dl.grad(f)(dl.tensor([5.0])).tolist() == [1]


def test_grad_refuses_what_is_no_tensor():
    with pytest.raises(GraphError, match=r"^grad: argument 0 must be a tensor; got float$"):
        dl.grad(lambda x: x)(1.0)


def test_second_backward_through_create_graph():
    x = leaf([2.0])
    (g,) = dl.gradients((x**3).sum(), [x], create_graph=True)
    (g * g).sum().backward()
    assert x.grad.tolist() == [2 * 12 * 12]


# ---- what is refused


def test_backward_needs_a_scalar_or_a_gradient():
    y = leaf([1.0, 2.0]) * 2
    with pytest.raises(GraphError, match=r"only a scalar has an implicit gradient; got shape \(2,\)"):
        y.backward()
    with pytest.raises(GraphError, match=r"gradient of shape \(3,\) for an output of shape \(2,\)"):
        y.backward(dl.ones(3))
    with pytest.raises(GraphError, match="the gradient must be a tensor; got ndarray"):
        y.backward(np.ones(2))


def test_backward_needs_a_graph():
    with pytest.raises(GraphError, match="not computed from any tensor that requires a gradient"):
        dl.ones(()).backward()


def test_a_graph_runs_once_unless_retained():
    x = leaf([2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(GraphError, match=r"freed by an earlier backward\(\); pass retain_graph=True"):
        y.backward()


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda x: x.assign(0.0),
        lambda x: x.detach().assign(0.0),
        lambda x: x.detach().reshape(2, 1).assign(0.0),
        lambda x: x.detach()[1:].assign(0.0),
        lambda x: x.storage().fill(0),
    ],
    ids=["assign", "detached", "reshaped view", "slice", "storage"],
)
def test_overwriting_what_backward_needs_is_noticed(overwrite):
    x = leaf([2.0, 3.0])
    y = (x * x).sum()
    overwrite(x)
    with pytest.raises(GraphError, match=r"^multiply: operand x[12] was overwritten in place after the forward pass"):
        y.backward()


def test_overwriting_the_base_of_a_recorded_view_is_noticed():
    x = leaf([[2.0, 3.0]])
    y = x.reshape(2)
    z = (y * y).sum()
    x.assign(0.0)
    with pytest.raises(GraphError, match="was overwritten in place"):
        z.backward()


def test_overwriting_what_backward_does_not_need_is_fine():
    x = leaf([2.0])
    y = (x + 1).sum()
    x.assign(9.0)
    y.backward()
    assert x.grad.tolist() == [1]


@pytest.mark.parametrize("copied", [lambda x: x[[1, 0]], lambda x: x.astype("float32")], ids=["gather", "astype"])
def test_overwriting_the_source_of_a_copy_is_fine(copied):
    x = leaf([2.0, 3.0])
    y = copied(x)
    z = (y * y).sum()
    x.assign(0.0)
    z.backward()
    assert x.grad.tolist() == [4, 6]


@pytest.mark.parametrize(
    "alias",
    [lambda y: y, lambda y: y.detach(), lambda y: y.reshape(1, 2).detach()[0], lambda y: y.detach().reshape(2)],
    ids=["itself", "detached", "view of view", "view of detached"],
)
def test_a_computed_tensor_is_not_overwritten(alias):
    x = leaf([0.0, 0.0])
    y = x.exp()
    with pytest.raises(GraphError, match=r"only leaf tensors .* computed by a recorded op, copy it"):
        alias(y).assign(5.0)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_a_failed_backward_leaves_everything_usable():
    x = leaf([2.0])
    y = (x * x).sum()
    x.assign(4.0)
    with pytest.raises(GraphError):
        y.backward()
    assert x.grad is None
    (x * x).sum().backward()
    assert x.grad.tolist() == [8]


# ---- ops of one's own


def test_an_own_op_gets_checks_and_gradients(own_op):
    @dl.op("x[...]:float -> y[...]", vjp={"x": lambda g, x: g * 3 * x * x})
    def cube(xp, x):
        """x cubed."""
        return x * x * x

    for s in [sample((2, 3)), sample(())]:
        testing.check_value(cube, s)
        testing.check_gradient(cube, s)
        testing.check_second_gradient(cube, s)
    assert cube.doc == "x cubed."
    x = leaf([2.0])
    cube(x).backward()
    assert x.grad.tolist() == [12]


def test_a_joint_vjp_with_several_outputs(own_op):
    def vjp(g_total, g_difference, x, y, needs):
        assert needs == (True, True)
        return g_total + g_difference, g_total - g_difference

    @dl.op("x[...] y[...] -> total[...] difference[...]", name="both_for_test", vjp=vjp)
    def both(xp, x, y):
        return x + y, x - y

    testing.check_gradient(both, sample((3,), (3,)))
    x, y = leaf([1.0]), leaf([2.0])
    total, difference = both(x, y)
    (total * 3 + difference * 5).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([8], [-2])


def test_an_unused_output_counts_as_zero(own_op):
    @dl.op("x[...] -> a[...] b[...]", name="pair_for_test", vjp={"x": lambda g_a, g_b: 2 * g_a + 3 * g_b})
    def pair(xp, x):
        return 2 * x, 3 * x

    x = leaf([1.0])
    pair(x)[1].sum().backward()
    assert x.grad.tolist() == [3]


# ---- long graphs and memory


def test_a_chain_of_20000_ops_runs_and_is_deleted():
    x = leaf([1.0])
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward(retain_graph=True)
    assert x.grad.tolist() == [1]
    alive = weakref.ref(y._edge[0])
    del y
    assert alive() is None


@pytest.fixture
def no_cycles():
    """Only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def saved(f, x) -> list:
    """Arrays kept alive by the graph of f(x), apart from x itself."""
    made = []
    with dl.dispatch.listening(lambda event: made.extend(weakref.ref(a) for a in event.outputs)):
        y = f(x)
    assert y.requires_grad
    mine = y._array
    return [a for a in (ref() for ref in made) if a is not None and a is not mine]


@pytest.mark.parametrize(
    ("f", "count"),
    [
        (lambda x: ((x + 1) + 2) + 3, 0),
        (lambda x: (x * 2).exp() + 1, 1),
        (lambda x: (x * 2).tanh() * 3, 1),
        (lambda x: (x * 2) * (x * 3), 2),
        (lambda x: (x + 1).sum(), 0),
        (lambda x: dl.relu(x + 1) + 0, 1),
    ],
    ids=["add", "exp", "tanh", "multiply", "sum", "relu"],
)
def test_only_what_vjps_name_is_kept(f, count, no_cycles):
    with dl.device("numpy"):
        assert len(saved(f, leaf(np.ones(5)))) == count


def test_memory_goes_with_the_last_reference(no_cycles):
    x = leaf(np.ones(10))
    y = (x * 2).exp()
    z = (y * y).sum()
    arrays = [weakref.ref(t._array) for t in (y, z)]
    nodes = [weakref.ref(t._edge[0]) for t in (y, z)]
    del y, z
    assert [r() for r in arrays + nodes] == [None] * 4


@pytest.mark.parametrize(("activation", "kept"), [("none", False), ("relu", True), ("gelu", False)])
def test_linear_keeps_its_result_only_for_an_activation_that_asks(activation, kept):
    x, w = (dl.tensor(np.ones((3, 3), np.float32), requires_grad=True) for _ in range(2))
    y = dl.linear(x, w, activation=activation)
    array, total = weakref.ref(y._array), y + 1
    del y
    assert (array() is not None) == kept
    total.sum().backward()
    assert x.grad is not None


def test_backward_frees_the_graph_while_the_result_lives(no_cycles):
    x = leaf(np.ones(10))
    y = (x * 2).exp()
    array = weakref.ref(y._array)
    z = (y * y).sum()
    del y
    assert array() is not None
    z.backward()
    assert array() is None
    assert z.item() > 0


# ---- checkpoint


def block(x, w):
    return dl.tanh(dl.tanh(x * w) * w + x)


def test_checkpoint_gives_the_same_gradients():
    plain, again = [leaf([0.3, -0.7]), leaf([1.1, 0.4])], [leaf([0.3, -0.7]), leaf([1.1, 0.4])]
    block(*plain).sum().backward()
    dl.checkpoint(block, *again).sum().backward()
    assert [t.grad.tolist() for t in again] == [t.grad.tolist() for t in plain]


def test_checkpoint_keeps_fewer_bytes_alive(no_cycles):
    x, w = leaf(np.ones(100)), leaf(np.ones(100))
    with dl.device("numpy"):
        assert len(saved(lambda x: block(x, w) + 1, x)) >= 2
        assert len(saved(lambda x: dl.checkpoint(block, x, w) + 1, x)) == 0


def test_checkpoint_draws_the_same_random_numbers():
    drawn = []

    def noisy(x):
        drawn.append(next_key())
        return x * drawn[-1][1]

    dl.manual_seed(7)
    x = leaf([1.0])
    y = dl.checkpoint(noisy, x)
    after = next_key()
    y.sum().backward()
    assert drawn[0] == drawn[1]
    assert next_key()[1] == after[1] + 1


def test_checkpoint_works_with_create_graph():
    x = leaf([0.5])
    (g,) = dl.gradients(dl.checkpoint(lambda x: (x**3) * 2, x).sum(), [x], create_graph=True)
    (h,) = dl.gradients(g.sum(), [x])
    assert (g.tolist(), h.tolist()) == ([1.5], [6])


def test_checkpoints_nest_and_return_several_outputs():
    def inner(x):
        return x * x, x + 1

    def outer(x):
        a, b = dl.checkpoint(inner, x)
        return a * b

    x = leaf([3.0])
    dl.checkpoint(outer, x).sum().backward()
    assert x.grad.tolist() == [3 * 9 + 2 * 3]


def test_checkpoint_notices_overwritten_arguments():
    x, w = leaf([1.0]), leaf([2.0])
    y = dl.checkpoint(block, x, w).sum()
    w.assign(5.0)
    with pytest.raises(GraphError, match=r"^checkpoint: an argument or parameter was overwritten"):
        y.backward()


def test_checkpoint_runs_once_unless_retained():
    y = dl.checkpoint(block, leaf([1.0]), leaf([2.0])).sum()
    y.backward()
    with pytest.raises(GraphError, match="freed by an earlier backward"):
        y.backward()


def test_recomputing_is_visible_inside():
    seen = []

    def f(x):
        seen.append(dl.autograd.is_recomputing())
        return x * 2

    dl.checkpoint(f, leaf([1.0])).sum().backward()
    assert seen == [False, True]
