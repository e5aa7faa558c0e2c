"""Typical mistakes: each gives one clear line that names the op, and the next op works."""

import copy
import pickle

import numpy as np
import pytest

import dlcore as dl
from dlcore import errors, nn, optim
from dlcore.data import ArrayDataset, DataLoader


def z(*shape, **kw):
    return dl.zeros(shape, **kw)


def ids(*values):
    return dl.tensor(list(values), dtype="int64")


def leaf(*shape):
    return dl.ones(shape).detach(requires_grad=True)


def encoder(inner):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Identity(), inner)

        def forward(self, x):
            return self.layers(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def forward(self, x):
            return self.encoder(x)

    return Model()


def backward_twice():
    loss = (leaf(2) * leaf(2)).sum()
    loss.backward()
    loss.backward()


def overwritten():
    w = leaf(2)
    loss = (w * w).sum()
    w.assign(0.0)
    loss.backward()


def two_devices():
    return dl.ones(2, device="numpy") + dl.ones(2, device="cpu")


MISTAKES = [
    # shapes
    ("matmul sizes", lambda: z(2, 3) @ z(4, 5), errors.ShapeError, r"matmul: expected .* \(K: 3 vs 4\)"),
    ("no broadcast", lambda: z(2, 3) + z(4), errors.ShapeError, r"add: expected .*do not broadcast"),
    ("conv channels", lambda: dl.conv2d(z(2, 3, 7, 5), z(4, 2, 3, 3)), errors.ShapeError, r"conv2d: .*3 vs 2"),
    ("conv rank", lambda: dl.conv2d(z(3, 7, 5), z(4, 3, 3, 3)), errors.ShapeError, r"conv2d: x must have 4 dimensions"),
    ("conv kernel too large", lambda: dl.conv2d(z(1, 1, 2, 2), z(1, 1, 3, 3)), errors.DlcoreError, r"conv2d: "),
    ("conv groups", lambda: dl.conv2d(z(1, 3, 5, 5), z(4, 1, 3, 3), groups=2), errors.DlcoreError, r"conv2d: "),
    ("conv bias", lambda: dl.conv2d(z(1, 1, 5, 5), z(4, 1, 3, 3), z(3)), errors.ShapeError, r"conv2d: .*O: 4 vs 3"),
    ("pool too large", lambda: dl.max_pool2d(z(1, 1, 2, 2), 3), errors.DlcoreError, r"max_pool2d: "),
    ("linear features", lambda: dl.linear(z(2, 3), z(4, 5)), errors.ShapeError, r"linear: .*I: 3 vs 5"),
    ("linear in a module", lambda: encoder(nn.Linear(3, 4))(z(2, 5)), errors.ShapeError, r"encoder\.layers\.1: linear: "),
    ("lstm in a module", lambda: encoder(nn.LSTM(3, 4))(z(7, 2, 5)), errors.ShapeError, r"encoder\.layers\.1: lstm: "),
    ("conv in a module", lambda: encoder(nn.Conv2d(3, 4, 3))(z(1, 2, 8, 8)), errors.ShapeError, r"encoder\.layers\.1: conv2d"),
    ("batch norm channels", lambda: nn.BatchNorm2d(3)(z(2, 4, 5, 5)), errors.ShapeError, r"batch_norm"),
    ("layer norm size", lambda: nn.LayerNorm(3)(z(2, 4)), errors.ShapeError, r"layer_norm: "),
    ("attention sizes", lambda: dl.scaled_dot_product_attention(z(1, 2, 5, 4), z(1, 2, 5, 3), z(1, 2, 5, 3)), errors.ShapeError, r"attention"),
    ("reshape", lambda: z(2, 3).reshape(4, 2), errors.ShapeError, r"reshape: cannot turn shape \(2, 3\)"),
    ("concat", lambda: dl.concat([z(2, 3), z(2, 4)]), errors.ShapeError, r"concat: "),
    ("concat of nothing", lambda: dl.concat([]), errors.DlcoreError, r"concat: "),
    ("stack", lambda: dl.stack([z(2), z(3)]), errors.ShapeError, r"stack: "),
    ("split", lambda: dl.split(z(5), 0), errors.DlcoreError, r"split: "),
    ("broadcast_to", lambda: dl.broadcast_to(z(3), shape=(2, 4)), errors.ShapeError, r"broadcast_to: "),
    ("permute", lambda: z(2, 3).permute(0, 0), errors.DlcoreError, r"permute_dims: "),
    ("einsum size", lambda: dl.einsum("ij,jk->ik", z(2, 3), z(4, 5)), errors.ShapeError, r"einsum: "),
    ("einsum text", lambda: dl.einsum("ij,jk->iz", z(2, 3), z(3, 5)), errors.DlcoreError, r"einsum: "),
    ("ragged list", lambda: dl.tensor([[1.0, 2.0], [3.0]]), errors.ShapeError, r"unequal lengths"),
    ("half a size", lambda: nn.Linear(2.5, 3), errors.ShapeError, r"full: sizes must be ints; got \(3, 2\.5\)"),
    ("negative size", lambda: dl.zeros((2, -1)), errors.ShapeError, r"negative size"),
    ("T of a cube", lambda: z(2, 3, 4).T, errors.ShapeError, r"T is for matrices"),
    ("item of a vector", lambda: z(3).item(), errors.ShapeError, r"item\(\) needs one element"),
    ("mask shape", lambda: z(3)[dl.tensor([True, False])], errors.ShapeError, r"mask of shape"),
    ("loss shapes", lambda: nn.mse_loss(z(4, 1), z(4)), errors.ShapeError, r"mse"),
    ("labels count", lambda: nn.cross_entropy(z(4, 3), ids(0, 1)), errors.ShapeError, r"cross_entropy: .*N: 4 vs 2"),
    # dtypes
    ("dtype name", lambda: dl.zeros(2, "flaot32"), errors.DTypeError, r"unknown dtype 'flaot32'"),
    ("complex data", lambda: dl.tensor(np.ones(2, complex)), errors.DTypeError, r"complex128"),
    ("text data", lambda: dl.tensor(["a"]), errors.DTypeError, r"cannot make a tensor of"),
    ("an operand that is no number", lambda: z(2) + {}, errors.DTypeError, r"add: cannot take a builtins\.dict"),
    ("float ids", lambda: dl.embedding(z(2), z(5, 3)), errors.DTypeError, r"embedding: .*int"),
    ("float labels", lambda: nn.cross_entropy(z(2, 3), z(2)), errors.DlcoreError, r"cross_entropy: "),
    ("float index", lambda: z(3)[dl.tensor([0.5])], errors.DTypeError, r"cannot index with float32"),
    ("gradient of ints", lambda: dl.tensor([1], requires_grad=True), errors.DTypeError, r"only floating-point"),
    ("pickle", lambda: pickle.dumps(z(2)), errors.DTypeError, r"dl\.save"),
    ("calling Tensor()", lambda: dl.Tensor(), errors.DTypeError, r"dl\.tensor"),
    # devices
    ("unknown backend", lambda: dl.zeros(2, device="tpu"), errors.BackendError, r"unknown backend 'tpu'"),
    ("no GPU", lambda: dl.zeros(2, device="cuda"), errors.BackendError, r"backend cuda"),
    ("two devices", two_devices, errors.DlcoreError, r"add: operands live on different devices|backend cpu"),
    # axes, indices, labels
    ("axis", lambda: z(2, 3).sum(axis=2), errors.IndexRangeError, r"sum: axis 2 is out of range for 2 dim"),
    ("axis twice", lambda: z(2, 3).sum(axis=(0, -2)), errors.IndexRangeError, r"sum: axis .* twice"),
    ("softmax axis", lambda: dl.softmax(z(2, 3), axis=5), errors.IndexRangeError, r"softmax: axis 5"),
    ("index", lambda: z(3)[3], errors.IndexRangeError, r"index 3 is out of range for axis 0 of size 3"),
    ("index array", lambda: z(3)[[0, -4]], errors.IndexRangeError, r"index -4 is out of range"),
    ("too many indices", lambda: z(3)[0, 0], errors.IndexRangeError, r"2 indices for 1 dim"),
    ("label", lambda: nn.cross_entropy(z(2, 3), ids(0, 3)), errors.IndexRangeError, r"cross_entropy: label 3 .*3 classes"),
    ("embedding id", lambda: dl.embedding(ids(5), z(5, 3)), errors.IndexRangeError, r"embedding: .*5"),
    ("take", lambda: dl.take(z(3), ids(7)), errors.IndexRangeError, r"take: .*7"),
    ("topk", lambda: dl.topk(z(3), 4), errors.DlcoreError, r"topk: "),
    # values
    ("NaN target", lambda: nn.mse_loss(z(2), dl.tensor([0.0, float("nan")])), errors.ArgumentError, r"NaN"),
    ("empty batch", lambda: nn.cross_entropy(z(0, 3), dl.zeros(0, "int64")), errors.DlcoreError, r"cross_entropy: .*empty"),
    ("reduction", lambda: nn.mse_loss(z(2), z(2), reduction="avg"), errors.ArgumentError, r"'avg'"),
    ("stride", lambda: dl.conv2d(z(1, 1, 5, 5), z(1, 1, 3, 3), stride=0), errors.ArgumentError, r"conv2d: .*stride"),
    ("padding", lambda: dl.conv2d(z(1, 1, 5, 5), z(1, 1, 3, 3), padding=-1), errors.ArgumentError, r"conv2d: .*padding"),
    ("dropout", lambda: dl.dropout(z(2), 1.5, training=True), errors.ArgumentError, r"dropout: .* got 1\.5"),
    ("activation", lambda: dl.linear(z(2, 3), z(4, 3), activation="rleu"), errors.ArgumentError, r"linear: .*'rleu'"),
    ("seed", lambda: dl.manual_seed(-1), errors.ArgumentError, r"manual_seed"),
    ("max of nothing", lambda: z(0).max(), errors.ShapeError, r"max: "),
    ("unknown attribute", lambda: dl.ops.reduce.sum(z(2), axes=0), errors.ArgumentError, r"sum: unknown attribute 'axes'"),
    # graph
    ("no graph", lambda: z(1).backward(), errors.GraphError, r"backward: .*requires a gradient"),
    ("backward twice", backward_twice, errors.GraphError, r"retain_graph=True"),
    ("backward of a vector", lambda: (leaf(3) * 2).backward(), errors.GraphError, r"only a scalar .*\(3,\)"),
    ("overwritten", overwritten, errors.GraphError, r"multiply: operand .* was overwritten"),
    ("writing by index", lambda: z(3).__setitem__(0, 1), errors.GraphError, r"not written by index"),
    ("assign to a result", lambda: (leaf(2) * 2).assign(1.0), errors.GraphError, r"only leaf"),
    ("assign shape", lambda: z(2).assign(z(3)), errors.ShapeError, r"assign: cannot write"),
    ("deepcopy of a result", lambda: copy.deepcopy(leaf(2) * 2), errors.GraphError, r"detach"),
    # layers, optimizers, data
    ("state names", lambda: nn.Linear(2, 3).load_state_dict({"wieght": z(3, 2)}), errors.DlcoreError, r"wieght"),
    ("state shapes", lambda: nn.Linear(2, 3).load_state_dict({"weight": z(3, 3), "bias": z(3)}), errors.DlcoreError, r"weight"),
    ("freeze nothing", lambda: nn.Linear(2, 3).freeze("conv.*"), errors.DlcoreError, r"conv\.\*"),
    ("no parameters", lambda: optim.SGD([], lr=0.1), errors.DlcoreError, r"SGD"),
    ("negative lr", lambda: optim.Adam(nn.Linear(2, 3).parameters(), lr=-1.0), errors.DlcoreError, r"lr"),
    ("batch size", lambda: DataLoader(ArrayDataset(np.zeros(3)), batch_size=0), errors.DlcoreError, r"batch_size"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), [pytest.param(*m[1:], id=m[0]) for m in MISTAKES])
def test_a_mistake_gives_one_clear_line_and_leaves_everything_usable(mistake, error, message, device):
    with dl.device(device):
        with pytest.raises(error, match=message) as caught:  # what a GPU finds is raised when the host waits for it
            (mistake(), dl.default_backend().synchronize())
        text = str(caught.value)
        assert "\n" not in text
        assert len(text) < 300
        assert isinstance(caught.value, errors.DlcoreError)
        assert (dl.ones(2) + 1).tolist() == [2, 2]


def test_there_are_at_least_sixty():
    assert len(MISTAKES) >= 60
    assert len({m[0] for m in MISTAKES}) == len(MISTAKES)
