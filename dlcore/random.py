"""State of the counter-based random generator.

Every random op draws a key (seed, stream); its numbers depend on the key and the element's index alone, so they are the
same on every backend and for any number of threads. `manual_seed` sets the seed and starts the streams at 0.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dlcore.errors import ArgumentError

_lock = threading.Lock()
_state = [0, 0]


def manual_seed(seed: int) -> None:
    """Start the random streams anew. `seed` is an int in [0, 2**63)."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(f"manual_seed: expected an int in [0, 2**63); got {seed!r}")
    set_state((seed, 0))


def next_key() -> tuple[int, int]:
    """Take the next (seed, stream)."""
    with _lock:
        key = (_state[0], _state[1])
        _state[1] += 1
    return key


def state() -> tuple[int, int]:
    """The generator's state: (seed, next stream)."""
    return _state[0], _state[1]


def set_state(value: tuple[int, int]) -> None:
    """Put the generator back to a state that `state` returned."""
    with _lock:
        _state[:] = [int(value[0]), int(value[1])]


@contextmanager
def preserved_state(value: tuple[int, int]) -> Iterator[None]:
    """Run a `with` block from state `value`, then go on as if it had not happened."""
    before = state()
    set_state(value)
    try:
        yield
    finally:
        set_state(before)
