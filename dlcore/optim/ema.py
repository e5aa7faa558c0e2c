"""Exponential moving average of a model's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dlcore import recording
from dlcore.creation import tensor
from dlcore.errors import ArgumentError
from dlcore.nn import parameter
from dlcore.nn.module import Module
from dlcore.ops.elementwise import lerp
from dlcore.tensor import Tensor


class EMA:
    """Running average of parameters, average = decay * average + (1 - decay) * parameter; buffers are copied.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging" (1992).

    >>> ema = EMA(model, 0.999)
    >>> opt.step(); ema.update()
    >>> with ema.swap():
    ...     evaluate(model)
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError(f"EMA: decay must lie in [0, 1); got {decay}")
        self.model, self.decay = model, decay
        self._average = {name: tensor(x, device=x.device) for name, x in model.state_dict().items()}

    @recording.host
    def update(self) -> None:
        """Take the model's present values into the average, which follows the model to its device and dtype."""
        buffers = {id(x._array) for x in self.model.buffers()}
        for name, x in self.model.state_dict().items():
            average = self._average[name]
            parameter.move(average, x.device)
            parameter.cast(average, x.dtype)
            buffer = id(x._array) in buffers
            self._average[name] = tensor(x, device=x.device) if buffer else lerp(average, x, 1 - self.decay)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Give the model the averaged values inside a `with` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        done: set[int] = set()
        for name, x in self.model.state_dict().items():
            if id(x._array) not in done:
                parameter.swap(x, self._average[name])
                done.add(id(x._array))

    def state_dict(self) -> dict[str, Tensor]:
        """Averaged values by path; `model.load_state_dict` takes them too."""
        return {name: x.detach() for name, x in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. Raises ArgumentError when names or shapes differ."""
        fits = state.keys() == self._average.keys() and all(
            tuple(state[name].shape) == x.shape for name, x in self._average.items()
        )
        if not fits:
            raise ArgumentError("EMA: the state has other names or shapes than the model; nothing was loaded")
        for name, x in self._average.items():
            x.assign(state[name])
