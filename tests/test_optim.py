"""Optimizers against the papers' formulas in plain NumPy, and against PyTorch."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim
from dlcore.errors import ArgumentError, GraphError

SHAPES = [(3, 4), (5,), ()]
STEPS = 25

CASES = {
    "SGD": [
        {}, {"weight_decay": 0.1}, {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    "Adam": [{}, {"amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}],
    "AdamW": [{}, {"amsgrad": True, "weight_decay": 0.2}],
    "Adamax": [{}, {"weight_decay": 0.1, "betas": (0.7, 0.95)}],
    "NAdam": [{}, {"weight_decay": 0.1, "momentum_decay": 0.01}],
    "RMSprop": [{}, {"centered": True, "weight_decay": 0.1}, {"momentum": 0.9, "centered": True, "alpha": 0.9}],
    "Adagrad": [{}, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}],
    "Adadelta": [{}, {"rho": 0.8, "weight_decay": 0.1}],
    "Lion": [{}, {"weight_decay": 0.1, "betas": (0.8, 0.9)}],
    "LAMB": [{}, {"weight_decay": 0.1}],
}  # fmt: skip
EVERY = [
    pytest.param(name, options, id=f"{name}-{i}") for name, all_ in CASES.items() for i, options in enumerate(all_)
]


def start_values(dtype="float64"):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(size=s), dtype) for s in SHAPES]


def gradient(p, step):
    """Of a bowl whose slope changes a little from step to step."""
    return p * 0.5 + np.cos(step + np.arange(p.size)).reshape(p.shape).astype(p.dtype)


def run(name, options, dtype="float64", device="numpy", steps=STEPS):
    params = [nn.Parameter(dl.tensor(x, dtype, device)) for x in start_values(dtype)]
    opt = getattr(optim, name)(params, lr=0.05, **options)
    for step in range(steps):
        for p in params:
            p.grad = dl.tensor(gradient(np.array(p), step), dtype, device)
        opt.step()
    return [np.array(p) for p in params]


# ---- the formulas, written out of place: each returns the update of p for gradients g[0..t]


def decayed(gs, b):
    """Exponential average of a history from zero."""
    return sum((1 - b) * b ** (len(gs) - 1 - i) * g for i, g in enumerate(gs))


def sgd(p, gs, lr, momentum=0.0, dampening=0.0, nesterov=False, **_):
    scale = [1.0] + [1 - dampening] * (len(gs) - 1)
    velocity = sum(momentum ** (len(gs) - 1 - i) * s * g for i, (s, g) in enumerate(zip(scale, gs, strict=True)))
    return p - lr * (gs[-1] + momentum * velocity if nesterov else velocity)


def adam(p, gs, lr, betas=(0.9, 0.999), eps=1e-8, amsgrad=False, **_):
    t = len(gs)
    squares = [decayed([g**2 for g in gs[: i + 1]], betas[1]) for i in range(t)]
    v = np.maximum.reduce(squares) if amsgrad else squares[-1]
    return p - lr * decayed(gs, betas[0]) / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def adamw(p, gs, lr, weight_decay=0.01, **options):
    return adam(p - lr * weight_decay * p, gs, lr, **options)


def adamax(p, gs, lr, betas=(0.9, 0.999), eps=1e-8, **_):
    t = len(gs)
    u = np.maximum.reduce([betas[1] ** (t - 1 - i) * (abs(g) + eps) for i, g in enumerate(gs)])
    return p - lr / (1 - betas[0] ** t) * decayed(gs, betas[0]) / u


def nadam(p, gs, lr, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3, **_):
    t = len(gs)
    mu = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, t + 2)]
    v = np.sqrt(decayed([g**2 for g in gs], betas[1]) / (1 - betas[1] ** t)) + eps
    first = mu[t] * decayed(gs, betas[0]) / (1 - np.prod(mu))
    return p - lr * (first + (1 - mu[t - 1]) * gs[-1] / (1 - np.prod(mu[:t]))) / v


def rmsprop(p, gs, lr, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, **_):
    velocity = 0.0
    for t in range(1, len(gs) + 1):
        v = decayed([g**2 for g in gs[:t]], alpha) - (decayed(gs[:t], alpha) ** 2 if centered else 0)
        velocity = momentum * velocity + gs[t - 1] / (np.sqrt(v) + eps)
    return p - lr * velocity


def adagrad(p, gs, lr, lr_decay=0.0, eps=1e-10, initial_accumulator_value=0.0, **_):
    total = initial_accumulator_value + sum(g**2 for g in gs)
    return p - lr / (1 + (len(gs) - 1) * lr_decay) * gs[-1] / (np.sqrt(total) + eps)


def adadelta(p, gs, lr, rho=0.9, eps=1e-6, **_):
    acc = 0.0
    for t in range(1, len(gs) + 1):
        delta = np.sqrt(acc + eps) / np.sqrt(decayed([g**2 for g in gs[:t]], rho) + eps) * gs[t - 1]
        acc = rho * acc + (1 - rho) * delta**2
    return p - lr * delta


def lion(p, gs, lr, betas=(0.9, 0.99), weight_decay=0.0, **_):
    before = decayed(gs[:-1], betas[1]) if len(gs) > 1 else 0.0
    return p - lr * (np.sign(betas[0] * before + (1 - betas[0]) * gs[-1]) + weight_decay * p)


def lamb(p, gs, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    r = p - adam(p, gs, 1.0, betas, eps) + weight_decay * p
    return p - lr * np.linalg.norm(p) / np.linalg.norm(r) * r


FORMULAS = {f.__name__: f for f in (sgd, adam, adamw, adamax, nadam, rmsprop, adagrad, adadelta, lion, lamb)}
DECOUPLED = ("AdamW", "Lion", "LAMB")


def by_formula(name, options):
    found = []
    for p in start_values():
        gs = []
        for step in range(STEPS):
            l2 = 0.0 if name in DECOUPLED else options.get("weight_decay", 0.0)
            gs.append(gradient(p, step) + l2 * p)
            p = FORMULAS[name.lower()](p, gs, 0.05, **options)
        found.append(p)
    return found


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_formula(name, options, device):
    for got, expected in zip(run(name, options, device=device), by_formula(name, options), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_float32(name, options, device):
    got, exact = run(name, options, "float32", device), run(name, options)
    for a, b in zip(got, exact, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), [c for c in EVERY if c.values[0] not in ("Lion", "LAMB")])
def test_agrees_with_pytorch(name, options):
    torch = pytest.importorskip("torch")
    params = [torch.tensor(x, requires_grad=True) for x in start_values()]
    opt = getattr(torch.optim, name)(params, lr=0.05, **options)
    for step in range(STEPS):
        for p in params:
            p.grad = torch.tensor(gradient(p.detach().numpy(), step))
        opt.step()
    rtol = 1e-6 if name == "NAdam" else 1e-11  # PyTorch keeps NAdam's product of momenta in float32
    for got, expected in zip(run(name, options), params, strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_parameters_move_by_less_than_their_spacing(dtype, device):
    p = nn.Parameter(dl.ones(3, dtype, device))
    opt = optim.SGD([p], lr=1e-4)
    for _ in range(100):
        p.grad = dl.ones(3, dtype, device)
        opt.step()
    expected = np.full(3, 0.99).astype(p.dtype)
    np.testing.assert_array_equal(p.numpy(), expected)
    p.assign(2.0)
    opt.step()
    np.testing.assert_array_equal(p.numpy(), np.full(3, 2.0 - 1e-4).astype(p.dtype))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_parameters_of_any_strides(name, device):
    values, grad = start_values("float32")[0], np.float32(1) + np.arange(12, dtype=np.float32).reshape(3, 4)
    plain, turned = nn.Parameter(dl.tensor(values, device=device)), nn.Parameter(dl.tensor(values.T, device=device))
    plain.grad, turned.grad = dl.tensor(grad, device=device), dl.tensor(grad.T.copy(), device=device)
    assert not turned._array.flags.c_contiguous
    getattr(optim, name)([plain, turned], lr=0.1).step()
    np.testing.assert_allclose(turned.numpy().T, plain.numpy(), rtol=1e-6)


# ---- groups, state, errors


def parameter(*values):
    return nn.Parameter(np.asarray(values, np.float32))


def with_grad(p, *values):
    p.grad = dl.tensor(np.asarray(values, np.float32))
    return p


def test_groups_have_their_own_settings():
    a, b = with_grad(parameter(1), 1), with_grad(parameter(1), 1)
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.9, 0.5])
    opt.add_group({"params": [parameter(3)], "lr": 0.01})
    assert [g["lr"] for g in opt.groups] == [0.1, 0.5, 0.01]


def test_parameters_without_gradient_stay_and_keep_their_own_count():
    a, b = parameter(1), with_grad(parameter(1), 1)
    opt = optim.Adam([a, b], lr=0.1)
    opt.step()
    assert a.item() == 1
    with_grad(a, 1)
    opt.step()
    np.testing.assert_allclose(a.item(), 0.9, rtol=1e-6)
    opt.zero_grad()
    assert a.grad is None
    assert b.grad is None


def test_momentum_can_be_switched_on_later():
    p = with_grad(parameter(1), 1)
    opt = optim.SGD([p], lr=0.1)
    opt.step()
    opt.groups[0]["momentum"] = 0.5
    opt.step()
    opt.step()
    np.testing.assert_allclose(p.item(), 1 - 0.1 * (1 + 1 + 1.5), rtol=1e-6)


@pytest.mark.parametrize("grad", [np.ones((2, 2), np.float32), np.ones(2)])
def test_a_gradient_must_fit_its_parameter(grad):
    p, q = with_grad(parameter(1), 1), parameter(1, 2)
    q.grad = dl.tensor(grad)
    with pytest.raises(ArgumentError, match=r"SGD: parameter 1 is float32\[2\], its gradient float(32|64)\[2"):
        optim.SGD([p, q], lr=0.1).step()
    assert p.item() == 1


def test_an_update_counts_as_overwriting():
    p = parameter(2)
    y = p * p
    with_grad(p, 1)
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(GraphError, match="overwritten"):
        y.sum().backward()


def take_steps(opt, params, first, count):
    for step in range(first, first + count):
        for p in params:
            p.grad = dl.tensor(gradient(p.numpy(), step), p.dtype, p.device)
        opt.step()


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_training_goes_on_from_a_saved_state(name, options, tmp_path):
    params = [nn.Parameter(x) for x in start_values("float32")]
    opt = getattr(optim, name)(params, lr=0.05, **options)
    take_steps(opt, params, 0, 3)
    dl.save(tmp_path / "opt.safetensors", opt.state_dict())
    twins = [nn.Parameter(p.numpy()) for p in params]
    again = getattr(optim, name)(twins, lr=0.3)
    again.load_state_dict(dl.load(tmp_path / "opt.safetensors"))
    take_steps(opt, params, 3, 3)
    take_steps(again, twins, 3, 3)
    for p, twin in zip(params, twins, strict=True):
        np.testing.assert_array_equal(p.numpy(), twin.numpy())


class Bag(nn.Module):
    def __init__(self, params):
        self.params = params


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize(("before", "after"), [("float32", "float64"), ("float32", "float16"), ("float16", "float32")])
def test_the_state_follows_parameters_that_move(name, options, before, after, device):
    """As if it had been saved, cast and loaded by an optimizer of the parameters as they are now."""
    kept = "float64" if after == "float64" else "float32"
    model = Bag([nn.Parameter(dl.tensor(x, before, device)) for x in start_values()])
    opt = getattr(optim, name)(model.parameters(), lr=0.05, **options)
    take_steps(opt, model.params, 0, 3)
    saved = {key: x.to("numpy") for key, x in opt.state_dict().items() if not key.endswith("master")}
    saved |= {key: x.astype(kept) for key, x in saved.items() if key.startswith("param") and x.dtype == "float32"}
    model.to("numpy").astype(after)
    twins = [nn.Parameter(dl.tensor(p.numpy(), device="numpy")) for p in model.params]
    again = getattr(optim, name)(twins)
    again.load_state_dict(saved)
    take_steps(opt, model.params, 3, 9)
    take_steps(again, twins, 3, 9)
    for p, twin in zip(model.params, twins, strict=True):
        assert (p.dtype.name, p.device) == (after, "numpy")
        np.testing.assert_array_equal(p.numpy(), twin.numpy())


def test_a_state_that_does_not_fit_changes_nothing():
    p = with_grad(parameter(1, 2), 1, 1)
    opt = optim.Adam([p], lr=0.1)
    opt.step()
    state = opt.state_dict()
    with pytest.raises(ArgumentError, match=r"Adam: param\.0\.exp_avg has shape \(3,\), expected \(2,\)"):
        opt.load_state_dict(state | {"param.0.exp_avg": dl.zeros(3), "group.0.lr": dl.tensor(9.0)})
    with pytest.raises(ArgumentError, match=r"Adam: unexpected param\.1\.exp_avg"):
        opt.load_state_dict(state | {"param.1.exp_avg": dl.zeros(3), "group.0.lr": dl.tensor(9.0)})
    with pytest.raises(ArgumentError, match="Adam: group 0 lacks betas"):
        opt.load_state_dict({k: x for k, x in state.items() if k != "group.0.betas"})
    assert opt.lr == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([p], lr=-1), r"SGD: lr must lie in \[0, inf\); got -1"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), r"Adam: betas must lie in \[0, 1\)"),
        (lambda p: optim.SGD([p], lr=float("nan")), "SGD: lr must lie in"),
        (lambda p: optim.SGD([], lr=1), "SGD: there are no parameters"),
        (lambda p: optim.SGD([p, p]), r"SGD: parameter 1 of shape \(2,\) occurs twice"),
        (lambda p: optim.SGD([p.numpy()]), "SGD: parameter 0 is no floating-point tensor"),
        (lambda p: optim.SGD([{"lr": 0.1}]), "SGD: a group has no 'params'; got lr"),
        (lambda p: optim.SGD(p), "takes a list of parameters"),
        (lambda p: optim.SGD([{"params": [p], "momentun": 0.9}]), "'momentun'; did you mean 'momentum'"),
        (lambda p: optim.SGD([p], nesterov=True), "SGD: nesterov needs momentum"),
        (lambda p: optim.SGD([p], on_nonfinite="stop"), "on_nonfinite: expected"),
        (lambda p: optim.LBFGS([p], line_search="armijo"), "LBFGS: line_search must be"),
        (lambda p: optim.LBFGS([p]).step(), r"LBFGS: step\(closure\) needs"),
        (lambda p: optim.clip_grad_norm([p], 0), "clip_grad_norm: max_norm"),
        (lambda p: optim.clip_grad_value([p], -1), "clip_grad_value: limit"),
    ],
)  # fmt: skip
def test_bad_arguments_give_one_clear_line(make, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        make(parameter(1, 2))
    assert "\n" not in str(caught.value)


def test_computed_tensors_are_refused():
    with pytest.raises(GraphError, match="SGD: parameter 0 was computed by an op"):
        optim.SGD([parameter(1) * 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_gradients(bad):
    p, q = parameter(1), parameter(1)
    opt = optim.SGD([p, q], lr=0.1, on_nonfinite="skip")
    with_grad(p, 1), with_grad(q, bad)
    opt.step()
    assert (p.item(), opt.skipped) == (1, 1)
    opt.on_nonfinite = "raise"
    with pytest.raises(ArgumentError, match="SGD: a gradient holds NaN or infinity"):
        opt.step()
    assert p.item() == 1


# ---- clipping


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_clip_grad_norm(norm_type):
    a, b = with_grad(parameter(0, 0), 3, 0), with_grad(parameter(0), -4)
    expected = np.linalg.norm([3, 0, -4], norm_type)
    assert optim.clip_grad_norm([a, b, parameter(0)], 100.0, norm_type) == pytest.approx(expected)
    np.testing.assert_array_equal(a.grad, [3, 0])
    optim.clip_grad_norm([a, b], 1.0, norm_type)
    np.testing.assert_allclose(a.grad, np.array([3, 0]) / expected, rtol=1e-6)
    assert optim.grad_norm([a, b], norm_type) == pytest.approx(1.0)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 2e30), ("float16", 4e4), ("bfloat16", 2.0**100)])
def test_norms_whose_squares_overflow(dtype, size, device):
    p = nn.Parameter(dl.zeros(4, dtype, device))
    p.grad = dl.full(4, size, dtype, device)
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(2 * size, rel=1e-2)
    assert optim.grad_norm([p]) == pytest.approx(1.0, rel=1e-2)


def test_clipping_leaves_gradients_on_their_devices(device):
    params = [nn.Parameter(dl.zeros(2, device=d)) for d in ("numpy", device)] + [nn.Parameter(dl.zeros((0, 2)))]
    for p in params:
        p.grad = dl.full(p.shape, 3.0, device=p.device)
    assert optim.clip_grad_norm(params, 1.5) == pytest.approx(6.0)
    optim.clip_grad_value(params, 0.5)
    for p in params:
        assert p.grad.device == p.device
        np.testing.assert_allclose(p.grad, np.full(p.shape, 0.5), rtol=1e-6)


def test_clipping_records_nothing():
    w = nn.Parameter(np.array([2.0]))
    (w**3).sum().backward(create_graph=True)
    optim.clip_grad_norm([w], 1.0)
    assert w.grad.is_leaf
    assert not w.grad.requires_grad


def test_clip_each_parameter_by_itself():
    a, b = with_grad(parameter(0, 0), 3, 4), with_grad(parameter(0), 0.5)
    optim.clip_grad_norm([a, b], 1.0, per_parameter=True)
    np.testing.assert_allclose(a.grad, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(b.grad, [0.5])


def test_clipping_scales_a_shared_gradient_once():
    a, b = parameter(1), parameter(1)
    a.grad = b.grad = dl.tensor([3.0])
    optim.clip_grad_norm([a, b], 1.0)
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], [0.5**0.5] * 2, rtol=1e-6)


def test_clip_grad_value():
    p = with_grad(parameter(0, 0, 0), -3, 0.5, 2)
    optim.clip_grad_value([p], 1.0)
    np.testing.assert_array_equal(p.grad, [-1, 0.5, 1])


# ---- L-BFGS


def rosenbrock(p):
    x, y = (p * np.array([1.0, 0.0])).sum(), (p * np.array([0.0, 1.0])).sum()
    a, b = 1 - x, y - x * x
    return a * a + 100 * (b * b)


def minimise(line_search, calls, **options):
    p = nn.Parameter(np.array([-1.2, 1.0]))
    opt = optim.LBFGS([p], line_search=line_search, **options)

    def closure():
        opt.zero_grad()
        loss = rosenbrock(p)
        loss.backward()
        return loss

    return [float(opt.step(closure)) for _ in range(calls)], np.array(p), opt


def test_lbfgs_finds_the_minimum_of_rosenbrocks_function():
    _, p, _ = minimise("strong_wolfe", 1, max_iter=60, tolerance_change=1e-14)
    np.testing.assert_allclose(p, [1, 1], atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_agrees_with_pytorch(line_search):
    torch = pytest.importorskip("torch")
    lr = 1.0 if line_search else 2e-3
    p = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([p], lr=lr, history_size=5, line_search_fn=line_search)

    def closure():
        opt.zero_grad()
        loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        loss.backward()
        return loss

    expected = [opt.step(closure).item() for _ in range(4)]
    losses, point, _ = minimise(line_search, 4, lr=lr, history_size=5)
    if line_search is None:
        np.testing.assert_allclose(losses, expected, rtol=1e-8)
    np.testing.assert_allclose(point, p.detach().numpy(), rtol=1e-6)


def test_lbfgs_goes_on_from_a_saved_state():
    _, p, opt = minimise("strong_wolfe", 1, max_iter=5)
    expected = minimise("strong_wolfe", 2, max_iter=5)[1]
    q = nn.Parameter(p)
    twin = optim.LBFGS([q], max_iter=5)
    twin.load_state_dict(opt.state_dict())

    def closure():
        twin.zero_grad()
        loss = rosenbrock(q)
        loss.backward()
        return loss

    twin.step(closure)
    np.testing.assert_array_equal(q.numpy(), expected)
    with pytest.raises(ArgumentError, match="not that of 3 parameters"):
        optim.LBFGS([parameter(1, 2, 3)]).load_state_dict(opt.state_dict())


# ---- averaging


class Model(nn.Module):
    def __init__(self):
        self.w = parameter(1)
        self.register_buffer("seen", dl.zeros(1))


def test_ema_averages_parameters_and_copies_buffers():
    model = Model()
    ema = optim.EMA(model, 0.75)
    for value in (2.0, 3.0):
        model.w.assign(value)
        model.seen.assign(value)
        ema.update()
    average = 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 3
    with ema.swap():
        assert (model.w.item(), model.seen.item()) == (average, 3)
    assert model.w.item() == 3
    assert ema.state_dict()["w"].item() == average


def test_ema_follows_a_model_that_moves(device):
    model = Model()
    ema = optim.EMA(model, 0.5)
    model.to(device).astype("float64")
    model.w.assign(np.array([1 + 2.0**-40]))
    ema.update()
    average = ema.state_dict()["w"]
    assert (average.device, average.item()) == (device, 1 + 2.0**-41)


def test_ema_of_shared_parameters():
    shared = Model()
    model = nn.Sequential(shared, shared)
    ema = optim.EMA(model, 0.5)
    shared.w.assign(3.0)
    ema.update()
    with ema.swap():
        assert shared.w.item() == 2
    assert shared.w.item() == 3


def test_ema_swap_is_undone_after_an_error():
    model = Model()
    ema = optim.EMA(model)
    model.w.assign(5.0)
    with pytest.raises(ZeroDivisionError), ema.swap():
        1 / 0  # noqa: B018
    assert model.w.item() == 5


def test_ema_state_round_trip():
    ema = optim.EMA(Model())
    ema.load_state_dict({"w": np.array([4.0]), "seen": np.array([2.0])})
    assert ema.state_dict()["w"].item() == 4
    with pytest.raises(ArgumentError, match="EMA: the state has other names"):
        ema.load_state_dict({"w": np.array([4.0])})
