"""What every module does: registration, state, modes, taps, error paths."""

import copy
import pickle

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn
from dlcore.errors import ArgumentError, DTypeError, GraphError, ShapeError


class Affine(nn.Module):
    """x @ weight + shift: as small as a layer gets."""

    def __init__(self, inputs: int, outputs: int):
        self.weight = nn.Parameter(np.linspace(-1, 1, inputs * outputs, dtype=np.float32).reshape(inputs, outputs))
        self.register_buffer("shift", dl.ones(outputs))

    def forward(self, x):
        return dl.ops.matmul.matmul(x, self.weight) + self.shift


class Net(nn.Module):
    def __init__(self):
        self.features = nn.Sequential(Affine(4, 3), nn.Lambda(dl.Tensor.relu), Affine(3, 3))
        self.heads = [Affine(3, 2), Affine(3, 1)]
        self.scale = nn.Parameter(dl.ones(()))

    def forward(self, x):
        x = self.features(x) * self.scale
        return self.heads[0](x), self.heads[1](x)


def values(model):
    return {name: np.array(x) for name, x in model.state_dict().items()}


def test_attributes_lists_and_children_are_registered():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale", "features.0.weight", "features.2.weight", "heads.0.weight", "heads.1.weight",
    ]  # fmt: skip
    assert [n for n, _ in net.named_buffers()] == [
        f"{p}.shift" for p in ("features.0", "features.2", "heads.0", "heads.1")
    ]
    assert [n for n, _ in net.named_children()] == ["features", "heads.0", "heads.1"]
    assert [n for n, _ in net.named_modules()][:3] == ["", "features", "features.0"]


def test_a_shared_module_counts_once_but_is_saved_under_both_names():
    shared = Affine(2, 2)
    net = nn.Sequential(shared, shared)
    assert len(list(net.parameters())) == 1
    assert len(list(net.buffers())) == 1
    assert sorted(net.state_dict()) == ["0.shift", "0.weight", "1.shift", "1.weight"]


def test_reassigned_and_deleted_attributes_are_forgotten():
    net = Net()
    net.scale = None
    del net.heads
    assert [n for n, _ in net.named_parameters()] == ["features.0.weight", "features.2.weight"]


def test_unsaved_buffers_move_but_are_not_in_the_state():
    net = Affine(2, 2)
    net.register_buffer("cache", dl.zeros(3), persistent=False)
    assert "cache" not in net.state_dict()
    assert [n for n, _ in net.named_buffers()] == ["shift", "cache"]
    with pytest.raises(ArgumentError, match="already has an attribute 'cache'"):
        net.register_buffer("cache", dl.zeros(3))


def test_state_dict_round_trip(tmp_path):
    net, twin = Net(), Net()
    for p in net.parameters():
        p.assign(7.0)
    dl.save(tmp_path / "net.safetensors", net.state_dict())
    twin.load_state_dict(dl.load(tmp_path / "net.safetensors"))
    for name, x in values(net).items():
        np.testing.assert_array_equal(values(twin)[name], x)


def test_a_state_dict_that_does_not_fit_changes_nothing():
    net = Net()
    before = values(net)
    state = {n: x + 1 for n, x in before.items()}
    state["extra"] = state.pop("scale")
    state["heads.1.weight"] = np.zeros((3, 2))
    with pytest.raises(ArgumentError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "load_state_dict: missing scale; unexpected extra; heads.1.weight has shape (3, 2), expected (3, 1); "
        "nothing was loaded"
    )
    for name, x in before.items():
        np.testing.assert_array_equal(values(net)[name], x)


def test_a_state_dict_may_hold_nested_lists():
    net = Affine(1, 2)
    net.load_state_dict({"weight": [[3.0, 4.0]], "shift": [0, 1]})
    np.testing.assert_array_equal(net.weight, [[3, 4]])
    with pytest.raises(ArgumentError, match=r"weight has shape \(2,\), expected \(1, 2\)"):
        net.load_state_dict({"weight": [3.0, 4.0], "shift": [0, 1]})


def test_a_partial_state_dict_loads_when_not_strict():
    net = Net()
    report = net.load_state_dict({"scale": np.float32(3), "other": np.zeros(2)}, strict=False)
    assert net.scale.item() == 3
    assert report.unexpected == ["other"]
    assert len(report.missing) == 8


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(not m.training for m in net.eval().modules())
    assert all(m.training for m in net.train().modules())


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("features.*", {"features.0.weight", "features.2.weight"}),
        ("features", {"features.0.weight", "features.2.weight"}),
        ("heads.1", {"heads.1.weight"}),
        ("*.0.weight", {"features.0.weight", "heads.0.weight"}),
        ("*", {"features.0.weight", "features.2.weight", "heads.0.weight", "heads.1.weight", "scale"}),
    ],
)
def test_freeze_by_glob(pattern, frozen):
    net = Net().freeze(pattern)
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == frozen
    assert all(p.requires_grad for p in net.unfreeze(pattern).parameters())


def test_frozen_parameters_get_no_gradient():
    net = Net().freeze("features")
    sum(net(dl.ones((2, 4)))[0].sum() for _ in range(1)).backward()
    assert {n for n, p in net.named_parameters() if p.grad is not None} == {"heads.0.weight", "scale"}
    assert net.freeze("heads").heads[0].weight.grad is None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_freezing_nothing_is_an_error():
    with pytest.raises(ArgumentError, match="no parameter of Net matches 'backbone"):
        Net().freeze("backbone.*")


def test_taps_keep_the_outputs_of_every_call():
    net = Net()
    x = dl.ones((2, 4))
    with net.tap("features.*", "heads.1") as t:
        net(x)
        net(x * 2)
    assert sorted(t) == ["features.0", "features.1", "features.2", "heads.1"]
    assert len(t["features.1"]) == 2
    np.testing.assert_array_equal(t["features.1"][1], np.maximum(np.array(t["features.0"][1]), 0))
    net(x)
    assert len(t["features.1"]) == 2
    assert "forward" not in vars(net.features[0])


def test_a_tap_that_matches_nothing_is_an_error():
    with (
        pytest.raises(ArgumentError, match=r"tap: no module matches 'feature\.\*'; modules are features, "),
        Net().tap("feature.*"),
    ):
        pass


def test_summary_has_shapes_parameters_and_flops():
    table = Net().summary((2, 4))
    rows = {row.path: row for row in table}
    assert rows["features.0"].output == "(2, 3)"
    assert rows["features.0"].parameters == 12
    assert rows["features.0"].flops == 2 * 2 * 4 * 3 + 2 * 3
    assert rows[""].output == "(2, 2), (2, 1)"
    assert table.parameters == 1 + 12 + 9 + 6 + 3
    assert table.flops == sum(row.flops for row in table)
    assert "features.2  Affine" in str(table)


def test_summary_leaves_the_mode_as_it_was():
    net = Net()
    net.heads[0].eval()
    net.summary((2, 4))
    assert net.training
    assert not net.heads[0].training


def test_errors_name_the_module():
    net = nn.Sequential({"encoder": Net(), "rest": nn.Identity()})
    with pytest.raises(ShapeError, match=r"^encoder\.features\.0: matmul: expected .*got "):
        net(dl.ones((2, 5)))
    net.encoder.heads[1] = Affine(7, 1)
    with pytest.raises(ShapeError, match=r"^encoder\.heads\.1: matmul: "):
        net(dl.ones((2, 4)))


def test_errors_below_modules_that_are_not_called_name_the_whole_path():
    class Outer(nn.Module):
        def __init__(self):
            self.blocks = nn.ModuleDict({"a": nn.ModuleList([Affine(2, 2), Affine(3, 3)])})

        def forward(self, x):
            return self.blocks["a"][1](x)

    with pytest.raises(ShapeError, match=r"^blocks\.a\.1: matmul: "):
        Outer()(dl.ones((1, 2)))


def test_deepcopy_is_independent_and_keeps_sharing():
    shared = Affine(2, 2)
    twin = copy.deepcopy(nn.Sequential(shared, shared))
    assert twin[0] is twin[1]
    assert isinstance(twin[0].weight, nn.Parameter)
    twin[0].weight.assign(9.0)
    assert shared.weight.numpy().max() == 1


def test_modules_are_not_pickled():
    with pytest.raises(DTypeError, match="state_dict"):
        pickle.dumps(Net())


def test_repr_is_a_tree():
    assert repr(nn.Sequential(nn.Identity(), nn.Residual(nn.Identity()))) == (
        "Sequential(\n  (0): Identity()\n  (1): Residual(\n    (body): Identity()\n  )\n)"
    )


def test_sequential_slices_share_their_modules():
    net = nn.Sequential(Affine(2, 3), nn.Identity(), Affine(3, 1))
    assert net[1:][1] is net[2]
    assert len(net[:2]) == 2
    assert net[-1] is net[2]
    net[1] = Affine(3, 3)
    assert net(dl.ones((1, 2))).shape == (1, 1)
    net.append(nn.Identity())
    assert [n for n, _ in net.named_children()] == ["0", "1", "2", "3"]


def test_containers_take_only_modules():
    with pytest.raises(ArgumentError, match="Sequential: 1 must be a module; got a function"):
        nn.Sequential(nn.Identity(), lambda x: x)
    with pytest.raises(ArgumentError, match="cannot be called 'keys'"):
        nn.ModuleDict({"keys": nn.Identity()})


def test_residual_adds():
    np.testing.assert_array_equal(nn.Residual(nn.Identity())(dl.ones(3)), [2, 2, 2])
    np.testing.assert_array_equal(nn.Residual(nn.Identity(), nn.Lambda(lambda x: x * 3))(dl.ones(2)), [4, 4])


def test_to_and_astype_keep_the_parameter_objects():
    net = Affine(2, 2)
    weight = net.weight
    weight.grad = dl.ones((2, 2))
    net.to("numpy").astype("float64")
    assert net.weight is weight
    assert (weight.dtype, weight.device, net.shift.dtype) == (np.float64, "numpy", np.float64)
    assert (weight.grad.dtype, weight.grad.device) == (np.float64, "numpy")


def test_astype_counts_as_overwriting():
    net = Affine(2, 2)
    y = net(dl.tensor(np.ones((1, 2), np.float32), requires_grad=True))
    net.astype("float64")
    with pytest.raises(GraphError, match="overwritten"):
        y.sum().backward()


def test_apply_visits_children_first():
    seen = []
    nn.Sequential(nn.Identity(), nn.Residual(nn.Identity())).apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Identity", "Identity", "Residual", "Sequential"]


def test_parameters_of_ints_are_refused():
    with pytest.raises(DTypeError, match="only floating-point"):
        nn.Parameter(np.arange(3))


def test_ops_see_the_new_dtype_of_a_parameter_that_was_used_before():
    layer = nn.Linear(3, 2)
    dl.tan(layer.weight)
    layer.astype("float64")
    assert dl.tan(layer.weight).dtype == np.float64
