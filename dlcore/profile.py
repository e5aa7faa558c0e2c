"""Time, FLOP and bytes of every op in a `with` block.

>>> with profile() as p:
...     loss = nn.cross_entropy(model(x), y); loss.backward()
>>> print(p)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dlcore.dispatch import Event, listening


@dataclass
class Row:
    """Totals of one op and variant."""

    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    nbytes: int = 0

    def add(self, event: Event) -> None:
        """Count one executed op."""
        self.calls += 1
        self.seconds += event.seconds
        self.flops += event.op.flops(event.plan.dims) if event.op.flops else 0
        self.nbytes += sum(getattr(a, "nbytes", 0) for a in (*event.arrays, *event.outputs))


@dataclass
class Profile:
    """Rows by (op, variant); printing shows them, slowest first."""

    rows: dict[tuple[str, str], Row] = field(default_factory=lambda: defaultdict(Row))

    def record(self, event: Event) -> None:
        """Count one executed op; a listener of `dispatch.listening`."""
        self.rows[event.op.name, event.plan.variant].add(event)

    @property
    def seconds(self) -> float:
        """Time inside ops."""
        return sum(row.seconds for row in self.rows.values())

    @property
    def flops(self) -> int:
        """Floating point operations by the ops' formulas."""
        return sum(row.flops for row in self.rows.values())

    def __str__(self) -> str:
        lines = [f"{'op':24}{'variant':12}{'calls':>7}{'ms':>10}{'%':>6}{'GFLOP/s':>9}{'GB/s':>8}"]
        for (op, variant), row in sorted(self.rows.items(), key=lambda item: -item[1].seconds):
            share, rate = 100 * row.seconds / (self.seconds or 1), 1e-9 / (row.seconds or 1)
            lines.append(
                f"{op:24}{variant:12}{row.calls:7}{1e3 * row.seconds:10.3f}{share:6.1f}"
                f"{rate * row.flops:9.1f}{rate * row.nbytes:8.1f}"
            )
        return "\n".join(lines)


@contextmanager
def profile() -> Iterator[Profile]:
    """Collect a `Profile` of the ops that run inside the `with` block."""
    found = Profile()
    with listening(found.record):
        yield found
