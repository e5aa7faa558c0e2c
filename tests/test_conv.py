"""What users call for convolutions: attributes in every form, 1-d and transposed ones, errors."""

import itertools

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import OPS

RNG = np.random.default_rng(0)
SPATIAL = {1: (9,), 2: (7, 6), 3: (5, 5, 6)}


def compared(torch, ours, theirs, *shapes):
    """Values and gradients of both sides for the same random operands."""
    arrays = [RNG.normal(size=s) for s in shapes]
    a = [dl.tensor(v, requires_grad=True) for v in arrays]
    b = [torch.tensor(v, requires_grad=True) for v in arrays]
    y, z = ours(*a), theirs(*b)
    assert y.shape == tuple(z.shape)
    g = RNG.normal(size=y.shape)
    y.backward(dl.tensor(g))
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-12)
    for ours_, theirs_ in zip(a, b, strict=True):
        np.testing.assert_allclose(ours_.grad.numpy(), theirs_.grad.numpy(), atol=1e-12)


GEOMETRY = list(itertools.product([1, 2], [0, 1, "same", "valid"], [1, 2], [1, 2]))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GEOMETRY)
def test_conv_agrees_with_torch(rank, stride, padding, dilation, groups):
    if padding == "same" and stride != 1:
        pytest.skip("PyTorch refuses it too")
    torch = pytest.importorskip("torch")
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    theirs = getattr(torch.nn.functional, f"conv{rank}d")
    shapes = (2, 4, *SPATIAL[rank]), (6, 4 // groups, *(2, 3, 2)[:rank]), (6,)
    compared(torch, lambda *a: getattr(dl, f"conv{rank}d")(*a, **attrs), lambda *a: theirs(*a, **attrs), *shapes)


@pytest.mark.torch
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "extra", "dilation"), [(1, 0, 0, 1), (2, 1, 1, 1), (3, 2, 2, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_conv_agrees_with_torch(rank, stride, padding, extra, dilation, groups):
    torch = pytest.importorskip("torch")
    attrs = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}
    theirs = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    shapes = (2, 4, *(3, 4, 2)[:rank]), (4, 6 // groups, *(3, 2, 3)[:rank]), (6,)
    ours = getattr(dl, f"conv_transpose{rank}d")
    compared(torch, lambda *a: ours(*a, **attrs), lambda *a: theirs(*a, **attrs), *shapes)


def test_attributes_per_axis():
    x, w = dl.ones((1, 1, 5, 7)), dl.ones((1, 1, 2, 3))
    assert dl.conv2d(x, w, stride=[2, 3], padding=(1, 0)).shape == (1, 1, 3, 2)


def test_channel_mismatch_names_both_sizes():
    with pytest.raises(ShapeError) as caught:
        dl.conv2d(dl.ones((2, 3, 7, 5)), dl.ones((4, 2, 3, 3)))
    assert str(caught.value) == ("conv2d: expected x[N,C,H,W] w[O,C,KH,KW]; got x[2,3,7,5] w[4,2,3,3] (C: 3 vs 2)")


def test_group_mismatch_names_the_groups():
    with pytest.raises(ShapeError, match=r"w\[O,C/groups,KH,KW\]; got .* \(C: 3 vs 2\*2\)"):
        dl.conv2d(dl.ones((2, 3, 7, 5)), dl.ones((4, 2, 3, 3)), groups=2)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"stride": 0}, "conv2d: stride must be 2 ints of at least 1"),
        ({"padding": -1}, "conv2d: padding must be 2 ints of at least 0"),
        ({"padding": "full"}, "conv2d: padding must be an int"),
        ({"dilation": (1, 2, 3)}, "conv2d: dilation must be an int or 2 of them"),
        ({"groups": 3}, "conv2d: 4 output channels do not split into 3 groups"),
        ({"padding": "same", "stride": 2}, 'conv2d: padding="same" needs stride 1'),
    ],
)
def test_bad_attribute_gives_one_clear_line(attrs, message):
    with pytest.raises(ArgumentError, match=message):
        dl.conv2d(dl.ones((1, 3, 5, 5)), dl.ones((4, 3, 3, 3)), **attrs)


def test_kernel_longer_than_the_input_is_refused():
    with pytest.raises(ShapeError, match=r"conv2d: a kernel of 3 .dilation 2. is longer than an axis of 4 padded by 0"):
        dl.conv2d(dl.ones((1, 1, 4, 4)), dl.ones((1, 1, 3, 3)), dilation=2)


def test_wrong_rank_is_refused():
    with pytest.raises(ShapeError, match=r"conv1d: x must have 3 dimensions; got shape \(4, 4\)"):
        dl.conv1d(dl.ones((4, 4)), dl.ones((1, 1, 3)))


def test_output_padding_beyond_stride_is_refused():
    with pytest.raises(ArgumentError, match="conv_transpose2d: output_padding must be less than stride"):
        dl.conv_transpose2d(dl.ones((1, 1, 4, 4)), dl.ones((1, 1, 3, 3)), output_padding=1)


def test_dx_refuses_sizes_that_do_not_give_dy():
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    with pytest.raises(ShapeError, match=r"conv2d_dx: these sizes give dy\[N,O,3,3\]; got \(2, 2\)"):
        OPS["conv2d_dx"](dl.ones((1, 1, 2, 2)), dl.ones((1, 1, 2, 2)), size=(4, 4), **plain)
