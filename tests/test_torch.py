"""Values and first gradients agree with PyTorch, over each op's own samples."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import dtypes, indexing, testing
from dlcore.op import OPS

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*degrees of freedom")]
F = torch.nn.functional


def same(names: str, module=torch) -> dict:
    """Entries for ops that PyTorch has under the same name, without attributes."""
    return {name: lambda t, operands, attrs, name=name: getattr(module, name)(*operands) for name in names.split()}


def dims(attrs: dict, x) -> dict:
    """Axes of a reduction in PyTorch's words."""
    axis = attrs["axis"]
    return {"dim": tuple(range(x.ndim)) if axis is None else axis, "keepdim": attrs["keepdims"]}


def flipped(f, x, axis: int, reverse: bool):
    """`f` along an axis, from the end where `reverse`."""
    return f(x.flip(axis), axis).flip(axis) if reverse else f(x, axis)


def prod(t, operands, attrs):
    (y,) = operands
    axis = dims(attrs, y)["dim"]
    axes = sorted((a % y.ndim for a in (axis if isinstance(axis, tuple) else (axis,))), reverse=True)
    for a in axes:
        y = t.prod(y, a, keepdim=attrs["keepdims"])
    return y


def linear_scan(t, operands, attrs):
    axis, reverse = attrs["axis"], attrs["reverse"]
    if operands[0].shape[axis] == 0:
        return operands[0] * operands[1]
    a, b = (v.flip(axis).unbind(axis) if reverse else v.unbind(axis) for v in operands)
    rows = [b[0]]
    for k in range(1, len(b)):
        rows.append(a[k] * rows[-1] + b[k])
    stacked = t.stack(rows, axis)
    return stacked.flip(axis) if reverse else stacked


# Arithmetic, comparison, mathematical functions, logic
ELEMENTWISE = {
    **same("add subtract multiply divide remainder negative positive abs sign copysign reciprocal square"),
    **same("lerp not_equal less less_equal greater greater_equal isnan isinf isfinite signbit maximum minimum"),
    **same("floor ceil trunc round exp expm1 log log1p log2 log10 logaddexp sqrt rsqrt hypot pow erf"),
    **same("sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh"),
    **same("bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift"),
    **same("logical_and logical_or logical_xor logical_not"),
    "equal": lambda t, o, a: t.eq(*o),
    "floor_divide": lambda t, o, a: t.div(*o, rounding_mode="floor"),
    "bitwise_invert": lambda t, o, a: t.bitwise_not(*o),
    "clip": lambda t, o, a: t.clamp(*o) if any(b is not None for b in o[1:]) else o[0] + 0,
}

ACTIVATIONS = {
    **same("sigmoid"),
    **same("logsigmoid silu mish softsign tanhshrink relu selu relu6 hardswish", F),
    "softplus": lambda t, o, a: F.softplus(*o, beta=a["beta"]),
    "gelu": lambda t, o, a: F.gelu(*o, approximate=a["approximate"]),
    "leaky_relu": lambda t, o, a: F.leaky_relu(*o, a["slope"]),
    "elu": lambda t, o, a: F.elu(*o, a["alpha"]),
    "celu": lambda t, o, a: F.celu(*o, a["alpha"]),
    "hardsigmoid": lambda t, o, a: t.clamp(o[0] / 6 + 0.5, 0, 1),  # F.hardsigmoid's gradient has float32 constants
    "prelu": lambda t, o, a: t.where(o[0] > 0, o[0], o[0] * o[1]),
    "hardtanh": lambda t, o, a: F.hardtanh(*o, a["low"], a["high"]),
    "hardshrink": lambda t, o, a: F.hardshrink(*o, a["lambd"]),
    "softshrink": lambda t, o, a: F.softshrink(*o, a["lambd"]),
    "threshold": lambda t, o, a: F.threshold(*o, a["threshold"], a["value"]),
}

REDUCTIONS = {
    "sum": lambda t, o, a: t.sum(*o, **dims(a, *o)),
    "mean": lambda t, o, a: t.mean(*o, **dims(a, *o)),
    "var": lambda t, o, a: t.var(*o, **dims(a, *o), correction=a["correction"]),
    "std": lambda t, o, a: t.std(*o, **dims(a, *o), correction=a["correction"]),
    "max": lambda t, o, a: t.amax(*o, **dims(a, *o)),
    "min": lambda t, o, a: t.amin(*o, **dims(a, *o)),
    "argmax": lambda t, o, a: t.argmax(*o, dim=a["axis"], keepdim=a["keepdims"]),
    "argmin": lambda t, o, a: t.argmin(*o, dim=a["axis"], keepdim=a["keepdims"]),
    "logsumexp": lambda t, o, a: t.logsumexp(*o, **dims(a, *o)),
    "all": lambda t, o, a: t.all(*o, **dims(a, *o)),
    "any": lambda t, o, a: t.any(*o, **dims(a, *o)),
    "norm": lambda t, o, a: t.linalg.vector_norm(*o, a["ord"], **dims(a, *o)),
    "prod": prod,
    "sum_to": lambda t, o, a: o[0].sum_to_size(*a["shape"]) if a["shape"] else o[0].sum(),
}

SCANS_AND_SORTS = {
    "cumsum": lambda t, o, a: flipped(t.cumsum, *o, a["axis"], a["reverse"]),
    "cumprod": lambda t, o, a: flipped(t.cumprod, *o, a["axis"], a["reverse"]),
    "linear_scan": linear_scan,
    "sort": lambda t, o, a: tuple(t.sort(*o, dim=a["axis"], descending=a["descending"], stable=True)),
    "topk": lambda t, o, a: tuple(t.topk(*o, a["k"], dim=a["axis"], largest=a["largest"])),
    "searchsorted": lambda t, o, a: t.searchsorted(*o, right=a["side"] == "right"),
}


def getitem(t, operands, attrs):
    x, *ids = operands
    key = list(attrs["index"])
    for axis, entry in enumerate(key):
        if isinstance(entry, tuple) and entry == ("slice", None, None, -1):
            x, key[axis] = x.flip(axis), ("slice", None, None, None)
    return x[indexing.decode(tuple(key), ids)]


def linear(t, operands, attrs):
    activation = attrs["activation"]
    y = F.linear(*operands)
    return y if activation == "none" else getattr(F, activation)(y)


def cross_entropy(t, operands, attrs):
    logits, labels, *weight = operands
    weight = weight[0].to(logits.dtype) if weight else None
    return t.logsumexp(logits, 1), F.cross_entropy(logits, labels, weight, **attrs)


# Products, movement, gather and scatter; PyTorch leaves scatter to repeated positions undefined
MOVEMENT = {
    **same("where matmul"),
    "reshape": lambda t, o, a: o[0].reshape(a["shape"]),
    "permute_dims": lambda t, o, a: o[0].permute(a["axes"]),
    "broadcast_to": lambda t, o, a: o[0].expand(a["shape"]),
    "astype": lambda t, o, a: o[0].to(getattr(t, a["dtype"].name)),
    "concat": lambda t, o, a: t.cat(o, a["axis"]),
    "pad": lambda t, o, a: F.pad(o[0], [n for pair in reversed(a["widths"]) for n in pair], value=a["value"]),
    "tril": lambda t, o, a: t.tril(*o, a["k"]),
    "triu": lambda t, o, a: t.triu(*o, a["k"]),
    "getitem": getitem,
    "take": lambda t, o, a: t.index_select(
        o[0], a["axis"], (o[1] % o[0].shape[a["axis"]]).reshape(-1)
    ).reshape(np.take(np.empty(o[0].shape), o[1], a["axis"]).shape),
    "index_add": lambda t, o, a: o[0].index_add(a["axis"], o[1] % o[0].shape[a["axis"]], o[2]),
    "take_along_axis": lambda t, o, a: t.take_along_dim(o[0], o[1] % o[0].shape[a["axis"]], a["axis"]),
    "scatter_add": lambda t, o, a: o[0].scatter_add(a["axis"], o[1] % o[0].shape[a["axis"]], o[2]),
    "one_hot": lambda t, o, a: F.one_hot(o[0], a["num_classes"]),
    "embedding": lambda t, o, a: F.embedding(o[0] % o[1].shape[0], o[1]),
    "linear": linear,
    "cross_entropy": cross_entropy,
}  # fmt: skip

TORCH = {**ELEMENTWISE, **ACTIVATIONS, **REDUCTIONS, **SCANS_AND_SORTS, **MOVEMENT}

CASES = [
    pytest.param(OPS[name], s, id=f"{name}-{i}")
    for name in TORCH
    if name in OPS
    for i, s in enumerate(testing.samples(OPS[name]))
]


def reference(op, values: list, attrs: dict):
    """PyTorch's outputs, and the operands that require a gradient by position."""
    operands = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in values]
    inputs = {i: x for i, x in enumerate(operands) if torch.is_tensor(x) and x.is_floating_point()}
    for x in inputs.values():
        x.requires_grad_()
    outputs = TORCH[op.name](torch, operands, {**op.attrs, **attrs})
    return (outputs if isinstance(outputs, tuple) else (outputs,)), inputs


def assert_agrees(got, expected) -> None:
    wanted = expected.detach().numpy()
    assert got.shape == wanted.shape
    assert testing.error(got, wanted) <= 1e-13


@pytest.mark.parametrize("name", TORCH)
def test_every_entry_is_an_op(name):
    assert name in OPS


@pytest.mark.parametrize(("op", "s"), CASES)
def test_value_agrees_with_torch(op, s, device):
    values = testing.arrays(op, s)
    got, _ = testing.call(op, values, s.attrs, device)
    expected, _ = reference(op, values, s.attrs)
    for a, b in zip(got, expected, strict=True):
        assert_agrees(a, b)


@pytest.mark.parametrize(("op", "s"), [c for c in CASES if c.values[0].vjp is not None])
def test_gradient_agrees_with_torch(op, s, device):
    values = testing.arrays(op, s)
    outputs, operands = testing.call(op, values, s.attrs, device, requires_grad=True)
    expected, inputs = reference(op, values, s.attrs)
    flowing = [i for i, y in enumerate(outputs) if dtypes.kind(y.dtype) == "float" and y.requires_grad]
    rng = np.random.default_rng(0)
    seeds = [rng.normal(size=outputs[i].shape) for i in flowing]
    if not flowing:
        pytest.skip("no floating-point operand in this sample")
    mine = dl.gradients(
        [outputs[i] for i in flowing],
        [operands[i] for i in inputs],
        [dl.tensor(g, np.float64, device) for g in seeds],
    )
    theirs = torch.autograd.grad(
        [expected[i] for i in flowing], list(inputs.values()), [torch.from_numpy(np.asarray(g)) for g in seeds],
        allow_unused=True,
    )  # fmt: skip
    for a, b, x in zip(mine, theirs, inputs.values(), strict=True):
        assert_agrees(np.zeros(x.shape) if a is None else a, torch.zeros_like(x) if b is None else b)
