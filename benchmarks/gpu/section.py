"""A part of the run: a process of its own, with a time limit, whose output is kept. It cannot take the others along."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SHOWN = 10  # lines of the output that stand in the report
_TELLING = re.compile(
    r"^(\[gw\d+\].*)?(FAILED|ERROR)|^\w[\w.]*(Error|Exception)\b|^=+ .*(rror|hazard|nvalid)|crashed|Fatal|Timeout"
)


class Section(NamedTuple):
    """What to run: a command with additional environment variables; left_out: why not to run it."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds
    environment: Mapping[str, str] = {}
    left_out: str = ""


@dataclass
class Outcome:
    """How it went: "passed", "left out", "failed: exit status 1", "failed: SIGSEGV", "failed: not done in 60 s"."""

    name: str
    state: str
    seconds: float
    lines: list[str]  # of the output: what tells most

    @property
    def failed(self) -> bool:
        """Whether it ran and did not pass."""
        return self.state.startswith("failed")


def execute(section: Section, folder: Path) -> Outcome:
    """Run a section to its end or limit; its output goes to `folder/<name>.log`."""
    if section.left_out:
        return Outcome(section.name, "left out", 0.0, [section.left_out])
    log, start = folder / f"{file_name(section.name)}.log", time.monotonic()
    state = _state(section, log)
    return Outcome(section.name, state, time.monotonic() - start, _lines(log, state))


def file_name(name: str) -> str:
    """A section's name as the beginning of its files' names."""
    return re.sub(r"\W+", "-", name)


def _state(section: Section, log: Path) -> str:
    environment = os.environ | dict(section.environment)
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                section.command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        except OSError as error:
            return f"failed: {error}"
        try:
            status = process.wait(section.limit)
        except subprocess.TimeoutExpired:
            return f"failed: not done in {section.limit:.0f} s"
        finally:
            _end(process)
    if status == 0:
        return "passed"
    return f"failed: {signal.Signals(-status).name if status < 0 else f'exit status {status}'}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all it started. One that hangs inside the driver cannot be ended: it is left alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)


def _lines(log: Path, state: str) -> list[str]:
    """Of a failure the first lines that look like one, else the last lines."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)] if state != "passed" else []
    return telling[:SHOWN] or lines[-SHOWN:]
