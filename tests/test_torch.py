"""Values and first gradients agree with PyTorch, over each op's own samples."""

import numpy as np
import pytest

import dlcore as dl
from dlcore import indexing, testing
from dlcore.op import OPS

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*degrees of freedom")]
F, t_grad = torch.nn.functional, torch.nn.grad


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


def gradients(f, dy, *operands):
    """PyTorch's gradients of `f(*operands)`, themselves differentiable (not all of its backward functions are)."""
    operands = [x.requires_grad_() for x in operands]
    return torch.autograd.grad(f(*operands), operands, dy, create_graph=True)


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
    "relu_grad": lambda t, o, a: t.ops.aten.threshold_backward(*o, 0),
    "tanh_grad": lambda t, o, a: t.ops.aten.tanh_backward(*o),
    "sigmoid_grad": lambda t, o, a: t.ops.aten.sigmoid_backward(*o),
    "silu_grad": lambda t, o, a: gradients(F.silu, *t.broadcast_tensors(*o)),
    "gelu_grad": lambda t, o, a: t.ops.aten.gelu_backward(*o, approximate=a["approximate"]),
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


def getitem_grad(t, operands, attrs):
    dy, *ids = operands
    return gradients(lambda x: getitem(t, [x, *ids], attrs), dy, t.zeros(attrs["shape"], dtype=dy.dtype))


def embedding_grad(t, operands, attrs):
    ids, dy = operands
    padding = -1 if attrs["padding_idx"] is None else attrs["padding_idx"] % attrs["rows"]
    return t.ops.aten.embedding_dense_backward(dy, ids % attrs["rows"], attrs["rows"], padding, False)


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
    "split": lambda t, o, a: t.split(*o, list(a["sizes"]), a["axis"]),
    "pad": lambda t, o, a: F.pad(o[0], [n for pair in reversed(a["widths"]) for n in pair], value=a["value"]),
    "tril": lambda t, o, a: t.tril(*o, a["k"]),
    "triu": lambda t, o, a: t.triu(*o, a["k"]),
    "getitem": getitem,
    "getitem_grad": getitem_grad,
    "take": lambda t, o, a: t.index_select(
        o[0], a["axis"], (o[1] % o[0].shape[a["axis"]]).reshape(-1)
    ).reshape(np.take(np.empty(o[0].shape), o[1], a["axis"]).shape),
    "index_add": lambda t, o, a: o[0].index_add(a["axis"], o[1] % o[0].shape[a["axis"]], o[2]),
    "take_along_axis": lambda t, o, a: t.take_along_dim(o[0], o[1] % o[0].shape[a["axis"]], a["axis"]),
    "scatter_add": lambda t, o, a: o[0].scatter_add(a["axis"], o[1] % o[0].shape[a["axis"]], o[2]),
    "one_hot": lambda t, o, a: F.one_hot(o[0], a["num_classes"]),
    "embedding": lambda t, o, a: F.embedding(o[0] % o[1].shape[0], o[1]),
    "embedding_grad": embedding_grad,
    "linear": linear,
    "cross_entropy": cross_entropy,
}  # fmt: skip


def convolutions(rank: int) -> dict:
    """conv<rank>d and its gradients."""
    name = f"conv{rank}d"
    as_input, as_weight = getattr(t_grad, f"{name}_input"), getattr(t_grad, f"{name}_weight")

    def dx(t, o, a):
        dy, w = o
        attrs = {**a}
        size = (dy.shape[0], w.shape[1] * a["groups"], *attrs.pop("size"))
        return as_input(size, w, dy, **attrs)

    def dw(t, o, a):
        dy, x = o
        attrs = {**a}
        size = (dy.shape[1], x.shape[1] // a["groups"], *attrs.pop("kernel"))
        return as_weight(x, size, dy, **attrs)

    return {name: lambda t, o, a: getattr(F, name)(*o, **a), f"{name}_dx": dx, f"{name}_dw": dw}


def window(a: dict, *names: str) -> list:
    return [a[n] for n in ("kernel", "stride", "padding", *names)]


def pools(rank: int) -> dict:
    """max_pool<rank>d, avg_pool<rank>d and their gradients."""
    spread = getattr(torch.ops.aten, f"avg_pool{rank}d_backward")

    def max_grad(t, o, a):
        dy, i = o
        flat = t.zeros(*dy.shape[:2], np.prod(a["size"]), dtype=dy.dtype)
        return flat.scatter_add(2, i.flatten(2), dy.flatten(2)).unflatten(2, a["size"])

    def avg_grad(t, o, a):
        x = t.zeros(*o[0].shape[:2], *a["size"], dtype=o[0].dtype)
        return spread(o[0], x, *window(a, "ceil_mode", "count_include_pad"), None)

    names = ("dilation", "ceil_mode")
    return {
        f"max_pool{rank}d": lambda t, o, a: getattr(F, f"max_pool{rank}d")(*o, *window(a, *names), return_indices=True),
        f"max_pool{rank}d_grad": max_grad,
        f"avg_pool{rank}d": lambda t, o, a: getattr(F, f"avg_pool{rank}d")(
            *o, *window(a, "ceil_mode", "count_include_pad")
        ),
        f"avg_pool{rank}d_grad": avg_grad,
    }


def patches(a: dict) -> dict:
    """Attributes of unfold and fold in PyTorch's words."""
    names = {"kernel": "kernel_size", "size": "output_size"}
    return {names.get(n, n): v for n, v in a.items()}


def softmax(t, o, a):
    """PyTorch's, with 0 in rows of -inf alone, where it gives NaN."""
    (x,) = o
    empty = (x == -np.inf).all(a["axis"], keepdim=True)
    return t.where(empty, 0.0, t.where(empty, 0.0, x).softmax(a["axis"]))


def batch_norm(t, o, a):
    x, *affine = o
    axes = (0, *range(2, x.ndim))
    y = F.batch_norm(x, None, None, *affine, training=True, eps=a["eps"])
    return y, x.mean(axes), x.var(axes, correction=0)


def batch_norm_inference(t, o, a):
    """By parts: PyTorch has no gradient for the statistics."""
    x, *rest = o
    mean, var, scale, bias = (None if v is None else v.reshape(-1, *(1,) * (x.ndim - 2)) for v in rest)
    y = (x - mean) / t.sqrt(var + a["eps"])
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def group_norm(t, o, a):
    """With a scale of 1 where there is none: PyTorch's gradient fails for a bias alone."""
    x, scale, bias = o
    return F.group_norm(x, a["groups"], t.ones(x.shape[1], dtype=x.dtype) if scale is None else scale, bias, a["eps"])


def norm_grad(norm, size):
    """Gradients of a normalisation of x with a scale and a bias of length `size(x)`, or with a scale alone."""

    def grad(t, o, a):
        dy, x, scale = o
        scale = t.ones(size(x), dtype=x.dtype) if scale is None else scale
        more = () if norm is rms_norm else (t.zeros(size(x), dtype=x.dtype),)
        return gradients(lambda *operands: norm(t, operands, a), dy, x, scale, *more)

    return grad


def layer_norm(t, o, a):
    return F.layer_norm(o[0], o[0].shape[-1:], *o[1:], a["eps"])


def rms_norm(t, o, a):
    return F.rms_norm(o[0], o[0].shape[-1:], *o[1:], a["eps"])


def attention(t, o, a):
    q, k, v, bias = o
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if a["scale"] is None else a["scale"])
    scores = scores if bias is None else scores + bias
    if a["causal"]:
        scores = scores.masked_fill(t.ones(scores.shape[-2:], dtype=t.bool).triu(1), -np.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


NETWORKS = {
    **convolutions(2),
    **convolutions(3),
    **pools(2),
    **pools(3),
    "unfold": lambda t, o, a: F.unfold(*o, **patches(a)),
    "fold": lambda t, o, a: F.fold(*o, **patches(a)),
    "softmax": softmax,
    "log_softmax": lambda t, o, a: t.log_softmax(*o, a["axis"]),
    "softmax_grad": lambda t, o, a: t._softmax_backward_data(*o, a["axis"], o[0].dtype),
    "log_softmax_grad": lambda t, o, a: t._log_softmax_backward_data(*o, a["axis"], o[0].dtype),
    "batch_norm": batch_norm,
    "batch_norm_inference": batch_norm_inference,
    "layer_norm": layer_norm,
    "layer_norm_grad": norm_grad(layer_norm, lambda x: x.shape[-1]),
    "rms_norm": rms_norm,
    "rms_norm_grad": norm_grad(rms_norm, lambda x: x.shape[-1]),
    "group_norm": group_norm,
    "group_norm_grad": norm_grad(group_norm, lambda x: x.shape[1]),
    "attention": attention,
}


def recurrent(cell, count: int):
    """All steps of a network with `count` states by PyTorch's cell, which keeps them past the end of a sequence.

    PyTorch's networks over sequences return the outputs and the last states only, and take no sequence of length 0.
    """

    def run(t, o, a):
        x, *states = o[: count + 1]
        *weights, lengths = o[count + 1 :]
        zeros = t.zeros(x.shape[1], weights[1].shape[1], dtype=x.dtype)
        states = [zeros if s is None else s for s in states]
        found = [None] * len(x)
        for step in reversed(range(len(x))) if a["reverse"] else range(len(x)):
            new = cell(t, x[step], states, weights, a)
            live = t.ones(len(x[step]), dtype=t.bool) if lengths is None else lengths > step
            states = found[step] = [t.where(live[:, None], n, s) for n, s in zip(new, states, strict=True)]
        return tuple(t.stack(rows) for rows in zip(*found, strict=True))

    return run


def gates_left_out(network):
    """With None for the gates, an output that PyTorch has not."""
    return lambda t, o, a: (*network(t, o, a), None)


RECURRENT = {
    "rnn": recurrent(lambda t, x, s, w, a: [getattr(t, f"rnn_{a['activation']}_cell")(x, *s, *w)], 1),
    "gru": gates_left_out(recurrent(lambda t, x, s, w, a: [t.gru_cell(x, *s, *w)], 1)),
    "lstm": gates_left_out(recurrent(lambda t, x, s, w, a: t.lstm_cell(x, s, *w), 2)),
}

TORCH = {**ELEMENTWISE, **ACTIVATIONS, **REDUCTIONS, **SCANS_AND_SORTS, **MOVEMENT, **NETWORKS, **RECURRENT}

RANDOM = "PyTorch draws other numbers"
FUSED = "takes results of the forward pass as operands of their own, as no function of PyTorch does"
ABSENT = {
    **dict.fromkeys(["uniform", "randint", "permutation", "normal", "bernoulli", "dropout", "multinomial"], RANDOM),
    **dict.fromkeys(["attention_grad", "attention_bias_grad", "batch_norm_grad", "cross_entropy_grad"], FUSED),
    **dict.fromkeys(["rnn_grad", "gru_grad", "lstm_grad"], FUSED),
    "cross_entropy_targets": "a part of cross_entropy",
    "scatter": "PyTorch leaves open which of repeated positions wins",
}

LEFT_OUT = {
    "conv2d-6": "PyTorch returns a wrong shape where there are no channels",
    "batch_norm-3": "PyTorch fails where there are no channels",
    "layer_norm-3": "the gradient of a row of one element is 0, PyTorch's 1e-16",
    "layer_norm_grad-3": "the same",
    "embedding_grad-2": "PyTorch has no gradient where there are no ids",
}

own_ops = frozenset(OPS)
"""Before tests define some."""
CASES = [
    pytest.param(OPS[name], s, id=f"{name}-{i}")
    for name in TORCH
    for i, s in enumerate(testing.samples(OPS[name]))
    if f"{name}-{i}" not in LEFT_OUT
]


def reference(op, values: list, attrs: dict):
    """PyTorch's outputs (None for one that it has not), and the operands that require a gradient by position."""
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


def test_every_op_is_compared_or_absent_from_torch():
    assert own_ops == TORCH.keys() ^ ABSENT.keys()


@pytest.mark.parametrize(("op", "s"), CASES)
def test_value_agrees_with_torch(op, s, device):
    values = testing.arrays(op, s)
    got, _ = testing.call(op, values, s.attrs, device)
    expected, _ = reference(op, values, s.attrs)
    for a, b in zip(got, expected, strict=True):
        if b is not None:
            assert_agrees(a, b)


@pytest.mark.parametrize(("op", "s"), [c for c in CASES if c.values[0].vjp is not None])
def test_gradient_agrees_with_torch(op, s, device):
    values = testing.arrays(op, s)
    outputs, operands = testing.call(op, values, s.attrs, device, requires_grad=True)
    expected, inputs = reference(op, values, s.attrs)
    flowing = [i for i, y in enumerate(outputs) if expected[i] is not None and y.requires_grad]
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
