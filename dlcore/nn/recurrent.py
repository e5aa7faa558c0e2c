"""Recurrent layers over whole sequences, and their cells for one step.

All weights start uniform in +-1 / sqrt(hidden_size). RNN and LSTM have one bias where PyTorch has two that are only
ever added: `summed_biases` converts its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dlcore.creation import asarray
from dlcore.errors import ArgumentError, ShapeError
from dlcore.nn.init import fan_in_parameter
from dlcore.nn.module import Module
from dlcore.ops import gru, lstm, rnn
from dlcore.ops.join import concat, stack
from dlcore.ops.random import dropout
from dlcore.tensor import Tensor

State = Any  # h, or (h, c) for an LSTM


class _Weights(Module):
    """What layers and cells share: weights `[gates * H, I]`, `[gates * H, H]` and biases `[gates * H]`."""

    op_name: str
    gates: int
    biases: tuple[str, ...] = ("bias",)
    states = 1
    hidden_size: int

    def _add_weights(self, suffix: str, inputs: int, bias: bool) -> None:
        rows, hidden = self.gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, hidden)}
        shapes |= {name: (rows,) for name in self.biases if bias}
        for name, shape in shapes.items():
            setattr(self, name + suffix, fan_in_parameter(shape, hidden))

    def _weights(self, suffix: str) -> list[Tensor | None]:
        return [vars(self).get(name + suffix) for name in ("weight_ih", "weight_hh", *self.biases)]

    def _forget(self, suffix: str, value: float | None) -> None:
        bias = vars(self).get(f"bias{suffix}")
        if value is not None:
            if bias is None:
                raise ArgumentError(f"{type(self).__name__}: forget_bias needs bias=True")
            bias.storage()[self.hidden_size : 2 * self.hidden_size] = value

    def _given(self, state: State, shape: tuple[int, ...]) -> list[Tensor | None]:
        """The states as a list; None for zeros."""
        if state is None:
            return [None] * self.states
        given = list(state) if self.states > 1 and isinstance(state, (tuple, list)) else [state]
        if len(given) != self.states or any(s.shape != shape for s in given):
            shapes = [tuple(s.shape) for s in given]
            raise ShapeError(f"{self.op_name}: expected {self.states} state(s) of shape {shape}; got {shapes}")
        return given


class Recurrent(_Weights):
    """Base of RNN, GRU and LSTM: `num_layers` layers, each in one or both directions.

    Parameters are called as in PyTorch: `weight_ih_l0`, `weight_hh_l0`, ..., with `_reverse` for the second direction.
    batch_first: sequences are `[N, T, I]`, not `[T, N, I]`. dropout: between layers, in training.
    """

    op: Callable[..., Any]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.settings = batch_first, dropout, settings
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer, suffix in self._suffixes():
            self._add_weights(suffix, input_size if layer == 0 else hidden_size * len(self.directions), bias)

    def _suffixes(self) -> Iterator[tuple[int, str]]:
        return ((k, f"_l{k}{direction}") for k in range(self.num_layers) for direction in self.directions)

    def forward(self, x: Tensor, state: State = None, lengths: Any = None) -> tuple[Tensor, State]:
        """`x[T, N, I]` gives `(y[T, N, D * H], state)`, D the number of directions.

        state: `h[layers * D, N, H]`, for an LSTM the pair `(h, c)`; None for zeros. The returned one is the final one.
        lengths: `[N]`, the steps of each sequence; past them y is 0.
        """
        if x.ndim != 3:
            raise ShapeError(f"{self.op_name}: expected x[T,N,I]; got x{list(x.shape)}")
        y = x.permute(1, 0, 2) if self.batch_first else x
        count = self.num_layers * len(self.directions)
        states = self._given(state, (count, y.shape[1], self.hidden_size))
        finals: list[Sequence[Tensor]] = []
        for layer in range(self.num_layers):
            if layer:
                y = dropout(y, self.dropout, self.training)
            y = self._layer(layer, y, states, lengths, finals)
        last = tuple(stack(found) for found in zip(*finals, strict=True))
        return (y.permute(1, 0, 2) if self.batch_first else y), (last if self.states > 1 else last[0])

    def _layer(
        self, layer: int, x: Tensor, states: list[Tensor | None], lengths: Any, finals: list[Sequence[Tensor]]
    ) -> Tensor:
        """Output of one layer; appends the final states of its directions."""
        outputs = []
        for direction in self.directions:
            weights = self._weights(f"_l{layer}{direction}")
            start = [None if s is None else s[len(finals)] for s in states]
            y, *final = type(self).op(x, *start, *weights, lengths=lengths, reverse=direction != "", **self.settings)
            outputs.append(y)
            finals.append(final)
        return outputs[0] if len(outputs) == 1 else concat(outputs, axis=2)

    def extra_repr(self) -> str:
        """Sizes and options."""
        options = {"num_layers": self.num_layers, "batch_first": self.batch_first, "dropout": self.dropout}
        options["bidirectional"] = len(self.directions) > 1
        given = [f", {k}={v}" for k, v in options.items() if v and (k, v) != ("num_layers", 1)]
        return f"{self.input_size}, {self.hidden_size}" + "".join(given)


class RNN(Recurrent):
    """Plain recurrent network, h_t = activation(W x_t + U h_(t-1) + b); see `Recurrent` and `dl.rnn`.

    activation: "tanh" or "relu".
    """

    op_name, gates, op = "rnn", 1, staticmethod(rnn.rnn)

    def __init__(self, *sizes: Any, activation: str = "tanh", **options: Any) -> None:
        super().__init__(*sizes, activation=activation, **options)


class GRU(Recurrent):
    """Gated recurrent units; see `Recurrent` and `dl.gru`.

    >>> y, h = GRU(8, 16, num_layers=2)(dl.zeros((5, 3, 8)))
    """

    op_name, gates, biases, op = "gru", 3, ("bias_ih", "bias_hh"), staticmethod(gru.gru)


class LSTM(Recurrent):
    """Long short-term memory, gates in the order i, f, g, o; see `Recurrent` and `dl.lstm`.

    forget_bias: the bias of the forget gates at the start; 1 helps long memories (Jozefowicz et al., 2015).

    >>> y, (h, c) = LSTM(8, 16, bidirectional=True)(dl.zeros((5, 3, 8)))
    """

    op_name, gates, states, op = "lstm", 4, 2, staticmethod(lstm.lstm)

    def __init__(self, *sizes: Any, forget_bias: float | None = None, **options: Any) -> None:
        super().__init__(*sizes, **options)
        for _, suffix in self._suffixes():
            self._forget(suffix, forget_bias)


class _Cell(_Weights):
    op: Callable[..., Any]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **settings: Any) -> None:
        self.input_size, self.hidden_size, self.settings = input_size, hidden_size, settings
        self._add_weights("", input_size, bias)

    def forward(self, x: Tensor, state: State = None) -> State:
        """The new state for `x[N, I]` and a state of `[N, H]` (None for zeros)."""
        if x.ndim != 2:
            raise ShapeError(f"{self.op_name}: expected x[N,I]; got x{list(x.shape)}")
        states = self._given(state, (x.shape[0], self.hidden_size))
        return type(self).op(x, *states, *self._weights(""), **self.settings)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(_Cell):
    """One step of `RNN`."""

    op_name, gates, op = "rnn_cell", 1, staticmethod(rnn.rnn_cell)

    def __init__(self, *sizes: Any, activation: str = "tanh", **options: Any) -> None:
        super().__init__(*sizes, activation=activation, **options)


class GRUCell(_Cell):
    """One step of `GRU`."""

    op_name, gates, biases, op = "gru_cell", 3, ("bias_ih", "bias_hh"), staticmethod(gru.gru_cell)


class LSTMCell(_Cell):
    """One step of `LSTM`; the state is the pair (h, c)."""

    op_name, gates, states, op = "lstm_cell", 4, 2, staticmethod(lstm.lstm_cell)

    def __init__(self, *sizes: Any, forget_bias: float | None = None, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self._forget("", forget_bias)


def summed_biases(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict in which each pair `bias_ih*` and `bias_hh*` is replaced by its sum `bias*`.

    For weights of an LSTM or RNN with two biases; other entries stay.

    >>> model.load_state_dict(summed_biases(state))
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        path, _, last = name.rpartition(".")
        if last.startswith("bias_ih"):
            other = f"{path}{'.' if path else ''}{last.replace('_ih', '_hh', 1)}"
            found[name.replace("bias_ih", "bias")] = asarray(value) + asarray(state[other])
        elif not last.startswith("bias_hh"):
            found[name] = asarray(value)
    return found
