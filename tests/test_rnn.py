"""Recurrent networks as users call them: lengths, cells, errors."""

import numpy as np
import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, IndexRangeError, ShapeError

RNG = np.random.default_rng(0)
T, N, I, H = 5, 3, 4, 2  # noqa: E741
LENGTHS = [3, 5, 1]
KINDS = {"rnn": 1, "lstm": 4, "gru": 3}  # blocks of gates


def operands(kind):
    """x, states, w_ih, w_hh and biases as arrays."""
    g = KINDS[kind] * H
    states = [(N, H)] * (2 if kind == "lstm" else 1)
    biases = [(g,)] * (2 if kind == "gru" else 1)
    return [RNG.normal(size=s) for s in [(T, N, I), *states, (g, I), (g, H), *biases]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_has_no_influence(kind, reverse, device):
    arrays = operands(kind)
    whole = [dl.tensor(a, device=device) for a in arrays]
    y, *last = getattr(dl, kind)(*whole, lengths=LENGTHS, reverse=reverse)
    assert not y.numpy()[3:, 0].any()
    short = [dl.tensor(arrays[0][:3, :1], device=device), *whole[1:]]
    count = 2 if kind == "lstm" else 1
    short[1 : count + 1] = [s[:1] for s in whole[1 : count + 1]]
    alone, *alone_last = getattr(dl, kind)(*short, reverse=reverse)
    np.testing.assert_allclose(y.numpy()[:3, :1], alone.numpy(), atol=1e-12)
    for a, b in zip(last, alone_last, strict=True):
        np.testing.assert_allclose(a.numpy()[:1], b.numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_in_a_loop_are_the_sequence(kind, device):
    x, *rest = (dl.tensor(a, device=device) for a in operands(kind))
    count = 2 if kind == "lstm" else 1
    states, weights = tuple(rest[:count]), rest[count:]
    for t in range(T):
        found = getattr(dl, f"{kind}_cell")(x[t], *states, *weights)
        states = found if kind == "lstm" else (found,)
    for a, b in zip(getattr(dl, kind)(x, *rest)[1:], states, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_beyond_the_steps_are_refused(kind):
    with pytest.raises(IndexRangeError, match=rf"{kind}: lengths must lie in \[0, 5\]; got \[6, 1, 1\]"):
        getattr(dl, kind)(*operands(kind), lengths=[6, 1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_is_refused(kind):
    arrays = operands(kind)
    with pytest.raises(ShapeError, match=f"{kind}: x has no time step"):
        getattr(dl, kind)(arrays[0][:0], *arrays[1:])


def test_unknown_activation_is_refused():
    with pytest.raises(ArgumentError, match="rnn: activation must be one of tanh, relu; got 'gelu'"):
        dl.rnn(*operands("rnn"), activation="gelu")
