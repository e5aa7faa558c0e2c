"""`dl.capture`: replays have the bits of eager steps, and what cannot be repeated is refused."""

import gc
import weakref

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim, recording
from dlcore.errors import ArgumentError, GraphError, IndexRangeError, ShapeError
from dlcore.op import OPS
from dlcore.profile import profile


def batches(count=5, n=8, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, width)).astype(np.float32), rng.integers(0, 3, n)) for _ in range(count)]


def mlp(*middle):
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 3))


def trained(model, optimizer, steps, captured, order="step", data=None, **extra):
    """Losses and parameters after some steps."""

    def step(x, y):
        if order == "zero first":
            optimizer.zero_grad()
        loss = nn.cross_entropy(model(x), y)
        loss.backward()
        for action in extra.values():
            action()
        optimizer.step()
        if order == "step":
            optimizer.zero_grad()
        return loss

    run = dl.capture(step) if captured else step
    losses = [run(dl.tensor(x), dl.tensor(y)).item() for x, y in (data or batches(steps))]
    return losses, [p.numpy().copy() for p in model.state_dict().values()], run


def same_as_eager(build, **options):
    """Train twice from the same start, eagerly and captured; returns the captured function."""
    found = []
    for captured in (False, True):
        dl.manual_seed(3)
        model, optimizer, extra = build()
        found.append(trained(model, optimizer, 6, captured, **options, **extra))
    (losses, params, _), (captured_losses, captured_params, run) = found
    assert losses == captured_losses
    for a, b in zip(params, captured_params, strict=True):
        np.testing.assert_array_equal(a, b)
    return run


# ---- bits


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Lion"])
def test_a_captured_step_trains_with_the_bits_of_an_eager_one(kind, device):
    def build():
        model = mlp(nn.LayerNorm(8), nn.Dropout(0.3))
        return model, getattr(optim, kind)(model.parameters(), lr=0.01), {}

    with dl.device(device):
        run = same_as_eager(build)
    assert len(run.programs) == 1


@pytest.mark.parametrize(("order", "programs"), [("step", 1), ("zero first", 1), ("never", 2)])
def test_gradients_left_from_before_count_as_they_do_eagerly(order, programs):
    def build():
        model = mlp()
        return model, optim.SGD(model.parameters(), lr=0.1), {}

    assert len(same_as_eager(build, order=order).programs) == programs


def test_running_statistics_schedules_averages_and_clipping_go_on():
    def build():
        model = mlp(nn.BatchNorm1d(8))
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        schedule, average = optim.ExponentialLR(optimizer, 0.5), optim.EMA(model, 0.5)
        return model, optimizer, {
            "clip": lambda: optim.clip_grad_norm(model.parameters(), 0.05),
            "schedule": schedule.step,
            "average": average.update,
        }  # fmt: skip

    assert len(same_as_eager(build).programs) == 1


def test_convolution_pooling_and_checkpoint_with_dropout():
    def build():
        block = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2))
        head = nn.Linear(4 * 3 * 3, 3)

        class Net(nn.Module):
            def __init__(self):
                self.block, self.head = block, head

            def forward(self, x):
                y = dl.checkpoint(self.block, x.reshape(-1, 1, 6, 6))
                return self.head(y.reshape(y.shape[0], -1)) + dl.rand(y.shape[0], 3)

        model = Net()
        return model, optim.Adam(model.parameters(), lr=0.01), {}

    same_as_eager(build, data=batches(4, width=36))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_net_of_several_lengths(kind, device):
    with dl.device(device):
        dl.manual_seed(0)
        net = getattr(nn, kind)(3, 4)

        def loss(x, lengths):
            y = (net(x, lengths=lengths)[0] ** 2).mean()
            y.backward()
            return y

        captured = dl.capture(loss)
        for lengths in ([5, 2], [3, 4], [1, 5]):
            x, lengths = dl.randn(5, 2, 3), dl.tensor(lengths)
            found = [captured(x, lengths).item(), *(p.grad.tolist() for p in net.parameters())]
            net.zero_grad()
            assert found == [loss(x, lengths).item(), *(p.grad.tolist() for p in net.parameters())]
            net.zero_grad()
        with pytest.raises(IndexRangeError, match=f"{kind.lower()}: lengths must lie in "):
            captured(x, dl.tensor([6, 2]))


def test_inference_of_nested_arguments_and_results():
    @dl.capture
    def f(pair, *, scale):
        a, b = pair
        return {"sum": (a + b) * scale, "shape": a.shape, "same": a}, [a - b, None]

    for k in range(3):
        a, b = dl.tensor([1.0, k]), dl.tensor([2.0, 3.0])
        found, (difference, nothing) = f((a, b), scale=2.0)
        assert found["sum"].tolist() == [6.0, 2.0 * (3 + k)]
        assert found["shape"] == (2,)
        assert nothing is None
        assert found["same"].tolist() == a.tolist()
        assert difference.tolist() == [-1.0, k - 3.0]


def test_gradients_of_arguments_arrive_at_the_arguments():
    f = dl.capture(lambda x: (x * x).sum().backward())
    for value in (1.0, 2.0, 5.0):
        x = dl.tensor([value], requires_grad=True)
        f(x)
        assert x.grad.tolist() == [2 * value]
    f(x)
    assert x.grad.tolist() == [20.0]


def test_an_argument_is_told_from_the_same_tensor_outside():
    w = dl.tensor([2.0])
    f = dl.capture(lambda x: x * w)
    assert f(w).item() == 4
    assert f(dl.tensor([5.0])).item() == 10


def test_one_tensor_given_twice():
    f = dl.capture(lambda x, y: x - 2 * y)
    one, two = dl.tensor([1.0]), dl.tensor([2.0])
    assert [f(one, one).item(), f(one, two).item(), f(two, two).item()] == [-1, -3, -2]


def test_integers_are_cast_in_every_replay():
    f = dl.capture(lambda n, x: n * x)
    assert [f(dl.tensor([k]), dl.tensor([0.5])).item() for k in range(3)] == [0, 0.5, 1]


def test_a_number_of_the_host_is_returned_but_not_computed_with():
    w = dl.tensor([3.0, 4.0], requires_grad=True)

    @dl.capture
    def norm(scale):
        w.grad = None
        (w * w * scale).sum().backward()
        return optim.clip_grad_norm([w], 1.0)

    assert [norm(dl.tensor(s)) for s in (0.5, 1.0, 2.0)] == [5.0, 10.0, 20.0]
    with pytest.raises(GraphError, match="known only when the step has run"):
        dl.capture(lambda: optim.clip_grad_norm([w], 1.0) * 2)()


# ---- what a replay must notice


def test_shapes_dtypes_values_and_modes_are_recorded_anew():
    f = dl.capture(lambda x, k: x * k)
    x = dl.tensor([1.0, 2.0])
    calls = [(x, 1), (x, 2), (x.reshape(2, 1), 1), (x.astype("float64"), 1), (x, 1.0), (x, 1)]
    for a, k in calls:
        np.testing.assert_array_equal(f(a, k).numpy(), (a * k).numpy(), strict=True)
    assert len(f.programs) == 5
    with dl.no_grad():
        f(x, 1)
    assert len(f.programs) == 6


def test_evaluation_changed_settings_and_frozen_parameters_are_noticed():
    model = mlp(nn.Dropout(0.5))
    x = dl.randn(4, 6)
    f = dl.capture(lambda x: model(x))
    f(x)
    model.eval()
    np.testing.assert_array_equal(f(x).numpy(), model(x).numpy())
    model.train()
    model[1].p = 0.0
    np.testing.assert_array_equal(f(x).numpy(), model(x).numpy())

    def backward(x):
        model(x).sum().backward()

    g = dl.capture(backward)
    g(x)
    model.zero_grad()
    model.freeze("0.*")
    g(x)
    assert model[0].weight.grad is None
    assert model[-1].weight.grad is not None


def test_other_values_of_variables_outside_are_noticed():
    w, scale = dl.tensor([2.0]), 3.0
    f = dl.capture(lambda x: x * w * scale)
    x = dl.tensor([1.0])
    assert f(x).item() == 6
    scale = 4.0
    assert f(x).item() == 8
    w = dl.tensor([5.0])
    assert f(x).item() == 20
    w.assign(6.0)
    assert f(x).item() == 24
    assert len(f.programs) == 3


def test_results_are_not_overwritten_by_later_calls():
    f = dl.capture(lambda x: x + 1)
    found = [f(dl.tensor([float(k)])) for k in range(4)]
    assert [y.item() for y in found] == [1, 2, 3, 4]


def test_a_learning_rate_set_from_outside_counts():
    w = dl.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=1.0)

    @dl.capture
    def step():
        w.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    for rate in (1.0, 2.0, 4.0):
        optimizer.groups[0]["lr"] = rate
        step()
    assert w.item() == 1 - 7


def test_a_profile_sees_the_ops():
    f = dl.capture(lambda x: x + 1)
    f(dl.tensor([1.0]))
    with profile() as p:
        f(dl.tensor([1.0]))
    assert ("add", "native") in p.rows or ("add", "reference") in p.rows


def test_programs_are_forgotten_when_there_are_too_many():
    f = dl.capture(lambda x, k: x + k)
    for k in range(40):
        f(dl.tensor([1.0]), k)
    assert 0 < len(f.programs) <= 16
    f.clear()
    assert f.programs == []


# ---- what cannot be repeated

X = np.ones(3, np.float32)
REFUSED = {
    "float": (lambda x: float(x.sum()), "reads a tensor on the host"),
    "branch": (lambda x: x if x.sum() > 0 else -x, "reads a tensor on the host"),
    "array": (lambda x: x + X, "makes a tensor from a ndarray"),
    "tensor": (lambda x: x + dl.tensor([1.0, 2.0, 3.0]), "makes a tensor from a list"),
    "copy": (lambda x: dl.tensor(x), "makes a tensor from a Tensor"),
    "mask": (lambda x: x[x > 0], "reads a tensor on the host"),
    "move": (lambda x: x.to("numpy" if x.device != "numpy" else "cpu"), "moves a tensor"),
    "assign": (lambda x: x.assign(0.0), "assigns to an argument, or to a tensor that it made"),
    "assign to zeros": (lambda x: dl.zeros(3).assign(x), "assigns to an argument, or to a tensor that it made"),
    "seed": (lambda x: (dl.manual_seed(7), dl.rand(3))[1], "sets the seed"),
    "result": (lambda x: {1, 2}, "returns a set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repeated_is_refused_with_the_line(name):
    f, message = REFUSED[name]
    captured = dl.capture(f)
    with pytest.raises(GraphError, match=rf"capture: the step {message}.* \(.*test_graph.py:\d+\)"):
        captured(dl.tensor(X))
    assert captured.programs == []
    assert (dl.tensor(X) + 1).tolist() == [2.0] * 3


def test_arguments_with_a_graph_and_arrays_are_refused():
    f = dl.capture(lambda x: x + 1)
    with pytest.raises(GraphError, match=r"pass x\.detach\(\)"):
        f(dl.tensor(X, requires_grad=True) * 2)
    with pytest.raises(ArgumentError, match=r"pass dl\.tensor"):
        f(X)


def test_an_error_of_the_step_leaves_nothing_behind():
    f = dl.capture(lambda x: x @ x)
    with pytest.raises(ShapeError):
        f(dl.zeros((2, 3)))
    assert f(dl.ones((2, 2))).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_recording_keeps_no_memory():
    """Arrays die while a step is recorded as they do in an eager step."""
    _C = pytest.importorskip("dlcore._C")
    x = dl.ones(1 << 18, device="cpu")

    def f(x):
        for _ in range(20):
            x = dl.softmax(x, axis=0)
        return x

    _C.reset_peak()
    before = _C.memory_stats()["peak"]
    dl.capture(f)(x)
    assert _C.memory_stats()["peak"] - before < 5 * x.size * 4


# ---- fusion

CHAINS = {
    "multiply_add_tanh_multiply": lambda x, y: (x * 2 + 1).tanh() * x,
    "leaky_relu_subtract_gelu": lambda x, y: dl.gelu(dl.leaky_relu(x, slope=0.1) - y),
    "multiply_elu_softplus_divide_clip": lambda x, y: dl.clip(dl.softplus(dl.elu(x * y)) / 3.0, 0.5, 0.5),
    "multiply_add_subtract": lambda x, y: x[:, :1] * y + y[0] - x[:, 1:2],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_functions_is_one_line_with_the_same_bits(name, dtype):
    captured = dl.capture(lambda x, y: CHAINS[name](x, y))
    rng = np.random.default_rng(1)
    for _ in range(2):
        x, y = (dl.tensor(rng.normal(size=(37, 1100)), dtype, "cpu") for _ in range(2))
        np.testing.assert_array_equal(captured(x, y).numpy(), CHAINS[name](x, y).numpy(), strict=True)
    assert [line.name for line in captured.programs[0].lines if line.name != "getitem"] == [name]


def test_what_later_lines_read_leaves_the_chain():
    def f(x):
        y = x * 2 + 1
        z = y.tanh()
        return z.sum(), y, z * y

    x, captured = dl.tensor(np.linspace(-1, 1, 7), "float32", "cpu"), dl.capture(f)
    for _ in range(2):
        for found, expected in zip(captured(x), f(x), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert [line.name for line in captured.programs[0].lines] == ["multiply_add_tanh", "sum", "multiply"]


def test_a_long_chain_is_several():
    def f(x):
        for _ in range(40):
            x = x * 0.5 + 1
        return x

    captured, x = dl.capture(f), dl.tensor([1.0, -3.0], device="cpu")
    assert (captured(x).tolist(), captured(x).tolist()) == (f(x).tolist(),) * 2
    assert 5 <= len(captured.programs[0].lines) <= 20


def test_the_gradient_of_a_chain():
    def f(x):
        loss = (x.sigmoid() * x + dl.silu(x)).sum()
        loss.backward()
        return loss

    captured = dl.capture(f)
    for k in range(3):
        x, y = (dl.tensor([0.5, k], device="cpu", requires_grad=True) for _ in range(2))
        assert captured(x).item() == f(y).item()
        assert x.grad.tolist() == y.grad.tolist()


# ---- the short way into a program


@pytest.fixture
def extension():
    """The extension that default devices run programs with."""
    dl.default_backend()
    if recording.native is None:
        pytest.skip("there is no extension")


def test_the_short_way_looks_at_arguments_and_tensors_outside(extension):
    w = dl.tensor([2.0], requires_grad=True)
    f = dl.capture(lambda x, y: x * w + y)
    x, y = dl.tensor([1.0]), dl.tensor([10.0])
    assert f(x, y).item() == 12
    assert f._quick(x, y).item() == 12
    missed = [(x, x), (x, y.reshape(1, 1)), (x, dl.tensor([1.0], "float64")), (x, 1.0)]
    missed += [(x, dl.tensor([1.0], requires_grad=True)), (x, y * w), (x, dl.tensor([1.0], device="numpy"))]
    numpy_default = x.device == "numpy"
    assert all(f._quick(*args) is NotImplemented for args in missed[: -1 if numpy_default else None])
    w.requires_grad = False
    assert f._quick(x, y) is NotImplemented
    w.requires_grad = True
    with dl.no_grad():
        assert f._quick(x, y) is NotImplemented
    with profile():
        assert f._quick(x, y) is NotImplemented
    nn.ReLU().inplace = True
    assert f._quick(x, y) is NotImplemented


def test_the_short_way_is_not_taken_with_a_computed_argument():
    f = dl.capture(lambda x: x * 2)
    x = dl.tensor([1.0], requires_grad=True)
    for _ in range(2):
        assert f(x).item() == 2
    with pytest.raises(GraphError, match="computed by a recorded op"):
        f(x + 0)


def test_the_short_way_is_not_taken_without_the_gradients_that_were_there():
    w = dl.tensor([2.0], requires_grad=True)
    f = dl.capture(lambda x: (w * x).sum().backward())
    for _ in range(3):
        f(dl.tensor([1.0]))
    w.grad = None
    f(dl.tensor([1.0]))
    assert w.grad.item() == 1


def test_the_short_way_is_not_taken_while_another_function_is_recorded():
    inner = dl.capture(lambda x: x * 2)
    for _ in range(2):
        inner(dl.tensor([1.0]))
    outer = dl.capture(lambda x: inner(x) + 1)
    assert [outer(dl.tensor([k])).item() for k in (1.0, 5.0)] == [3, 11]


factor = 2.0


def times_factor(x):
    return x * factor


def test_the_short_way_looks_at_globals(monkeypatch):
    f = dl.capture(times_factor)
    for _ in range(2):
        assert f(dl.tensor([1.0])).item() == 2
    monkeypatch.setitem(globals(), "factor", 3.0)
    assert f(dl.tensor([1.0])).item() == 3


@pytest.fixture(params=["text", "extension"])
def way(request, monkeypatch):
    """Programs run by their text, or in one call of the extension."""
    if request.param == "text":
        monkeypatch.setattr(recording, "native", None)
    else:
        request.getfixturevalue("extension")


def test_a_program_has_the_bits_of_eager_steps_either_way(way):
    def build():
        model = mlp(nn.Dropout(0.3), nn.BatchNorm1d(8))
        return model, optim.Adam(model.parameters()), {"clip": lambda: optim.clip_grad_norm(model.parameters(), 0.1)}

    run = same_as_eager(build)
    assert len(run.programs) == 1


def test_a_program_gives_nested_results_and_gradients_either_way(way):
    def f(x, y):
        (x * y).sum().backward()
        return {"sum": x + y, "all": [(x * 2, 3), None]}

    captured = dl.capture(f)
    for k in (1.0, 2.0, 3.0):
        x, y = dl.tensor([k], requires_grad=True), dl.tensor([10.0])
        found = captured(x, y)
        assert (found["sum"].item(), found["all"][0][0].item(), found["all"][0][1], found["all"][1]) == (
            k + 10, 2 * k, 3, None
        )  # fmt: skip
        assert x.grad.item() == 10
        assert not found["sum"].requires_grad


def test_arrays_of_a_program_die_after_their_last_use_either_way(way):
    _C = pytest.importorskip("dlcore._C")
    x = dl.ones(1 << 18, device="cpu")

    @dl.capture
    def f(x):
        for _ in range(20):
            x = dl.softmax(x, axis=0)
        return x

    f(x)
    _C.reset_peak()
    before = _C.memory_stats()["peak"]
    f(x)
    assert _C.memory_stats()["peak"] - before < 4 * x.size * 4


def test_an_error_in_a_replay_leaves_the_program_usable_either_way(way):
    table = dl.tensor([[1.0], [2.0]])
    f = dl.capture(lambda ids: dl.embedding(ids, table) * 3)
    assert f(dl.tensor([0, 1])).tolist() == [[3.0], [6.0]]
    with pytest.raises(IndexRangeError):
        f(dl.tensor([0, 2]))
    assert f(dl.tensor([1, 0])).tolist() == [[6.0], [3.0]]


def a_model_of_a_step_that_names_itself():
    model = mlp()

    def step(x):
        return model(x), captured.f is None

    captured = dl.capture(step)
    for _ in range(2):
        captured(dl.ones((2, 6)))
    return weakref.ref(model)


def test_a_captured_step_that_names_itself_is_collected(way):
    model = a_model_of_a_step_that_names_itself()
    gc.collect()
    assert model() is None


def test_kinds_of_arguments_that_take_turns_go_the_short_way(extension):
    f = dl.capture(lambda x: x + 1)
    for _ in range(2):
        for size in (2, 3):
            x = dl.ones(size)
            assert f(x).tolist() == [2.0] * size
            assert f._quick(x).tolist() == [2.0] * size
    assert len(f.programs) == 2


@pytest.mark.parametrize(
    ("lines", "given", "message"),
    [
        ([(len, (0,), None, [1, 2], True, [])], [[1]], "a tuple of 2"),
        ([(len, (0,), None, [1], False, [])], [], "a list of 1 arrays"),
        ([(len,)], [[1]], "a tuple of 6"),
    ],
)
def test_the_extension_refuses_lines_that_are_none(lines, given, message, extension):
    with pytest.raises(TypeError, match=message):
        recording.native.program(lines, [0], [1])(given)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
def test_an_activation_moves_into_the_epilogue_of_linear_where_nothing_else_reads(activation):
    rng = np.random.default_rng(0)
    x, w, b = (dl.tensor(rng.normal(size=s), "float32", "cpu") for s in [(33, 70), (65, 70), (65,)])
    function = getattr(dl, activation)

    def f(x, both):
        y = dl.linear(x, w, b)
        z = function(y)
        return (z, y) if both else (z * 2, None)

    captured = dl.capture(f)
    for both in (False, True, False, True):
        for found, expected in zip(captured(x, both), f(x, both), strict=True):
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    names = [[line.name for line in program.lines] for program in captured.programs]
    assert names == [["linear", "multiply"], ["linear", activation]]


# ---- tails


def images(*shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return [dl.tensor(rng.normal(size=shape), dtype, "cpu") for shape in shapes]


def lines_of(f, *args):
    """Names of a captured function's lines, once its results have been compared with the function's."""
    captured = dl.capture(f)
    for _ in range(2):
        for found, expected in zip(captured(*args), f(*args), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy(), strict=True)
    return [line.name for line in captured.programs[0].lines]


def variant_of(x, w):
    """Of a convolution."""
    with profile() as found:
        dl.conv2d(x, w, padding=1)
    return next(iter(found.rows))[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [5, 16])  # 16 of float32: by Winograd's algorithm
def test_functions_of_a_convolution_are_its_tail(channels, dtype):
    x, w, z = images((11, channels, 9, 9), (16, channels, 3, 3), (11, 16, 9, 9), dtype=dtype)
    names = lines_of(lambda x, z: [(dl.relu(z) + dl.silu(dl.conv2d(x, w, padding=1))).sigmoid()], x, z)
    assert names == ["relu", "conv2d_silu_add_sigmoid"]
    assert variant_of(x, w) == ("winograd" if (channels, dtype) == (16, "float32") else "native")


def test_a_shortcut_joins_what_is_made_last():
    x, w, v = images((2, 4, 8, 8), (4, 4, 3, 3), (4, 4, 1, 1))
    names = lines_of(lambda x: [(dl.batch_norm(dl.conv2d(x, w, padding=1))[0] + dl.conv2d(x, v)).relu()], x)
    assert names == ["conv2d", "batch_norm", "conv2d_add_relu"]


def test_what_others_read_has_no_tail():
    x, w = images((2, 4, 8, 8), (4, 4, 3, 3))

    def f(x):
        y = dl.conv2d(x, w)
        return y.relu(), y

    assert lines_of(f, x) == ["conv2d", "relu"]


def test_a_tail_reads_nothing_that_is_written_in_between():
    x, w = images((2, 4, 8, 8), (4, 4, 1, 1))

    def run(f):
        total = dl.zeros(x.shape, device="cpu")

        def step(x):
            y = dl.conv2d(x, w)
            total.assign(total + 1)
            return y * total

        g = f(step)
        return [g(x).numpy() for _ in range(3)]

    np.testing.assert_array_equal(run(dl.capture), run(lambda f: f))


class Block(nn.Module):
    def __init__(self):
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        x = dl.relu(self.bn1(self.conv1(x)))
        return dl.relu(self.bn2(self.conv2(x)) + self.shortcut(x)).mean((2, 3))


def test_training_with_tails_has_the_bits_of_eager_steps(threads):
    x, y = (
        dl.tensor(np.random.default_rng(0).normal(size=(4, 3, 9, 9)), "float32", "cpu"),
        dl.tensor([1, 2, 3, 4], device="cpu"),
    )
    with dl.device("cpu"):
        state = {name: p.numpy().copy() for name, p in Block().state_dict().items()}
        found = []
        for count in (0, 1, 2):
            model = Block()
            model.load_state_dict({name: dl.tensor(p) for name, p in state.items()})
            threads(count or 2)
            found.append(train(model, x, y, captured=count > 0))
    for some in found[1:]:
        for a, b in zip(some, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def train(model, x, y, captured):
    """The parameters after three steps."""
    opt = optim.SGD(list(model.parameters()), lr=0.1, momentum=0.9)

    def step():
        nn.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()

    f = dl.capture(step) if captured else step
    for _ in range(3):
        f()
    if captured:
        names = [line.name for line in f.programs[0].lines]
        assert {"batch_norm_relu", "conv2d_add_relu", "conv2d_dx_add_relu_grad"} <= set(names)
    return [p.numpy().copy() for p in model.state_dict().values()]


# ---- pooling


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [3, 16])  # 16 of float32: by Winograd's algorithm
def test_a_convolution_is_pooled_part_by_part(channels, dtype, threads):
    threads(1)
    x, w, b = images((11, channels, 64, 64), (16, channels, 3, 3), (16,), dtype=dtype)  # of 4 images, or of 2
    names = lines_of(lambda x: dl.max_pool2d(dl.conv2d(x, w, b).relu(), 3, stride=2, return_indices=True), x)
    assert names == ["conv2d_relu_max_pool2d"]
    assert variant_of(x, w) == ("winograd" if (channels, dtype) == (16, "float32") else "native")


def test_a_convolution_that_others_read_is_not_pooled_in_parts():
    x, w = images((2, 4, 8, 8), (4, 4, 3, 3))

    def f(x):
        y = dl.conv2d(x, w)
        return y, dl.max_pool2d(y, 2)

    assert lines_of(f, x) == ["conv2d", "max_pool2d"]


def test_a_gradient_is_masked_by_relu_before_it_is_spread():
    x, w = images((3, 4, 9, 9), (4, 4, 3, 3))

    def f(x):
        y = dl.max_pool2d(dl.conv2d(x, w).relu(), 3, stride=2)
        return dl.autograd.gradients(dl.square(y).sum(), [x])

    x.requires_grad = True
    names = lines_of(f, x)
    assert names[0] == "conv2d_relu_max_pool2d"
    assert names[-3:] == ["multiply_multiply_relu_grad", "max_pool2d_grad", "conv2d_dx"]


@pytest.mark.parametrize("outside", [False, True])
def test_another_mask_stays_behind_the_gradient_of_pooling(outside):
    x, other = images((2, 3, 8, 8), (2, 3, 8, 8))

    def f(x, other):
        y = x if outside else x.relu()
        largest, i = dl.max_pool2d(y, 2, return_indices=True)
        attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
        spread = OPS["max_pool2d_grad"](largest, i, size=(8, 8), **attrs)
        return [OPS["relu_grad"](spread, y if outside else other)]

    assert lines_of(f, x, other)[-2:] == ["max_pool2d_grad", "relu_grad"]


@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_added_to_the_gradient_of_a_norm_is_its_tail(kind, dtype):
    (x,) = images((3, 7, 20), dtype=dtype)  # 21 rows: some of them by themselves
    x.requires_grad = True
    norm = getattr(nn, kind)(20).to("cpu").astype(dtype)

    def f(x):
        h = x.tanh()
        return dl.autograd.gradients(dl.square(norm(h) + h).sum(), [x, *norm.parameters()])

    assert lines_of(f, x)[-1] == {"LayerNorm": "layer", "RMSNorm": "rms"}[kind] + "_norm_grad_add_tanh_grad"


# ---- attention whose gradients are joined


def projected(x, w, heads, sizes=(6, 6, 6), causal=True):
    """Self-attention of one projection, and its result for one more reader of its parts."""
    parts = [part.reshape(*x.shape[:2], heads, -1).permute(0, 2, 1, 3) for part in dl.split(dl.linear(x, w), sizes, -1)]
    y = nn.scaled_dot_product_attention(*parts, causal=causal)
    return dl.square(y.permute(0, 2, 1, 3).reshape(*x.shape[:2], -1)).sum(), parts


@pytest.mark.parametrize("sizes", [(6, 6, 6), (6, 6, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_attention_are_written_side_by_side(sizes, dtype):
    x, w = images((2, 5, 4), (sum(sizes), 4), dtype=dtype)
    w.requires_grad = True
    names = lines_of(lambda x: dl.autograd.gradients(projected(x, w, 3, sizes)[0], [w]), x)
    assert "attention_grad_concat" in names
    assert not {"concat", "attention_grad"} & {*names}


def test_gradients_of_attention_that_others_read_are_joined_by_a_concat():
    x, w = images((2, 5, 4), (18, 4))
    w.requires_grad = True

    def f(x):
        loss, parts = projected(x, w, 3)
        return dl.autograd.gradients(loss, [w, parts[1]])

    assert "concat" in lines_of(f, x)


# ---- recurrent layers of an embedding


def recurrent(kind, rows, hidden=20, dtype="float32", size=18, **options):
    with dl.device("cpu"):
        table = nn.Embedding(rows, size).astype(dtype)
        return table, getattr(nn, kind)(size, hidden, **options).astype(dtype)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("rows", "hidden", "size"), [(65, 20, 500), (3, 20, 200), (280, 9, 600)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_recurrent_layer_multiplies_the_table_it_reads_from(kind, rows, hidden, size, dtype):
    table, layer = recurrent(kind, rows, hidden, dtype, size)
    ids = dl.tensor(np.random.default_rng(1).integers(0, rows, (19, 31)), device="cpu")

    def f(ids):
        return dl.autograd.gradients(dl.square(layer(table(ids))[0]).sum(), [*table.parameters(), *layer.parameters()])

    assert [name for name in lines_of(f, ids) if "embedding" in name] == [
        "embedding", f"embedding_{kind.lower()}", "embedding_grad",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}])
def test_inference_looks_up_products_only(options):
    table, layer = recurrent("GRU", 65, **options)
    ids = dl.tensor(np.arange(19 * 31).reshape(19, 31) % 65, device="cpu")
    with dl.no_grad():
        names = lines_of(lambda ids: layer(table(ids))[0], ids)
    assert [name for name in names if "embedding" in name or "gru" in name] == ["embedding_gru"] * len(layer.directions)


@pytest.mark.parametrize(("rows", "tokens", "fused"), [(65, 257, True), (65, 256, False), (300, 299, False)])
def test_few_tokens_are_looked_up_first(rows, tokens, fused):
    table, layer = recurrent("LSTM", rows)
    ids = dl.zeros((2, tokens), dtype="int64", device="cpu")
    assert ("embedding_lstm" in lines_of(lambda ids: layer(table(ids))[0], ids)) == fused


def test_a_table_that_is_written_in_between_is_looked_up_first():
    table, layer = recurrent("RNN", 65)
    ids, first = dl.zeros((30, 30), dtype="int64", device="cpu"), table.weight.numpy().copy()

    def step(ids):
        with dl.no_grad():
            x = table(ids)
            table.weight.assign(table.weight * 2)
            return layer(x)[0]

    def run(f):
        table.weight.assign(first)
        return [f(ids).numpy() for _ in range(3)]

    np.testing.assert_array_equal(run(dl.capture(step)), run(step))


def test_ids_beyond_the_table_are_refused_in_a_replay():
    table, layer = recurrent("GRU", 65)
    step = dl.capture(lambda ids: layer(table(ids))[0])
    ids = dl.zeros((30, 30), dtype="int64", device="cpu")
    step(ids)
    with pytest.raises(IndexError, match="out of range"):
        step(dl.full((30, 30), 65, dtype="int64", device="cpu"))
